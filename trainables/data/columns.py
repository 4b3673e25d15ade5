"""Which columns of a file hold the texts and the labels: the ones declared, else the ones that are called so.

A file that calls them `text_a`, `text_b` and `label` is taken at its word. Else the names that such columns usually
have are looked for, capitals and blanks around them aside, and taken where only one reading is possible.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainables.data.label_sets import FLAG

OURS = ("text_a", "text_b", "label")

PAIRS = (
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("query", "passage"),
    ("query", "document"),
    ("text1", "text2"),
    ("sentence_a", "sentence_b"),
    ("#1_string", "#2_string"),  # the published files of MRPC
)
TEXTS = (
    "text",
    "sentence",
    "content",
    "review",
    "review_text",
    "tweet",
    "comment",
    "comment_text",
    "message",
    "utterance",
    "document",
)
LABELS = ("label", "labels", "gold_label", "target", "category", "class", "score", "sentiment", "intent", "quality")


_NUMBERING = ("id", "idx", "index")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"  # what may stand around a name and is no blank


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where text_a, text_b and label are among a file's columns; what a file lacks is not in `places`."""

    places: Mapping[str, int]  # of `OURS` -> index of the file's column
    notes: tuple[str, ...] = ()  # what was found by itself
    flags: Mapping[str, int] = field(default_factory=dict)  # columns that may each be a label -> their index

    @property
    def kept(self) -> dict[str, int]:
        """What is read of a file: the names that its columns have in a table -> their index."""
        ours = {name: self.places[name] for name in OURS if name in self.places}
        return ours | {FLAG + name: place for name, place in self.flags.items()}


def find_columns(names: Sequence[str], declared: Mapping[str, str | Sequence[str]] | None = None) -> Columns:
    """The columns of a file that has these names. Raises `ValueError` where a name is doubtful.

    A column that is not found is for `trainables.data.rows` to miss, unless it was declared. Several columns declared
    as label are a label each; without a label, any other column may be one, which only its values tell.
    """
    if declared:
        names = [name if name in _declared(declared) else _bare(name) for name in names]
        each = {ours: [theirs] if isinstance(theirs, str) else theirs for ours, theirs in declared.items()}
        absent = [theirs for listed in each.values() for theirs in listed if theirs not in names]
        if absent:
            raise ValueError(
                f"has no column {', '.join(map(repr, absent))}, which columns of task.json names. "
                f"Its columns: {shown(names)}"
            )
        return Columns(
            places={ours: _once(names, theirs) for ours, theirs in declared.items() if isinstance(theirs, str)},
            flags={} if isinstance(declared.get("label", ""), str) else {n: _once(names, n) for n in each["label"]},
        )
    exact = {ours: _once(names, ours) for ours in OURS if ours in names}
    if "text_a" in exact and "label" in exact:
        return Columns(places=exact)
    called: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        called.setdefault(_plain(name), []).append(place)
    texts = {"text_a": exact["text_a"]} if "text_a" in exact else _texts(names, called)
    if "text_a" in exact and "text_b" in exact:
        texts["text_b"] = exact["text_b"]
    label = {"label": exact["label"]} if "label" in exact else _label(names, called)
    places = texts | label
    found = [f"{ours} is {names[place]!r}" for ours, place in places.items() if names[place] != ours]
    return Columns(
        places=places,
        notes=(f"columns: {', '.join(found)}",) if found else (),
        flags={} if "label" in places or "text_a" not in places else _flags(names, set(places.values())),
    )


def names_columns(values: Sequence[str], declared: Mapping[str, str | Sequence[str]] | None = None) -> bool:
    """Whether values are names of columns, those of texts and labels among them."""
    try:
        found = find_columns(values, declared)
    except ValueError as fault:  # names enough to be in doubt about, unless those declared are absent
        return declared is None and "could be" in str(fault)
    return {"text_a", "label"} <= found.places.keys() or bool(declared and found.flags)


def _declared(declared: Mapping[str, str | Sequence[str]]) -> set[str]:
    return {name for named in declared.values() for name in ([named] if isinstance(named, str) else named)}


def shown(names: Sequence[str], at_most: int = 12) -> str:
    """Names of columns as a fault lists them."""
    listed = [name if name.strip() else repr(name) for name in names[:at_most]]
    return ", ".join(listed) + (", ..." if len(names) > at_most else "") or "none"


