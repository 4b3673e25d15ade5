"""The code blocks of a page, each with the comments above it that say how it is checked.

A comment stands alone on the line above the fence:

    <!-- file: mine.yaml -->     what the block holds is written to this file, in the page's folder
    <!-- plan -->                a sweep that is planned and nothing else
    <!-- output -->              what the block above prints; "..." stands for anything, spaces do not count
    <!-- needs: minutes -->      run by `make docs-run` alone; also: cluster, gpu, network, which are run by hand
    <!-- shown: a reason -->     never run

Blocks of bash and Python without a comment are run. A page that begins with `<!-- continues: tutorial.md -->` is run
after that page, in its folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "cluster" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NEEDS = ("minutes", "cluster", "gpu", "network")
MARKS = ("file", "plan", "output", "needs", "shown")
_COMMENT = re.compile(r"<!--\s*([a-z]+)(?::\s*(.*?))?\s*-->", flags=re.DOTALL)
_COMMANDS = re.compile(r"(?:^|[;&|]\s*|\bdo\s+|/)(adaptune\s[^;&|#\n]*)", flags=re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # of its first line of content, counted from 1
    language: str
    text: str
    mark: str = ""  # one of MARKS, or empty
    value: str = ""  # what stands behind the colon of the mark

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page}:{self.line}"

    @property
    def is_checked(self) -> bool:
        """Whether it is run, planned, compared or parsed, or says why it is not."""
        if self.mark == "needs":
            return self.value in NEEDS and self.language in ("bash", "python")
        if self.mark == "shown":
            return len(self.value) >= 10
        if self.mark == "output":
            return self.language == "text"
        if self.mark == "file":
            return bool(self.value)
        if self.mark == "plan":
            return self.language == "yaml"
        return not self.mark and self.language in ("bash", "python", "json")


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order, those of the site's own directives (`{toctree}`) left out.

    Indented blocks are among them, with no language: nothing says what they hold.
    """
    found = []
    comments: list[Token] = []
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "html_block":
            comments.append(token)
            continue
        if token.type in ("fence", "code_block") and not token.info.startswith("{"):
            first, is_fence = (token.map or [0, 0])[0], token.type == "fence"
            mark, value = _mark_above(comments[-1:], first)
            found.append(
                Block(
                    page=page,
                    line=first + (2 if is_fence else 1),
                    language=token.info.strip(),
                    text=token.content,
                    mark=mark,
                    value=value,
                )
            )
    return found


def _mark_above(comments: Sequence[Token], line: int) -> tuple[str, str]:
    for comment in comments:
        given = _COMMENT.fullmatch(comment.content.strip())
        if given and comment.map and comment.map[1] == line:
            return given[1], given[2] or ""
    return "", ""


def page_before(page: Path) -> Path | None:
    """The page that a page continues."""
    given = _COMMENT.match(page.read_text(encoding="utf-8"))
    return page.parent / given[2] if given and given[1] == "continues" else None


def commands_of(page: Path) -> list[str]:
    """Every `adaptune` command line of a page: those of its bash blocks, and those that its prose quotes."""
    found = [line.strip() for block in blocks_of(page) if block.language == "bash" for line in _lines(block.text)]
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        codes = [child.content for child in token.children or () if child.type == "code_inline"]
        found += [code for code in codes if re.match(r"adaptune [a-z]", code)]
    return found


def targets_of(page: Path) -> list[str]:
    """Every target of make that a page names, in its blocks or its prose."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)


def _lines(text: str) -> list[str]:
    return [command.partition("  #")[0] for command in _COMMANDS.findall(text)]
