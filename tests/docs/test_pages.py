"""Every command and every block of code in the README and the documentation does what the page says."""

import json
import re
import shlex
import subprocess
import sys

import pytest
import typer

from orchestrator.cli.app import app
from orchestrator.planning.plan import plan_sweep
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.sweep_file import read_sweep
from tests.docs.blocks import MARKS, PAGES, ROOT, blocks_of, commands_of, targets_of
from tests.docs.play import BlockError, folder_of, play

RUN = [page for page in PAGES if any(not block.mark and block.language != "json" for block in blocks_of(page))]
SWEEPS = [
    (page, block) for page in PAGES for block in blocks_of(page) if block.language == "yaml" and block.mark != "shown"
]


@pytest.fixture(scope="session")
def pages_folder(tmp_path_factory):
    """Where the pages ran, all of them in one interpreter: importing torch is most of what a short page takes."""
    root = tmp_path_factory.mktemp("pages")
    command = [sys.executable, "-m", "tests.docs.play", "--into", str(root), *map(str, RUN)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (root / "faults.json").exists(), done.stderr
    return root


def test_every_block_of_a_page_is_checked_or_says_why_not():
    assert [block.place for page in PAGES for block in blocks_of(page) if not block.is_checked] == []


@pytest.mark.ray  # the pages are run once, sweeps and all
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_their_order(page, pages_folder):
    faults = json.loads((pages_folder / "faults.json").read_text(encoding="utf-8"))
    assert faults[str(page.relative_to(ROOT))] is None


@pytest.mark.ray  # the pages are run once, sweeps and all
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("page", "block"), SWEEPS, ids=lambda each: getattr(each, "place", ""))
def test_a_sweep_of_a_page_can_be_planned(page, block, pages_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder_of(page, pages_folder) if page in RUN else tmp_path)
    file = tmp_path / "sweep.yaml"
    file.write_text(block.text, encoding="utf-8")
    plan = plan_sweep(with_absolute_paths(read_sweep(str(file))), allow_missing=True)
    assert plan.most_trials > 0


def test_the_json_and_the_python_of_a_page_can_be_read(subtests):
    for block in (block for page in PAGES for block in blocks_of(page)):
        with subtests.test(block.place):
            if block.language == "json":
                json.loads(block.text)
            elif block.language == "python":
                compile(block.text, block.place, "exec")


def fault_of(command, arguments):
    """Why a command refuses its arguments; that there are none does not count, since prose names commands alone."""
    try:
        command.make_context(command.name, arguments)
    except Exception as error:
        return None if type(error).__name__ == "MissingParameter" else error
    return None


def test_every_command_of_a_page_is_one_that_the_command_line_takes(subtests):
    group = typer.main.get_command(app)
    for page in PAGES:
        for line in commands_of(page):
            with subtests.test(f"{page.relative_to(ROOT)}: {line}"):
                name, *arguments = shlex.split(line, comments=True)[1:]
                assert name in group.commands
                assert fault_of(group.commands[name], arguments) is None


def test_every_target_of_make_that_a_page_names_is_there(subtests):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page in PAGES:
        with subtests.test(str(page.relative_to(ROOT))):
            assert set(targets_of(page)) <= targets


def test_the_pages_show_every_way_of_checking_a_block():
    marks = {block.mark for page in PAGES for block in blocks_of(page)}
    assert marks == {"", *MARKS}
    assert len(RUN) >= 4


def write_page(tmp_path, *blocks):
    page = tmp_path / "page.md"
    page.write_text("\n".join(blocks), encoding="utf-8")
    return page


def test_blocks_share_their_folder_and_their_names_and_output_is_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = write_page(
        tmp_path,
        "<!-- file: a/word.txt -->\n```text\nhello\n```",
        "```python\nfrom pathlib import Path\n\nword = Path('a/word.txt').read_text()\n```",
        "```bash\necho from bash > b.txt\n```",
        "```python\nprint(word, Path('b.txt').read_text())\n```",
        "<!-- output -->\n```text\nhello\nfrom ...\n```",
        "<!-- needs: cluster -->\n```bash\nexit 1\n```",
        "<!-- shown: it would fail -->\n```python\n1 / 0\n```",
    )
    assert all(block.is_checked for block in blocks_of(page))
    play(page)
    assert (tmp_path / "b.txt").exists()


@pytest.mark.parametrize(
    ("blocks", "told"),
    [
        (["```python\n1 / 0\n```"], "page.md:2: Traceback"),
        (["```bash\nexit 3\n```"], "page.md:2: exit status 3"),
        (["```bash\nfalse | true\n```"], "exit status 1"),
        (["```bash\necho a\n```", "<!-- output -->\n```text\nb\n```"], "page.md:6: the page says\nb"),
        (["<!-- needs: minutes -->\n```bash\nexit 4\n```"], "exit status 4"),
    ],
)
def test_a_block_that_does_not_do_what_the_page_says_is_told_with_its_line(blocks, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BlockError) as caught:
        play(write_page(tmp_path, *blocks), minutes=True)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "block",
    [
        "```text\nwhat is this?\n```",
        "```\nno language\n```",
        "text\n\n    indented = True\n",
        "```yaml\nname: never planned\n```",
        "<!-- needs: patience -->\n```bash\ntrue\n```",
        "<!-- shown: -->\n```bash\ntrue\n```",
        "<!-- shown: a reason that is far away -->\n\n```yaml\na: 1\n```",
    ],
)
def test_a_block_that_nobody_checks_is_seen(block, tmp_path):
    [found] = blocks_of(write_page(tmp_path, block))
    assert not found.is_checked


def test_an_option_that_no_command_has_is_seen():
    command = typer.main.get_command(app).commands["plan"]
    assert fault_of(command, ["mine.yaml", "--fast"]) is not None
    assert fault_of(command, ["mine.yaml", "--json"]) is fault_of(command, []) is None


def test_commands_are_found_in_blocks_and_in_prose(tmp_path):
    page = write_page(
        tmp_path,
        "```bash\nadaptune run a.yaml --json   # why\nfor a in b; do adaptune export $a; done\n```",
        "```bash\n.venv/bin/adaptune ui\n```",
        "Then `adaptune status STORE`, after `make test`.",
    )
    expected = ["adaptune run a.yaml --json", "adaptune export $a", "adaptune ui", "adaptune status STORE"]
    assert commands_of(page) == expected
    assert targets_of(page) == ["test"]
