"""Text as it may reach a terminal or a figure.

Names come from task folders and stores that somebody else may have written. On a terminal an escape sequence within one
could move the cursor, rename the window or hide what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Control characters but for line ends and tabs, and those that change the direction of writing.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with what a terminal would obey or hide as an escape, such as \x1b."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def middle(text: str, length: int) -> str:
    """The text, or its beginning and its end with an ellipsis between them where it is longer than `length`.

    Names of tasks and settings differ at their ends as often as at their beginnings.
    """
    if len(text) <= length:
        return text
    head = length // 2
    tail = length - 1 - head
    return f"{text[:head]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - tail :]}"


def one_line(text: str) -> str:
    """`visible`, with a space wherever there is white space of any kind: for places that have one line."""
    return visible(" ".join(text.split()))


def shortened(names: Iterable[str], length: int) -> dict[str, str]:
    """What is shown of each distinct name: on one line, and without its middle where it is long.

    Of names that would read the same, it is the part in which they differ that is shown; where that does not tell them
    apart either, all but the first get a number.
    """
    lines = {name: one_line(name) for name in names}
    shown = {name: middle(line, length) for name, line in lines.items()}
    alike: dict[str, list[str]] = {}
    for name, short in shown.items():
        alike.setdefault(short, []).append(name)
    for group in alike.values():
        if len(group) > 1 and len({lines[name] for name in group}) > 1:
            shown |= dict(zip(group, _where_they_differ([lines[name] for name in group], length), strict=True))
    taken: set[str] = set()
    for name, short in shown.items():
        number = 1
        while shown[name] in taken:
            number += 1
            shown[name] = f"{middle(short, length - 4)} ({number})"
        taken.add(shown[name])
    return shown


def _where_they_differ(lines: Sequence[str], length: int) -> list[str]:
    """Of each line at most so many characters, around the part in which it is not as the others are."""
    begin = _alike(lines)
    end = _alike([line[begin:][::-1] for line in lines])
    room = length - 2  # an ellipsis on either side
    differing = max(len(line) - begin - end for line in lines)
    before = max(room // 4, (room - differing) // 2)
    parts = []
    for line in lines:
        start = max(0, min(begin - before, len(line) - room - 1))
        stop = len(line) if len(line) - start <= room + 1 else start + room
        cut = "\N{HORIZONTAL ELLIPSIS}"
        parts.append(f"{cut if start else ''}{line[start:stop]}{cut if stop < len(line) else ''}")
    return parts


def _alike(lines: Sequence[str]) -> int:
    """With how many of the same characters all of them begin."""
    number = 0
    while number < min(map(len, lines)) and len({line[number] for line in lines}) == 1:
        number += 1
    return number
