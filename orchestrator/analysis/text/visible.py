"""Text as it may reach a terminal or a figure.

Names come from task folders and stores that somebody else may have written. On a terminal an escape sequence within one
could move the cursor, rename the window or hide what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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


def shortened(names: Iterable[str], length: int) -> dict[str, str]:
    """What is shown of each distinct name: `visible`, and without its middle where it is long.

    Of two names that would read the same the second gets a number.
    """
    shown: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys(names):
        short, number = middle(visible(name), length), 1
        while short in taken:
            number += 1
            short = f"{middle(visible(name), length - 4)} ({number})"
        taken.add(short)
        shown[name] = short
    return shown
