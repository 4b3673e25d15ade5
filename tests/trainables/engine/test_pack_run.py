"""A pack from its first trial to its last: each ends as it should, and what came of it is told once."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import trainables
from tests.factories import brief_config
from trainables import metrics, tasks
from trainables.backbones.loading import Backbone
from trainables.config import TrialConfig
from trainables.data.tokenized import tokenize
from trainables.engine.inbox import Inbox
from trainables.engine.pack_run import PackContext, PackRun
from trainables.outcome import EpochReport, OutcomeStatus, TrialOutcome
from trainables.training.pack import Pack
from trainables.training.prefix_cache import PrefixCache
from trainables.training.running_trial import Job, RunningTrial

MakeContext = Callable[..., PackContext]
STEPS = 4  # of an epoch: 64 rows in batches of 16


@pytest.fixture
def context(task_folder: Callable[..., Path], backbone: Backbone, tmp_path: Path) -> MakeContext:
    """Writes a task folder and makes the context of its trials."""

    def make(**task: Any) -> PackContext:
        loaded = tasks.load(str(task_folder(**task)))
        return PackContext(
            backbone=backbone,
            task=loaded.info,
            metric=metrics.get(loaded.info.metric),
            data=tokenize(loaded, backbone.tokenizer, "tiny", 16, tmp_path),
            prefixes=PrefixCache(backbone.encoder),
            provenance={"made": "here"},
        )

    return make


def train(
    context: PackContext, *trials: TrialConfig, memory_bytes: int | None = None, **callbacks: Any
) -> list[TrialOutcome]:
    """Trains a pack of trials, with callbacks for the first of them; the outcomes in the order of the trials."""
    outcomes: dict[int, TrialOutcome] = {}

    def job(index: int, **own: Any) -> Job:
        def done(outcome: TrialOutcome) -> None:
            assert index not in outcomes
            outcomes[index] = outcome

        return Job(config=trials[index], done=done, **own)

    inbox = Inbox()
    for index in range(1, len(trials)):
        inbox.put(job(index))
    run = PackRun(context, job(0, **callbacks), inbox, lambda other: True, memory_bytes=memory_bytes)
    run.run()
    return [outcomes[index] for index in range(len(trials))]


def stepped(monkeypatch: pytest.MonkeyPatch) -> list[list[RunningTrial]]:
    """Who took each step."""
    steps: list[list[RunningTrial]] = []
    original = Pack.step

    def step(self: Pack) -> None:
        steps.append(list(self.trials))
        original(self)

    monkeypatch.setattr(Pack, "step", step)
    return steps


class TestCompletion:
    def test_epochs_are_reported_as_they_end_and_scores_are_the_last_one_s(self, context: MakeContext) -> None:
        reports: list[EpochReport] = []
        (outcome,) = train(context(), brief_config(num_epochs=3), report=lambda epoch: reports.append(epoch) is None)
        assert outcome.status is OutcomeStatus.COMPLETED
        assert outcome.epochs == tuple(reports)
        assert [epoch.step for epoch in reports] == [STEPS, 2 * STEPS, 3 * STEPS]
        assert (outcome.validation_score, outcome.validation) == (reports[-1].validation_score, reports[-1].validation)
        assert outcome.test_score == outcome.test["accuracy"]
        assert outcome.provenance == {"made": "here"}
        assert outcome.pack_size == 1
        assert outcome.examples_per_second is not None
        assert outcome.examples_per_second > 0

    def test_a_task_without_a_test_split_has_no_test_score(self, context: MakeContext) -> None:
        (outcome,) = train(context(splits="train validation"), brief_config())
        assert (outcome.status, outcome.test_score, outcome.test) == (OutcomeStatus.COMPLETED, None, {})

    @pytest.mark.parametrize("method", ["adapter", "top_layers"])
    def test_further_splits_are_scored_once_with_the_final_model(self, context: MakeContext, method: str) -> None:
        mine = context(splits="train validation test validation_far test_far")
        (outcome,) = train(mine, brief_config(method))
        assert outcome.status is OutcomeStatus.COMPLETED
        assert outcome.validation.keys() == {"accuracy", "loss", "far_accuracy", "far_loss"} == outcome.test.keys()
        last = outcome.epochs[-1].validation
        assert last.keys() == {"accuracy", "loss"}  # epochs know nothing of them, and selection goes by the others
        assert {name: outcome.validation[name] for name in last} == last
        assert (outcome.validation_score, outcome.test_score) == (last["accuracy"], outcome.test["accuracy"])
        same = train(
            dataclasses.replace(mine, data={**mine.data, "validation": mine.data["validation_far"]}),
            brief_config(method),
        )
        assert outcome.validation["far_accuracy"] == same[0].validation["accuracy"]

    def test_a_trial_that_was_cut_short_has_no_scores_on_further_splits(self, context: MakeContext) -> None:
        mine = context(splits="train validation test validation_far test_far")
        (outcome,) = train(mine, brief_config(), report=lambda epoch: False)
        assert (outcome.status, outcome.test) == (OutcomeStatus.PRUNED, {})
        assert outcome.validation.keys() == {"accuracy", "loss"}

    def test_fewer_steps_than_epochs_still_report_every_epoch(self, context: MakeContext) -> None:
        reports: list[int] = []
        trial = brief_config(batch_size=32, num_epochs=3)
        (outcome,) = train(context(rows=10), trial, report=lambda epoch: reports.append(epoch.epoch) is None)
        assert outcome.status is OutcomeStatus.COMPLETED
        assert reports == [1, 2, 3]
        assert [epoch.step for epoch in outcome.epochs] == [1, 1, 1]

    def test_trials_of_different_lengths_end_one_by_one(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = stepped(monkeypatch)
        outcomes = train(context(), *(brief_config(num_epochs=epochs, seed=epochs) for epochs in (2, 1, 3)))
        assert [len(trials) for trials in steps] == [3] * STEPS + [2] * STEPS + [1] * STEPS
        assert [outcome.pack_size for outcome in outcomes] == pytest.approx([2.5, 3, 2])
        assert [len(outcome.epochs) for outcome in outcomes] == [2, 1, 3]
        assert len({outcome.validation["loss"] for outcome in outcomes}) == 3

    def test_what_is_saved_is_what_scored(self, context: MakeContext, tiny_bert: Path, tmp_path: Path) -> None:
        mine = context()
        trial = brief_config(backbone=str(tiny_bert), task=mine.task.name, max_length=16)
        saved, _ = train(mine, trial, brief_config(seed=1), save_to=tmp_path / "saved")
        predictor = trainables.load(tmp_path / "saved")
        assert predictor.scores == {
            **{f"validation/{name}": value for name, value in saved.validation.items()},
            **{f"test/{name}": value for name, value in saved.test.items()},
        }

    def test_what_cannot_be_saved_is_a_failure_and_its_pack_mates_go_on(
        self, context: MakeContext, tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        failed, other = train(context(), brief_config(), brief_config(seed=1), save_to=tmp_path / "file" / "saved")
        assert (failed.status, other.status) == (OutcomeStatus.FAILED, OutcomeStatus.COMPLETED)
        assert "NotADirectoryError" in str(failed.error)
        assert len(failed.epochs) == 2
        assert (failed.validation_score, failed.test_score) == (None, None)


class TestEndingEarly:
    def test_what_will_have_come_of_a_trial_that_an_epoch_ends_is_told_before_the_epoch(
        self, context: MakeContext
    ) -> None:
        told: list[TrialOutcome] = []
        (pruned,) = train(
            context(), brief_config(num_epochs=3), if_pruned=told.append, report=lambda epoch: epoch.epoch < 2
        )
        assert [len(outcome.epochs) for outcome in told] == [1, 2]
        assert pruned.status is told[-1].status is OutcomeStatus.PRUNED
        measured_later: dict[str, Any] = {"duration_s": 0.0, "peak_memory_bytes": None}
        assert dataclasses.replace(told[-1], **measured_later) == dataclasses.replace(pruned, **measured_later)
        assert told[-1].provenance == {"made": "here"}

    def test_a_report_that_answers_no_prunes(self, context: MakeContext) -> None:
        pruned, other = train(
            context(),
            brief_config(num_epochs=4),
            brief_config(num_epochs=4, seed=1),
            report=lambda epoch: epoch.epoch < 2,
        )
        assert pruned.status is OutcomeStatus.PRUNED
        assert [epoch.epoch for epoch in pruned.epochs] == [1, 2]
        assert (pruned.test_score, pruned.test) == (None, {})
        assert pruned.validation_score == pruned.epochs[-1].validation_score
        assert (other.status, len(other.epochs)) == (OutcomeStatus.COMPLETED, 4)

    def test_after_the_last_epoch_there_is_nothing_to_prune(self, context: MakeContext) -> None:
        (outcome,) = train(context(), brief_config(num_epochs=1), report=lambda epoch: False)
        assert outcome.status is OutcomeStatus.COMPLETED
        assert outcome.test_score is not None

    def test_a_pruned_trial_reports_no_epoch_more_even_where_one_step_ends_several(self, context: MakeContext) -> None:
        (outcome,) = train(context(rows=10), brief_config(batch_size=32, num_epochs=3), report=lambda epoch: False)
        assert (outcome.status, len(outcome.epochs)) == (OutcomeStatus.PRUNED, 1)

    def test_a_cancelled_trial_stops_at_the_next_step_and_the_others_do_not(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = stepped(monkeypatch)
        steps_before = STEPS + 2
        outcomes = train(
            context(),
            brief_config(num_epochs=3),
            brief_config(num_epochs=3, seed=1),
            cancelled=lambda: len(steps) == steps_before,
        )
        assert [len(trials) for trials in steps] == [2] * steps_before + [1] * (3 * STEPS - steps_before)
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.CANCELLED, OutcomeStatus.COMPLETED]
        assert [epoch.step for epoch in outcomes[0].epochs] == [STEPS]
        assert (outcomes[0].test_score, outcomes[0].validation_score) == (None, outcomes[0].epochs[0].validation_score)

    def test_a_trial_cancelled_before_its_first_step_has_measured_nothing(self, context: MakeContext) -> None:
        (outcome,) = train(context(), brief_config(), cancelled=lambda: True)
        assert (outcome.status, outcome.epochs) == (OutcomeStatus.CANCELLED, ())
        assert (outcome.examples_per_second, outcome.pack_size, outcome.validation_score) == (None, None, None)
        assert outcome.trained_params is not None

    def test_one_that_is_taken_up_is_asked_before_its_first_step_too(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = stepped(monkeypatch)
        outcomes: list[TrialOutcome] = []
        inbox = Inbox()
        inbox.put(Job(config=brief_config(seed=1), done=outcomes.append, cancelled=lambda: True))
        PackRun(context(), Job(config=brief_config(num_epochs=1), done=outcomes.append), inbox, lambda job: True).run()
        assert [len(trials) for trials in steps] == [1] * STEPS
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.CANCELLED, OutcomeStatus.COMPLETED]

    def test_the_speed_of_a_trial_is_that_of_its_steps_evaluation_left_out(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock, calls = itertools.count(), itertools.count()
        mine = context()
        monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))
        (outcome,) = train(mine, brief_config(num_epochs=3), cancelled=lambda: next(calls) == STEPS + 2)
        assert outcome.examples_per_second == 16 / 1.0  # a step is two looks at the clock, a second apart

    def test_a_step_that_breaks_is_the_end_of_all_who_took_it(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(self: Pack) -> None:
            raise RuntimeError("the device is gone")

        monkeypatch.setattr(Pack, "step", broken)
        outcomes = train(context(), brief_config(), brief_config(seed=1))
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.FAILED] * 2
        assert all("the device is gone" in str(outcome.error) for outcome in outcomes)


def test_only_steps_that_are_judged_and_those_that_end_an_epoch_wait_for_the_device(
    context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fewer trials are under way than a pack may hold: the host runs ahead, however long that lasts."""
    waits: list[int] = []
    steps = stepped(monkeypatch)
    monkeypatch.setattr("trainables.engine.pack_run.wait_for", lambda device: waits.append(len(steps)))
    mine, trials = context(), [brief_config(seed=seed, num_epochs=2) for seed in range(2)]
    train(mine, *trials)
    assert waits == [STEPS, 2 * STEPS]
    waits.clear()
    steps.clear()
    train(mine, trials[0], memory_bytes=1)  # which holds one, and the pack is full
    assert waits == list(range(1, 2 * STEPS + 1))


