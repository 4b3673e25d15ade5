"""Tasks and backbones of one name that are not the same, as sweeps that share a store may have them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.record import TrialStatus

# Column of the trials table -> what of a trial's provenance says which content the name stood for.
_CONTENT = {"task": ("data_fingerprint", "folds"), "backbone": ("backbone_fingerprint", None)}
_SHOWN = 7  # characters of a fingerprint, as of a commit


def told_apart(trials: pa.Table) -> pa.Table:
    """Trials whose task or backbone has a name of its own for each content that the name stood for.

    `own` of other rows or another metric becomes `own@1a2b3c4`, by the beginning of the fingerprint of its content; of
    one content, whole and cut into folds, `own` and `own (5 folds)`. Scores of different rows are never compared.
    Where trials have completed on one content alone, as after a mistake in a file has been mended, that one keeps the
    name. A trial that does not know its content has that of the others of its configuration, which is a part of what
    makes these one.
    """
    is_completed = pc.equal(trials["status"], TrialStatus.COMPLETED.value)
    for column, (fingerprint, folds) in _CONTENT.items():
        known = [_of_configuration(trials, key) for key in (fingerprint, folds)]
        content = pa.table({"name": trials[column], "fingerprint": known[0], "folds": known[1]})
        told = content.append_column("completed", is_completed).group_by(content.column_names)
        if names := _names(told.aggregate([("completed", "any")]).to_pylist()):
            keys = zip(*(each.to_pylist() for each in content.columns), strict=True)
            found = pa.array([names.get(key, key[0]) for key in keys], pa.string())
            trials = trials.set_column(trials.column_names.index(column), column, found)
    return trials


def called_as(rows: pa.Table, trials: pa.Table) -> pa.Table:
    """Rows of trials, a trial's epochs say, with the names that these have in their own table."""
    places = pc.index_in(rows["trial_id"], value_set=trials["trial_id"].combine_chunks())
    for column in _CONTENT:
        if column in rows.column_names:
            names = pc.coalesce(pc.take(trials[column].combine_chunks(), places), rows[column])
            rows = rows.set_column(rows.column_names.index(column), column, names)
    return rows


def of_models(costs: pa.Table, trials: pa.Table) -> pa.Table:
    """What answers take (a row per kind of model), with the names that backbones have in the trials' table.

    A row whose configurations have several backbones of one name keeps that name.
    """
    names = dict(zip(trials["config_id"].to_pylist(), trials["backbone"].to_pylist(), strict=True))
    called = []
    for backbone, config_ids in zip(costs["backbone"].to_pylist(), costs["config_ids"].to_pylist(), strict=True):
        own = {names[each] for each in config_ids or () if each in names}
        called.append(own.pop() if len(own) == 1 else backbone)
    return costs.set_column(costs.column_names.index("backbone"), "backbone", pa.array(called, pa.string()))


def _of_configuration(trials: pa.Table, key: str | None) -> pa.ChunkedArray | pa.Array:
    """What provenance says under a key, of a trial or else of another one of its configuration."""
    provenance = trials["provenance"]
    if key is None or not any(field.name == key for field in provenance.type):
        return pa.nulls(len(trials), pa.string())
    told = pc.struct_field(provenance, key)
    if told.null_count in (0, len(trials)):
        return told
    ids, own = trials["config_id"].to_pylist(), told.to_pylist()
    known = {config_id: value for config_id, value in zip(ids, own, strict=True) if value is not None}
    known.pop(None, None)
    return pa.array(
        [known.get(config_id) if value is None else value for config_id, value in zip(ids, own, strict=True)],
        pa.string(),
    )


def _names(contents: Sequence[dict[str, Any]]) -> dict[tuple[str, str, str | None], str]:
    """What each is called: only of names that stand for several. Records without a fingerprint keep theirs."""
    by_name: dict[str, list[tuple[str, str | None]]] = {}
    completed: dict[str, set[str]] = {}
    for each in contents:
        if each["name"] is not None and each["fingerprint"] is not None:
            by_name.setdefault(each["name"], []).append((each["fingerprint"], each["folds"]))
            completed.setdefault(each["name"], set()).update([each["fingerprint"]] if each["completed_any"] else [])
    called = {}
    for name, several in by_name.items():
        fingerprints = {fingerprint for fingerprint, _ in several}
        shown = _shortest(fingerprints)
        rivals = completed[name] or fingerprints
        plain = rivals if len(rivals) == 1 else set[str]()  # what keeps the name
        for fingerprint, folds in several:
            own = name if fingerprint in plain else f"{name}@{fingerprint[:shown]}"
            has_others = len({other for same, other in several if same == fingerprint}) > 1
            own += f" ({folds} folds)" if folds is not None and has_others else ""
            if own != name:
                called[name, fingerprint, folds] = own
    return called


def _shortest(fingerprints: Collection[str]) -> int:
    """How many characters tell them all apart, of a usual length at least."""
    sizes = range(_SHOWN, max(_SHOWN, *map(len, fingerprints)))
    enough = (size for size in sizes if len({each[:size] for each in fingerprints}) == len(fingerprints))
    return next(enough, sizes.stop)
