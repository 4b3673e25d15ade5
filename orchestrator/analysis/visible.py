"""Text as it may reach a terminal or a figure.

Names come from task folders and stores that somebody else may have written. On a terminal an escape sequence within one
could move the cursor, rename the window or hide what follows.
"""

from __future__ import annotations

import re

# Control characters but for line ends and tabs, and those that change the direction of writing.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with what a terminal would obey or hide as an escape, such as \x1b."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
