"""Every relative link in a Markdown file leads somewhere, headings included."""

import re
from pathlib import Path

import pytest

from tests.sources import ROOT, ours

PAGES = [ROOT / path for path in ours("*.md")]


def prose(page: Path) -> str:
    """A page without its code, where brackets mean other things."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^(?: {4}|\t).*$", "", text, flags=re.MULTILINE))


def links(page: Path) -> list[str]:
    text = prose(page)
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)", text)
    references = re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, flags=re.MULTILINE)
    html = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", text)
    return [link for link in inline + references + html if not re.match(r"[a-z][a-z0-9+.-]*:", link)]


def anchors(page: Path) -> set[str]:
    """The fragments a page's headings answer to, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{1,6}\s+(.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    broken = []
    for link in links(page):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and target.suffix == ".md" and fragment not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_of_a_page_leads_somewhere(page):
    assert broken_links(page) == []


def test_a_broken_link_is_seen_and_a_link_inside_code_is_not(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n[good](#one-heading) [site](https://example.org) `[code](nowhere)`\n```\n[code](nowhere)\n```\n"
        '[bad](missing.md) [worse](#no-heading)\n<img src="missing.png">\n',
        encoding="utf-8",
    )
    assert broken_links(page) == ["missing.md", "#no-heading", "missing.png"]