def suggestion(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """What to say to a file whose names tell nothing, from some of its rows; empty where these tell nothing either.

    The text is the column of most characters, the label the one of fewest values, a column of one value and one of
    nothing but different values aside.
    """
    if rows and any(name.strip() and name in {row[place] for row in rows} for place, name in enumerate(names)):
        return (
            f"the first line ({', '.join(names)[:80]}) looks like a row: where no line names the columns, name all "
            f'{len(names)} in task.json, as "header": ["label", "text_a", ...]'
        )
    columns = {name: [row[place] for row in rows] for place, name in enumerate(names) if name.strip()}
    filled = {name: values for name, values in columns.items() if any(value.strip() for value in values)}
    if not filled:
        return ""
    text = max(filled, key=lambda name: sum(map(len, filled[name])))
    flags = [name for name, values in filled.items() if set(values) <= {"0", "1"} and _plain(name) not in _NUMBERING]
    if len(flags) > 1:
        return (
            f"{', '.join(flags)} look like a label each. Say in task.json "
            f'"columns": {{"text_a": "{text}", "label": {json.dumps(flags)}}} if a text may have several of them, or '
            f'take one, as "label": "{flags[0]}"'
        )
    counts = {
        name: len(set(values)) for name, values in filled.items() if name != text and _plain(name) not in _NUMBERING
    }
    labels = {name: count for name, count in counts.items() if 1 < count < len(rows)}
    label = min(labels, key=lambda name: labels[name]) if labels else "..."
    called = next((name for name in labels if _plain(name) in LABELS), label)
    others = [name for name in filled if name not in (text, called) and _is_text_like(filled[name])]
    pair = f'; where {shown(others)} holds text too and rows are pairs, with "text_b": "{others[0]}"' if others else ""
    return f'say in task.json which column is which, as "columns": {{"text_a": "{text}", "label": "{called}"}}{pair}'


def _is_text_like(values: Sequence[str]) -> bool:
    """Whether values look like texts: of several words, and hardly any twice."""
    several = sum(len(value.split()) > 2 for value in values)
    return 2 * several > len(values) and 2 * len(set(values)) > len(values)


def _texts(names: Sequence[str], called: Mapping[str, list[int]]) -> dict[str, int]:
    pairs = [pair for pair in PAIRS if all(name in called for name in pair)]
    if len(pairs) == 1:
        # A title beside a pair, or the question of one, is no second reading.
        return {ours: _once_of(names, called, theirs) for ours, theirs in zip(OURS, pairs[0], strict=False)}
    single = [name for name in ("text_a", *TEXTS) if name in called]
    if len(pairs) > 1 or len(single) > 1:
        doubtful = single or [name for pair in pairs for name in pair]
        raise ValueError(
            f"has several columns that could be the text: {', '.join(doubtful)}. "
            f'Say which in task.json, as "columns": {{"text_a": "{doubtful[0]}", "label": ...}}'
        )
    return {"text_a": _once_of(names, called, single[0])} if single else {}


def _label(names: Sequence[str], called: Mapping[str, list[int]]) -> dict[str, int]:
    found = [name for name in LABELS if name in called]
    if len(found) > 1 and "label" not in found:
        raise ValueError(
            f"has several columns that could be the label: {', '.join(found)}. "
            f'Say which in task.json, as "columns": {{"text_a": ..., "label": "{found[0]}"}}'
        )
    return {"label": _once_of(names, called, found[0])} if found else {}


def _flags(names: Sequence[str], taken: set[int]) -> dict[str, int]:
    """The columns that may each be a label: all others but numberings."""
    return {
        name: place
        for place, name in enumerate(names)
        if place not in taken and name.strip() and _plain(name) not in _NUMBERING and list(names).count(name) == 1
    }


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", _bare(name).casefold())


def _bare(name: str) -> str:
    """A name without what surrounds it and cannot be seen."""
    return name.strip().strip(_INVISIBLE).strip().removeprefix("# ")


def _once(names: Sequence[str], name: str) -> int:
    if list(names).count(name) > 1:
        raise ValueError(f"every column must stand once, but {name} stands twice")
    return list(names).index(name)


def _once_of(names: Sequence[str], called: Mapping[str, list[int]], plain: str) -> int:
    if len(called[plain]) > 1:
        both = ", ".join(repr(names[place]) for place in called[plain])
        raise ValueError(f"every column must stand once, but there are {both}")
    return called[plain][0]
