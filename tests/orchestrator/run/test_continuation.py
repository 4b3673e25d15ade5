"""A sweep that is run again: what is kept, what is refused, and what an older adaptune trained otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.planning.plan import SweepPlan, plan_sweep, plan_table, trials_table
from orchestrator.run.continuation import check_continuation, continue_from, outcome_notice, outdated_trials
from orchestrator.store import Store
from tests.factories import records_of
from tests.orchestrator.conftest import write_backbone
from trainables.config import OUTCOME_VERSION
from trainables.faults import FaultsError

Values = dict[str, Any]


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Callable[[Values], SweepPlan]:
    """Plans a sweep as an adaptune of outcome version 1 would have."""

    def make(values: Values) -> SweepPlan:
        with monkeypatch.context() as past:
            past.setattr("trainables.config.OUTCOME_VERSION", 1)
            return plan_sweep(values)

    return make


def _table(made: SweepPlan, version: int | None) -> pa.Table:
    table = plan_table(made)
    if version is None:
        return table.drop_columns(["outcome_version"])
    place = table.column_names.index("outcome_version")
    return table.set_column(place, "outcome_version", pa.array([version] * len(table), pa.int64()))


def test_the_same_sweep_goes_on_a_wider_one_on_request_and_a_narrower_one_never(values: Values) -> None:
    made = plan_sweep(values)
    wider, narrower = plan_sweep({**values, "seeds": [0, 1, 2]}), plan_sweep({**values, "seeds": [0]})
    held = plan_table(made)
    same = continue_from(made, held)
    assert (same.lost, same.new, same.outdated, same.kept.num_rows) == (0, 0, {}, 6)
    more = continue_from(wider, held)
    assert (more.lost, more.new) == (0, 3)
    assert more.faults("small", "s", widen=True) == []
    assert "3 trials are new to small in s" in more.faults("small", "s", widen=False)[0]
    less = continue_from(narrower, held)
    assert (less.lost, less.kept.num_rows) == (3, 3)
    for widen in (False, True):
        assert "3 of the 6 trials planned for small in s are not in it" in less.faults("small", "s", widen=widen)[0]


def test_another_backbone_makes_a_sweep_wider_wherever_it_stands(values: Values, tmp_path: Path) -> None:
    held = plan_table(plan_sweep(values))
    backbones = [values["backbone"], str(write_backbone(tmp_path / "other", seed=1))]
    for named in (backbones, backbones[::-1]):
        more = continue_from(plan_sweep({**values, "backbone": named}), held)
        assert (more.lost, more.new, more.kept.num_rows) == (0, 6, 6)
    assert continue_from(plan_sweep({**values, "backbone": backbones[1]}), held).lost == 6


@pytest.mark.parametrize("version", [1, None])
def test_what_an_older_adaptune_planned_is_outdated_and_can_be_run_again_as_it_is(
    values: Values, older: Callable[[Values], SweepPlan], version: int | None
) -> None:
    before, now = older(values), plan_sweep(values)
    assert not {t.trial_id for t in before.trials} & {t.trial_id for t in now.trials}
    found = continue_from(now, _table(before, version))
    assert found.outdated == dict.fromkeys([t.trial_id for t in before.trials], version)
    assert (found.lost, found.new, found.kept.num_rows) == (0, 0, 0)
    wider = continue_from(plan_sweep({**values, "seeds": [0, 1, 2]}), _table(before, version))
    assert (wider.lost, wider.new) == (0, 3)


def test_another_sweep_of_the_same_name_is_not_taken_for_an_older_one(values: Values) -> None:
    other = plan_sweep({**values, "space": {"num_epochs": 1, "max_length": 16}})
    for table in (_table(other, None), plan_table(other)):
        found = continue_from(plan_sweep(values), table)
        assert (found.lost, found.outdated) == (6, {})


def test_records_of_an_older_adaptune_are_announced_in_one_line(
    values: Values, older: Callable[[Values], SweepPlan], tmp_path: Path
) -> None:
    before, now, store = older(values), plan_sweep(values), Store(tmp_path)
    assert outcome_notice(now, store) is None
    store.create(before.spec.to_json(), _table(before, 1))
    store.append([*records_of(before, [0, 1]), *records_of(before, [2], status="failed")])
    assert outcome_notice(now, store) == (
        f"2 records are of outcome version 1, this adaptune trains version {OUTCOME_VERSION}, so they are kept in "
        "superseded/ and 2 trials are trained again"
    )
    store.begin(before.spec.to_json(), _table(before, None))
    notice = outcome_notice(now, store)
    assert notice is not None
    assert "of an unknown, earlier outcome version" in notice


def test_an_older_record_that_another_sweep_of_the_store_planned_stays(
    values: Values, older: Callable[[Values], SweepPlan], tmp_path: Path
) -> None:
    before, store = older(values), Store(tmp_path)
    store.create(before.spec.to_json(), _table(before, 1))
    part = older({**values, "name": "part", "methods": ["layernorm"]})
    store.begin(part.spec.to_json(), _table(part, 1))
    assert {t.trial_id for t in part.trials} <= {t.trial_id for t in before.trials}
    assert outdated_trials(plan_sweep({**values, "name": "part", "methods": ["layernorm"]}), store) == {}
    assert len(outdated_trials(plan_sweep(values), store)) == 4


def test_the_check_is_of_the_sweep_with_the_same_name_alone(values: Values, tmp_path: Path) -> None:
    store, made = Store(tmp_path), plan_sweep(values)
    store.create(made.spec.to_json(), plan_table(made))
    check_continuation(plan_sweep({**values, "name": "other", "seeds": [7]}), store, widen=False)
    with pytest.raises(FaultsError, match="a sweep keeps what it has planned"):
        check_continuation(plan_sweep({**values, "seeds": [7]}), store, widen=False)


class TestWhatASearchHasProposed:
    def _adaptive(self, values: Values, **changes: Any) -> SweepPlan:
        space = {"num_epochs": 2, "max_length": 16, "learning_rate": {"loguniform": [1e-4, 1e-2]}}
        search = {"algorithm": "tpe", "num_samples": 4}
        return plan_sweep({**values, "space": space, "search": search, "methods": ["layernorm"], **changes})

    def _proposed(self, made: SweepPlan) -> pa.Table:
        return trials_table(made.spec.name, made.task_methods[0].trials({"num_epochs": 2, "learning_rate": 1e-3}))

    def test_stays_planned_while_its_task_and_method_are_in_the_spec(self, values: Values) -> None:
        made = self._adaptive(values)
        wider = self._adaptive(values, methods=["bitfit", "layernorm"], seeds=[0, 1, 2])
        for asked in (made, wider):
            found = continue_from(asked, self._proposed(made))
            assert (found.kept.num_rows, found.lost, found.new) == (2, 0, 0)
        assert continue_from(self._adaptive(values, methods=["bitfit"]), self._proposed(made)).lost == 2

    def test_is_lost_with_the_rows_that_it_was_proposed_for(
        self, values: Values, write_task: Callable[..., Path], tmp_path: Path
    ) -> None:
        changed = {**values, "tasks": [str(write_task(rows=40, under=tmp_path))]}
        assert continue_from(self._adaptive(changed), self._proposed(self._adaptive(values))).lost == 2

    def test_is_outdated_where_an_older_adaptune_proposed_it(self, values: Values) -> None:
        made = self._adaptive(values)
        held = self._proposed(made)
        place = held.column_names.index("outcome_version")
        held = held.set_column(place, "outcome_version", pa.array([1, 1], pa.int64()))
        assert len(continue_from(made, held).outdated) == 2