class TestMemory:
    def test_a_pack_takes_up_no_more_than_its_memory_holds(self, context: MakeContext) -> None:
        inbox = Inbox()
        outcomes: list[TrialOutcome] = []
        waiting = Job(config=brief_config(seed=1), done=outcomes.append)
        inbox.put(waiting)
        first = Job(config=brief_config(), done=outcomes.append)
        PackRun(context(), first, inbox, lambda job: True, memory_bytes=1).run()
        assert [outcome.pack_size for outcome in outcomes] == [1]
        assert inbox.take(2, lambda job: True) == [waiting]  # the next pack's

    def test_who_had_to_give_way_has_ended_its_epoch_if_it_took_the_step(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Slices of one trial; in their last step the fourth does not fit beside the others, after the third did."""
        trials = [brief_config(seed=seed, num_epochs=1) for seed in range(4)]
        mine = context()
        undisturbed = train(mine, *trials)
        original = Pack.train_slice

        def train_slice(self: Pack, first: int, last: int, batches: Any) -> None:
            if last - first > 1 or (len(self.trials) == 4 and first == 3 and self.trials[3].step == STEPS - 1):
                raise torch.OutOfMemoryError("out of memory")
            original(self, first, last, batches)

        monkeypatch.setattr(Pack, "train_slice", train_slice)
        outcomes = train(mine, *trials)
        for ours, expected in zip(outcomes, undisturbed, strict=True):
            assert ours.status is OutcomeStatus.COMPLETED, ours.error
            assert [epoch.step for epoch in ours.epochs] == [STEPS]
            assert ours.epochs[0].train_loss == pytest.approx(expected.epochs[0].train_loss, abs=1e-5)
            assert ours.validation["loss"] == pytest.approx(expected.validation["loss"], abs=1e-5)

    def test_who_gave_way_and_still_does_not_fit_waits_on_and_hears_of_its_end(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original, originally, refusals = Pack.step, Pack.resume, []

        def step(self: Pack) -> None:
            if len(self.trials) == 4:
                raise torch.OutOfMemoryError("out of memory")
            original(self)

        def resume(self: Pack, *given: Any) -> None:
            if self.trials or len(given[0]) > 1:
                refusals.append((len(self.trials), len(given[0])))
                raise torch.OutOfMemoryError("out of memory")
            originally(self, *given)

        monkeypatch.setattr(Pack, "step", step)
        monkeypatch.setattr(Pack, "resume", resume)
        outcomes = train(context(), *(brief_config(seed=seed, num_epochs=1 + (seed == 1)) for seed in range(4)))
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.COMPLETED] * 4
        assert refusals == [(1, 1)]  # from then on one at a time

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), RuntimeError("the device is gone")])
    def test_who_cannot_come_back_at_all_fails(
        self, context: MakeContext, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        original = Pack.step

        def step(self: Pack) -> None:
            if len(self.trials) > 1:
                raise torch.OutOfMemoryError("out of memory")
            original(self)

        def resume(self: Pack, *given: Any) -> None:
            raise error

        monkeypatch.setattr(Pack, "step", step)
        monkeypatch.setattr(Pack, "resume", resume)
        outcomes = train(context(), *(brief_config(seed=seed, num_epochs=1) for seed in range(3)))
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.COMPLETED] + [OutcomeStatus.FAILED] * 2
        assert all(str(error) in str(outcome.error) for outcome in outcomes[1:])


class TestAdmission:
    def test_one_that_cannot_begin_takes_nobody_with_it(self, context: MakeContext) -> None:
        """Several are taken up at once, of which the second starts from what cannot be read."""

        def gone() -> Any:
            raise FileNotFoundError("what it starts from is gone")

        outcomes: dict[int, TrialOutcome] = {}
        inbox = Inbox()
        jobs = [
            Job(
                config=brief_config(seed=seed, num_epochs=1),
                done=functools.partial(outcomes.__setitem__, seed),
                start=gone if seed == 2 else None,
            )
            for seed in range(4)
        ]
        for job in jobs[1:]:
            inbox.put(job)
        PackRun(context(), jobs[0], inbox, lambda job: True).run()
        statuses = [outcomes[seed].status for seed in range(4)]
        assert statuses == [OutcomeStatus.COMPLETED] * 2 + [OutcomeStatus.FAILED, OutcomeStatus.COMPLETED]
        assert "what it starts from is gone" in str(outcomes[2].error)


class Ballast:
    """What a step has made so far, such as its activations."""


class TestWhatBroke:
    """What a step that ran out of memory has made is gone before anything is tried again."""

    def test_before_trials_give_way(self, context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[weakref.ref[Ballast]] = []
        left: list[int] = []
        original, originally = Pack.step, Pack.suspend

        def step(self: Pack) -> None:
            if len(self.trials) > 1:
                ballast = Ballast()
                made.append(weakref.ref(ballast))
                raise torch.OutOfMemoryError("out of memory")
            original(self)

        def suspend(self: Pack, *given: Any) -> Any:
            left.append(sum(each() is not None for each in made))
            return originally(self, *given)

        monkeypatch.setattr(Pack, "step", step)
        monkeypatch.setattr(Pack, "suspend", suspend)
        outcomes = train(context(), brief_config(num_epochs=1), brief_config(num_epochs=1, seed=1))
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.COMPLETED] * 2
        assert left == [0]

    def test_before_each_is_evaluated_by_itself(self, context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[weakref.ref[Ballast]] = []
        left: list[int] = []
        original = Pack.end_epochs

        def end_epochs(self: Pack, ended: Any, metric: Any) -> Any:
            left.append(sum(each() is not None for each in made))
            if len(ended) > 1:
                ballast = Ballast()
                made.append(weakref.ref(ballast))
                raise torch.OutOfMemoryError("out of memory")
            return original(self, ended, metric)

        monkeypatch.setattr(Pack, "end_epochs", end_epochs)
        outcomes = train(context(), brief_config(num_epochs=1), brief_config(num_epochs=1, seed=1))
        assert [outcome.status for outcome in outcomes] == [OutcomeStatus.COMPLETED] * 2
        assert left == [0, 0, 0]


def test_a_status_tells_what_trains_now(context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox()
    outcomes: list[TrialOutcome] = []
    inbox.put(Job(config=brief_config(seed=1), done=outcomes.append))
    run = PackRun(context(), Job(config=brief_config(), done=outcomes.append), inbox, lambda job: True)
    assert (run.status.num_trials, run.status.examples_per_second) == (1, None)
    seen: list[int] = []
    original = Pack.end_epochs

    def look(self: Pack, *given: Any) -> Any:
        status = run.status
        assert (status.task, status.method) == ("opinion", "adapter")
        assert status.limit >= status.num_trials
        assert status.examples_per_second is not None
        assert status.examples_per_second > 0
        seen.append(status.num_trials)
        return original(self, *given)

    monkeypatch.setattr(Pack, "end_epochs", look)
    run.run()
    assert seen == [2, 2]  # both end an epoch at the same step, and are evaluated together
    assert run.status.num_trials == 0
    assert len(outcomes) == 2
