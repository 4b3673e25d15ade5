from __future__ import annotations

from orchestrator.analysis.text.visible import middle, one_line, shortened, visible


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert visible("a\x1b[31mb\u202ec\n\t") == "a\\x1b[31mb\\u202ec\n\t"


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert middle("abcdefghij", 7) == "abc…hij"
    assert middle("abcdefghij", 6) == "abc…ij"
    assert middle("abcdefghij", 10) == "abcdefghij"


def test_names_that_would_read_the_same_are_told_apart() -> None:
    names = ["beginning-1-end", "beginning-2-end", "beginning-3-end", "short"]
    shown = shortened(names, 11)
    assert shown["short"] == "short"
    assert shown["beginning-1-end"] == "begin…1-end"
    assert len(set(shown.values())) == 4
    assert all(len(name) <= 11 for name in shown.values())


def test_of_names_that_differ_in_their_middle_the_middle_is_shown() -> None:
    names = [f"a-task-with-a-really-quite-long-name-{number:02d}-as-folders-have" for number in range(12)]
    for length in (12, 24, 30):
        shown = shortened([*names, "glue/cola"], length)
        assert all(f"{number:02d}" in shown[name] and len(shown[name]) <= length for number, name in enumerate(names))
        assert len(set(shown.values())) == 13


def test_names_that_differ_in_white_space_alone_are_numbered() -> None:
    assert one_line(" a\n\tb\x1b ") == "a b\\x1b"
    assert shortened(["a\nb", "a b"], 20) == {"a\nb": "a b", "a b": "a b (2)"}
