"""Results, the questions one asks of a sweep: what was best, what a parameter buys, what to ship.

Every answer is a pyarrow Table, of a finished sweep, a half-finished one or an empty one alike. A configuration is
chosen by its mean validation score over seeds (`configurations.contenders`); its test score is reported, never used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.analysis import replicates
from orchestrator.analysis.arguments import as_list, is_name, name_faults
from orchestrator.analysis.configurations import (
    IDENTITY,
    RECORDED,
    SIZES,
    Configuration,
    backbone_names,
    contenders,
    group_by,
    group_by_configuration,
    hyperparameter_columns,
    varying_hyperparameters,
)
from orchestrator.analysis.missing import with_missing
from orchestrator.analysis.paper.parameter_table import parameter_table
from orchestrator.analysis.paper.robustness import robustness
from orchestrator.analysis.paper.score_table import score_table
from orchestrator.analysis.questions import ablation, calibration, glue, inference_cost
from orchestrator.analysis.questions.comparison import PAIRS_SCHEMA as COMPARED_PAIRS
from orchestrator.analysis.questions.comparison import SCHEMA as COMPARED
from orchestrator.analysis.questions.comparison import (
    Group,
    Terms,
    compare,
    compare_pairs,
    group_faults,
    plain_group,
)
from orchestrator.analysis.questions.curve import SPLITS, CurveRequest, curve_percentiles, curve_points
from orchestrator.analysis.questions.expected_validation import expected_validation
from orchestrator.analysis.questions.front import COSTS, Price, front, recorded_price, without_price
from orchestrator.analysis.questions.importance import importance
from orchestrator.analysis.questions.learning_curves import learning_curves
from orchestrator.analysis.questions.optimism import COLUMNS as OPTIMISM
from orchestrator.analysis.questions.optimism import optimism_row
from orchestrator.analysis.questions.paired import paired_differences, usual_reference
from orchestrator.analysis.questions.predictions import PredictionSource, predictions_of_trials
from orchestrator.analysis.questions.profile import profile
from orchestrator.analysis.questions.ranks import ranks
from orchestrator.analysis.questions.recommendation import Wish, recommend, reported_splits
from orchestrator.analysis.questions.shares import node_shares
from orchestrator.analysis.questions.throughput import throughput
from orchestrator.analysis.questions.trade_off import COST_COLUMNS, trade_off
from orchestrator.analysis.questions.tried import tried
from orchestrator.analysis.row_outcomes import KeptRows
from orchestrator.analysis.statistics.calibration import Binning
from orchestrator.analysis.told_apart import called_as, of_models, told_apart
from orchestrator.record import TrialStatus
from trainables.data.paths import given_path
from trainables.faults import FaultsError

_SCORES = {
    "metric": pa.string(),
    "validation_mean": pa.float64(),
    "validation_sem": pa.float64(),
    "test_mean": pa.float64(),
    "test_sem": pa.float64(),
    "num_seeds": pa.int64(),
    "num_folds": pa.int64(),
}
_INTERVAL = {"test_low": pa.float64(), "test_high": pa.float64(), "interval_over": pa.string()}
_COUNTS = {
    "num_configs_tried": pa.int64(),
    "num_trials": pa.int64(),
    "num_failed": pa.int64(),
    "engine_seconds": pa.float64(),
}

# Of the best configuration of the task, beside the one `recommend` chose.
_BEST = {
    "best_method": pa.string(),
    "best_config_id": pa.string(),
    **{f"best_{name}": pa.float64() for name in ("validation_mean", "validation_sem", "test_mean", "test_sem")},
    "best_trained_params": pa.int64(),
}
_REASONS = {
    **dict.fromkeys(("difference", "difference_low", "difference_high"), pa.float64()),
    "difference_over": pa.string(),
    "share_kept": pa.float64(),
    "why": pa.string(),
}
_COST = {"cost": pa.string(), "cost_value": pa.float64()}


class Results:
    """All records of a sweep, to ask. Immutable; equal questions get equal answers."""

    def __init__(
        self,
        trials: pa.Table,
        epochs: pa.Table | Callable[[], pa.Table],
        plan: pa.Table | None = None,
        ablations: pa.Table | None = None,
        *,
        unproposed: int = 0,
        predictions: PredictionSource | None = None,
        non_inferiority: tuple[str, float] | None = None,
        data_warnings: pa.Table | None = None,
        inference_costs: pa.Table | None = None,
    ) -> None:
        """`trials` has a row per trial, `epochs` a row per trial and epoch, `plan` a row per planned trial (trial_id),
        `ablations` a row per span of layers of an ablated trial. `epochs` may be a function that makes its table when
        that is asked for. `unproposed`: trials that an adaptive search has yet to plan, at most.
        `predictions`: where what trials predicted is read when it is asked for. `non_inferiority`: the method that the
        sweep declared others to be held against, and by how much they may be worse. `data_warnings` has a row per
        oddity of a task's data, as `data_warnings()` gives them, `inference_costs` those of that question.

        A recorded column that `trials` does not have reads as null. Raises `ValueError` where a trial has
        two rows, since every number here counts replicates.
        """
        if pc.count_distinct(trials["trial_id"], mode="all").as_py() < len(trials):
            counted = Counter(trials["trial_id"].to_pylist())
            twice = [trial_id for trial_id, number in counted.items() if number > 1]
            raise ValueError(f"trials: must have one row a trial, but got several of {', '.join(sorted(twice)[:5])}")
        for name, kind in RECORDED.items():
            if name not in trials.column_names:
                trials = trials.append_column(name, pa.nulls(len(trials), kind))
        if "epochs" in trials.column_names:  # the store's nested form of the epochs table
            trials = trials.drop_columns("epochs")
        self._task_names = pc.unique(trials["task"])
        self._trials, self._epochs, self._plan, self._unproposed = told_apart(trials), epochs, plan, unproposed
        self._has_names_apart = self._trials is not trials
        ablations, costs = ablation.conform(ablations), inference_cost.conform(inference_costs)
        self._ablations = called_as(ablations, self._trials) if self._has_names_apart else ablations
        self._predictions = predictions
        self._non_inferiority = non_inferiority
        self._data_warnings = data_warnings
        self._inference_costs = of_models(costs, self._trials) if self._has_names_apart else costs

    def trials(self) -> pa.Table:
        """A row per recorded trial, whatever its status.

        Where sweeps of a store have different rows, or another metric, under one task's name, or different weights
        under a backbone's, each of these has a name of its own: `own@1a2b3c4`, with the beginning of its fingerprint.
        If trials have completed on one of them alone, that one keeps the name.
        """
        return self._trials

    def data_warnings(self) -> pa.Table:
        """A row per thing that was odd in the data when training began: task, warning (its name), sentence."""
        found = self._data_warnings
        if found is None:
            return pa.schema(dict.fromkeys(("task", "warning", "sentence"), pa.string())).empty_table()
        return found.filter(pc.is_in(found["task"], self._task_names))

    def epochs(self) -> pa.Table:
        """A row per trial and epoch: the learning curves."""
        if callable(self._epochs):
            self._epochs = self._epochs()
        return called_as(self._epochs, self._trials) if self._has_names_apart else self._epochs

    def counts(self) -> dict[TrialStatus, int]:
        """How many trials have each status; those planned and not recorded count as planned. Zeros are left out."""
        statuses = pc.value_counts(self._trials["status"]).to_pylist()
        counted = Counter({TrialStatus(each["values"]): each["counts"] for each in statuses})
        if self._plan is not None:
            planned = pc.unique(self._plan["trial_id"])
            recorded = pc.sum(pc.is_in(planned, self._trials["trial_id"])).as_py() or 0  # None of no row
            counted[TrialStatus.PLANNED] += len(planned) - recorded + self._unproposed
        return {status: counted[status] for status in TrialStatus if counted[status]}

    def best(self, per: Sequence[str] = ("task", "method")) -> pa.Table:
        """The best configuration of each group, with its scores over seeds, a row per group.

        `per` names the columns that form the groups: "task" and any of backbone, method, the sizes and the
        hyperparameters. Chosen by mean validation score in the metric's direction, among the configurations with as
        many completed seeds as the best-covered one of the group (in an unfinished sweep a single lucky seed would
        win otherwise); ties go to fewer trained parameters, then to the smaller config_id. A group without a
        completed trial has no row.

        Columns: `per`; backbone, method, config_id; metric; validation and test mean and s.e.m. (ddof = 1; null for one
        seed) in the metric's unit; num_seeds, how many replicates they are over, and num_folds, into how many the task
        is cut, null where into none (a replicate is a seed, or a seed on a fold); of the whole group num_configs_tried,
        num_trials, num_failed and engine_seconds, what all its trials took (a trial's share where several trained
        together; null where unmeasured); the sizes; the hyperparameters. A group that tried more had more chances to be
        lucky: `compare` can hold two groups against each other at equal budgets. Raises `FaultsError` on an unknown
        column or where "task" is not among them.
        """
        columns = self._check_per(per)
        rows = []
        for group in group_by(self._configurations, columns).values():
            if chosen := contenders(group):
                rows.append({**_describe(chosen[0]), **_count(group)})
        return self._table(rows, [*columns, *IDENTITY, "config_id", *_SCORES, *_COUNTS, *SIZES])

    def points(self, normalize_to: str | None = "full_finetuning", split: str | None = None) -> pa.Table:
        """What the curve is drawn through: per task, backbone, method and adapted size the best configuration.

        Chosen as in `best`. Columns: task, backbone, method, trained_params_without_head, trained_params, config_id,
        metric; split, the one that was scored; score and score_sem over num_seeds replicates; num_folds; reference, the
        score of the best configuration of the method `normalize_to` on the same task and backbone; delta, how much
        better than the reference (positive is better, also where a lower score is better). Arguments and errors as in
        `curve`; a task without reference keeps its rows, with reference and delta null.
        """
        return curve_points(self._configurations, self._ask_curve((), normalize_to, split))

    def curve(
        self,
        quantiles: Sequence[float] = (0.2, 0.5, 0.8),
        normalize_to: str | None = "full_finetuning",
        split: str | None = None,
    ) -> pa.Table:
        """What trained parameters buy across tasks: Figures 1 and 3 of Houlsby et al. 2019, a row per point.

        For each task, method and adapted size the best configuration is chosen as in `best`; its mean score over
        seeds, less the score of the best configuration of the method `normalize_to` on that task and backbone, is the
        task's delta (positive is better); the row holds percentiles of the deltas across tasks, interpolated
        linearly (type 7 of Hyndman and Fan), in the metric's unit, so 0.01 is one point of accuracy. A point is the
        same adapted size on all tasks, by trained_params_without_head: heads differ with the number of labels.
        `normalize_to=None` gives percentiles of the scores themselves.

        Scores are test scores where the task has any and validation scores elsewhere, or of one `split` ("test" or
        "validation") throughout. A task without a reference, or without a score on that split, is left out.

        Columns: backbone, method, trained_params_without_head; trained_params, the mean over tasks, rounded; num_tasks,
        of which num_tasks_on_validation scored on validation; num_seeds, of the least covered task; num_folds, the most
        of any task; metric, null where tasks differ; normalize_to; a column a quantile (p20, p50, p80; p2.5 for 0.025).

        Raises `FaultsError` on quantiles outside [0, 1], an unknown method or split, and where scores exist but no
        task has a reference. A sweep without any completed trial gives an empty table.
        """
        request = self._ask_curve(quantiles, normalize_to, split)
        points = curve_points(self._configurations, request)
        if normalize_to is not None and len(points) and points["delta"].null_count == len(points):
            rule = f"normalize_to: no task has a completed trial of method {normalize_to!r} to subtract"
            raise FaultsError("curve", [f"{rule}; run one, or ask with normalize_to=None for the scores themselves"])
        return curve_percentiles(points, request)

    def recommend(
        self, *, within: float | None = None, max_params: int | None = None, prefer: str = "params"
    ) -> pa.Table:
        """What to ship: per task the smallest model that is as good as the best within one standard error.

        The best configuration of a task is chosen as in `best`, over all methods, sizes and backbones. Among its
        contenders, those whose mean validation score is within one s.e.m. (of the best one's validation scores) of
        the best are as good; the one with the fewest trained parameters is recommended (ties: the better one). With
        one seed the s.e.m. is unknown and the best itself is recommended.

        Three wishes change the rule. `within` puts a distance in the metric's unit, such as 0.01, in place of the
        s.e.m.; `max_params` looks only at configurations with at most so many trained parameters, and takes the best of
        these as the best; `prefer="seconds"` takes the one that trained in the fewest engine-seconds a trial instead of
        the one with the fewest trained parameters. A task on which nothing fits has a row that says so in `why`, with
        null where the choice would stand.

        Columns: task, backbone, method, config_id; scores, counts and sizes as in `best`; test_low and test_high, the
        95 % interval of the mean test score, null for one seed, over what interval_over says: "seeds and rows" where
        the store keeps what the chosen configuration predicted (`intervals.estimate_over_rows`), else "seeds"
        (Student), or with folds "folds (corrected) and rows", else "folds (corrected)" (`corrected_over_folds`);
        best_method, best_config_id, best_validation_mean, best_validation_sem, best_test_mean, best_test_sem and
        best_trained_params of the best configuration, which is that of all, whatever the wish; difference, of the
        recommended one to the best on test (validation without test scores; positive is better), with difference_low
        and difference_high, its 95 % interval over what difference_over says, as in `compare` (all null of the best
        itself, and with one seed); share_kept, how often seeds drawn again (200 bootstrap resamples) recommend the same
        configuration; why, the choice in words; the hyperparameters.

        Raises `FaultsError` on a wish that cannot be.
        """
        wish = Wish(within=within, max_params=max_params, prefer=prefer)
        if faults := wish.faults():
            raise FaultsError("recommend", faults)
        groups = group_by(self._configurations, ["task"])
        self._kept.load(pair for group in groups.values() for pair in reported_splits(group, wish))
        rows = []
        for (task,), group in groups.items():
            if found := recommend(group, wish, self._kept):
                chosen = found.chosen
                described = {**_describe(chosen), **_interval(chosen, self._kept)} if chosen else {"task": task}
                rows.append({**described, **_count(group), **_as_best(found.best), **found.row()})
        names = [*IDENTITY, "config_id", *_SCORES, *_INTERVAL, *_COUNTS, *SIZES, *_BEST, *_REASONS]
        return self._table(rows, names)

    def compare(
        self,
        a: Group,
        b: Group,
        *,
        equalise: bool = False,
        split: str | None = None,
        margin: float | None = None,
        test_rows: Mapping[str, int] | None = None,
    ) -> pa.Table:
        """How much better `a` is than `b`: a row per task, then a row over all tasks, whose task is null.

        Each side is the name of a method, or columns with the values they must have, such as
        `{"method": "adapter", "adapter_size": [8, 64]}`. On each task a side is stood for by its best configuration,
        chosen as in `best`, and scored on test where both have test scores, else on validation, or on one `split`. With
        `equalise`, it is stood for by the expected best of n of its configurations instead (n being what the side with
        fewer has to choose among; `expected_performance.expected_best`, unbiased), so that having tried more is no
        advantage. Tasks on which either side has nothing completed are left out and named.

        With several backbones these rows come for each that has both sides, which are of the same backbone: nothing is
        averaged over backbones. To hold one against another, name both: `{"method": "adapter", "backbone": "minilm"}`
        and `{"method": "adapter", "backbone": "bert-base-uncased"}`.

        Columns: task; backbone, null where a and b name theirs; a and b, in words; metric; split; num_tasks.
        difference, a less b in the metric's unit, positive where a is better; low and high, its 95 % interval, over
        what interval_over says: "seeds and rows" where the store keeps what both sides predicted of the same rows
        (`intervals.difference_over_rows`, rows paired), or where `test_rows` has the number of test rows of the task,
        of accuracies on test (their binomial variance, rows not paired); "seeds" elsewhere (Welch); where the task is
        cut into folds "folds (corrected) and rows", else "folds (corrected)", both sides paired by seed and fold; in
        the last row "tasks" (Student). p_rows, over the rows, of the models as they are trained: the exact sign-flip
        test of accuracies, with one seed McNemar's, and the paired bootstrap with 2,000 resamples of any other metric;
        null without predictions. probability_of_improvement, how often a random run of a beats one of b, a mean over
        tasks. p_value of the exact two-sided sign-flip test over tasks, and smallest_p, the least that so many tasks
        can give. margin; lower_bound, the one-sided 95 % bound of the difference, and is_non_inferior, whether it is
        above -margin: of `margin`, or else of the margin that the sweep declared, where b is the declared reference.
        For each side config_id, score, sem, num_seeds, num_folds, num_configs_tried and engine_seconds; budgets_differ,
        where either side tried more, had more seeds or took over a tenth more engine time; equalised_to, n; and note,
        in words. What a single seed cannot tell is null.

        Raises `FaultsError` holding every fault of what was asked. Where no task has both sides there is no row.
        """
        a, b = plain_group(a), plain_group(b)
        terms = Terms(equalise=equalise, split=split, margin=self._margin(b, margin), test_rows=test_rows)
        known = self._configurations
        faults = [
            *group_faults(a, "a", self._groupable(), known),
            *group_faults(b, "b", self._groupable(), known),
            *terms.faults({c.task for c in known}),
        ]
        if faults:
            raise FaultsError("compare", faults)
        return pa.Table.from_pylist(compare(self._configurations, a, b, terms, self._kept), schema=COMPARED)

    def comparisons(
        self, methods: Sequence[str] | None = None, *, equalise: bool = False, split: str | None = None
    ) -> pa.Table:
        """Every pair of methods over all tasks: the last row of `compare` for each pair, with Holm's correction.

        With several backbones, on each of them; the correction is over all these pairs.
        `methods` names those to compare, in the order of the pairs; by default all, by name. Beside the columns of
        `compare` stands p_holm, the p-value adjusted for the number of pairs: at most alpha in all pairs that truly
        differ, with a chance of at most alpha that any does not. A pair without a task in common has no row. Raises
        `FaultsError` on an unknown method or split, and where fewer than two methods are named.
        """
        known = sorted({c.method for c in self._configurations})
        chosen = known if methods is None else as_list(methods)
        terms = Terms(equalise=equalise, split=split)
        named = [name for name in chosen if known or not isinstance(name, str)]  # before anything has ended any passes
        faults = [fault for name in named for fault in name_faults("method of this sweep", name, known)]
        if methods is not None and not faults and len(set(chosen)) < 2:
            faults.append(f"methods: must name at least two to compare, but got {chosen!r}")
        if faults := [*faults, *terms.faults(())]:
            raise FaultsError("comparisons", faults)
        rows = compare_pairs(self._configurations, list(dict.fromkeys(chosen)), terms)
        return pa.Table.from_pylist(rows, schema=COMPARED_PAIRS)

    def pareto(self, cost: str = "trained_params") -> pa.Table:
        """What a score costs at least: per task the configurations that no other beats in score and cost at once.

        `cost` is what should be low: trained_params, trained_params_without_head, total_params, engine_seconds (of a
        completed trial, as a mean over seeds) or peak_memory_bytes; or what an answer takes, where it was measured (see
        `inference_costs`): latency_ms, of a text alone, or ms_per_example, of one in a batch of 64. Of the
        contenders of each task, as in `best`, those are kept that have no rival with at most their cost and at least
        their mean validation score, better in one of the two; the cheapest comes first. Test scores stand beside them.
        How many have no known cost, and are left out, is said (`orchestrator.analysis.missing.missing_of`).

        Columns: task, backbone, method, config_id; cost and cost_value; scores, counts (of the task) and sizes as in
        `best`; the hyperparameters. Raises `FaultsError` on an unknown cost, and on one that was measured of none.
        """
        price = self._price("pareto", cost)
        rows, priced, unpriced = [], 0, 0
        for group in group_by(self._configurations, ["task"]).values():
            counts, chosen = _count(group), contenders(group)
            known = sum(price(each) is not None for each in chosen)
            priced, unpriced = priced + known, unpriced + len(chosen) - known
            for each, value in front(group, price):
                rows.append({**_describe(each), **counts, "cost": cost, "cost_value": value})
        notes = without_price("pareto", cost, priced=priced, unpriced=unpriced)
        return with_missing(self._table(rows, [*IDENTITY, "config_id", *_COST, *_SCORES, *_COUNTS, *SIZES]), notes)

    def inference_costs(self) -> pa.Table:
        """What an answer takes, a row per kind of model, form and batch size, as `adaptune measure` has measured it.

        Columns: backbone, method; options and trained_params_without_head, of the first of the configurations that are
        models of this kind; form, "merged" where what was trained is written into the backbone's weights, which then
        cost what the backbone costs, or "beside" where it stands beside them, as in a bank; batch_size; latency_ms of a
        batch; examples_per_second; times_backbone, latency as a multiple of the backbone's alone; length, word pieces
        of each text; the device, precision, num_threads, host, torch, commit and measured_at (UTC); config_ids.
        Without a measurement there are no rows.
        """
        return self._inference_costs

    def calibration(
        self,
        per: Sequence[str] = ("task", "method"),
        *,
        split: str | None = None,
        num_bins: int = 15,
        binning: Binning = "equal_width",
    ) -> pa.Table:
        """Whether classifiers are right as often as they say: of the best of each group, a row per bin of confidence.

        The best is chosen as in `best`, and looked at on test, where it has test scores, else on validation, or on one
        `split`. Confidence is the largest probability. Rows are put into `num_bins` bins of confidence, "equal_width"
        or "equal_mass" (`calibration.reliability`); those that hold no row are left out.

        Columns: `per`; task, backbone, method, config_id; split; num_seeds; num_rows of the split;
        expected_calibration_error, the mean over seeds of that of each trained model, with its s.e.m.,
        expected_calibration_error_sem; then of the bin, over the rows of all seeds: bin, counted from 1;
        bin_confidence, their mean confidence; bin_accuracy, the share that is right; bin_rows, how many, each seed's
        for itself. Groups whose predictions are not kept, or are no classes, are left out and named
        (`orchestrator.analysis.missing.missing_of`).

        Raises `FaultsError` where that leaves nothing, and on what cannot be asked.
        """
        columns = self._check_per(per, "calibration")
        if faults := calibration.faults_of(split, num_bins, binning):
            raise FaultsError("calibration", faults)
        groups = group_by(self._configurations, columns).values()
        winners = [chosen[0] for group in groups if (chosen := contenders(group))]
        rows = calibration.calibration_rows(winners, self._kept, split, num_bins, binning)
        if winners and not rows:
            raise FaultsError("calibration", [calibration.why_none(winners, self._trials, self._predictions)])
        described = [{**_describe(each), **row} for each, row in rows]
        table = self._table(described, [*columns, *IDENTITY, "config_id", *calibration.COLUMNS], with_options=False)
        return with_missing(table, calibration.left_out(winners, rows))

    def optimism(self, per: Sequence[str] = ("task", "method")) -> pa.Table:
        """How much better the best of each group looks on validation, where it was chosen, than on test.

        Groups and their best as in `best`. Columns: `per`; task, backbone, method, config_id; metric; validation_mean
        and test_mean; num_configs_tried, of which num_compared have as many completed seeds as the best; gap,
        validation less test, positive where validation looks better; average_gap, the mean of the same over those that
        compared, what the two splits differ by without choosing; optimism, the gap less the average gap: what choosing
        the best of several added (`selection.optimism_of_the_winner`). A group without test scores has no row. Raises
        `FaultsError` as `best` does.
        """
        columns = self._check_per(per, "optimism")
        rows = []
        for group in group_by(self._configurations, columns).values():
            tried = [c for c in contenders(group) if c.test is not None]
            if tried and tried[0] is contenders(group)[0]:
                rows.append({**_describe(tried[0]), **optimism_row(tried), **_count(group)})
        names = [*columns, *IDENTITY, "config_id", "metric", "validation_mean", "test_mean", "num_configs_tried"]
        return self._table(rows, [*names, *OPTIMISM], with_options=False)

    def ablation(self, trial_id: str | None = None) -> pa.Table:
        """What trials score without the adapters of the layers first_layer to last_layer, a row a span.

        Of every trial that `adaptune ablate` has ablated, or of one. Layers count from 0, and the last one of a span is
        out too. `score` is that of the task's metric, `accuracy` is null unless classes are predicted. Beside each
        stand that of the whole model (`whole_...`), what is left when it is subtracted (`..._difference`), and this as
        a share of it (`..._relative_change`; null where the whole model has 0 or less). Raises `FaultsError` where the
        trial has not been ablated.
        """
        if trial_id is None:
            return self._ablations
        if faults := name_faults("ablated trial", trial_id, set(self._ablations["trial_id"].to_pylist())):
            raise FaultsError("ablation", faults)
        return self._ablations.filter(pc.equal(self._ablations["trial_id"], trial_id))

    def predictions(self, trial_id: str, split: str | None = None) -> pa.Table:
        """What a completed trial predicted, a row per row of its validation and test splits, or of one `split`.

        Columns: trial_id, split; row, counted from 0 in the order of the split's file; row_hash, that of the row's
        texts (`trainables.predictions.row_hash`); label, the true one; prediction, a class, a number, an answer or a
        list of labels; scores, natural logarithms of the probabilities of classes or labels in half precision, null
        where neither is predicted, or more than 100 labels may be; classes, those that the scores are of, best first,
        null where scores has all of them in order.

        Read from the store at this moment. Raises `FaultsError` where there is no such trial or split, where nothing
        is kept of the trial, saying why, and where a file is torn, naming it.
        """
        return self.predictions_of([trial_id], split)

    def predictions_of(self, trial_ids: Sequence[str], split: str | None = None) -> pa.Table:
        """The `predictions` of several trials, one under the other, in the order given.

        All are of the same rows in the same order, so a column of one split can be reshaped to (trials, rows). Raises
        `FaultsError` as `predictions` does, and where trials were evaluated on different rows.
        """
        planned = frozenset(() if self._plan is None else self._plan["trial_id"].to_pylist())
        return predictions_of_trials(self._predictions, self._trials, planned, as_list(trial_ids), split)

    def glue_score(self) -> pa.Table:
        """The GLUE score as the benchmark's server computes it, on validation, a row per backbone and method.

        Of each of the nine tasks (found by the last part of their name, so a folder `cola` counts as `glue/cola`) the
        method's best configuration, as in `best`; components are means over its seeds. In points, 0 to 100; the
        formula is `orchestrator.analysis.questions.glue`'s. A method that has none of the nine has no row.

        Columns: backbone, method; glue_score, null unless all nine are there; mean_of_present, that of num_tasks
        tasks; missing, those not completed or not measured as GLUE measures them; mnli_is_matched_only, whether MNLI
        stands for its matched half alone; num_seeds, of the least covered task; a column a task.
        """
        return glue.glue_table(self._trials, self._configurations)

    def throughput(self) -> pa.Table:
        """How fast each engine trained each method; see `orchestrator.analysis.questions.throughput`."""
        return throughput(self._trials)

    def node_shares(self) -> pa.Table:
        """What each node of a cluster trained; see `orchestrator.analysis.questions.shares`."""
        return node_shares(self._trials)

    def learning_curves(self) -> pa.Table:
        """How the chosen configuration of each task and method learns, a row an epoch.

        Chosen as in `best`. Columns: task, backbone, method, config_id, metric; epoch, from 1, and step, the optimizer
        steps taken by then; validation_mean and validation_sem (ddof = 1; null for one seed) over the num_seeds
        completed trials, of num_folds folds where there are any, in the metric's unit; train_loss, the mean over the
        same trials.
        """
        return learning_curves(self._trials, self.epochs(), self._configurations)

    def score_table(self, split: str | None = None) -> pa.Table:
        """What each method scores on each task, and on average: Table 2 of Houlsby et al. 2019.

        A row per task and method, of the configuration chosen as in `best`; one without a completed trial has nulls.
        Then, where there are several tasks, a row per method without a task: the mean over the tasks that all methods
        have completed, its s.e.m. from theirs, taken as independent. Of tasks whose metrics point in different
        directions there is no average. Scored on test where the task has test scores, or on one `split` throughout.

        Columns: task, backbone, method, config_id, metric, split; score and score_sem (ddof = 1; null for one seed) in
        the metric's unit; num_seeds; num_folds; num_configs_tried; num_tasks; is_best, whether no method of the task is
        better. Raises `FaultsError` on an unknown split.
        """
        return score_table(self._configurations, self._check_split("score_table", split))

    def parameter_table(self, split: str | None = None) -> pa.Table:
        """What it takes to serve all tasks with each method, and what they score: Table 1 of Houlsby et al. 2019.

        A row per method with its configuration chosen on each task as in `best`, and for a method of several sizes a
        row per size, kept fixed on all tasks, with the rest chosen.

        Columns: backbone, method; size, null where there is one; num_tasks; backbone_params (no head) and
        encoder_params (its layers alone); trained_params_all_tasks, a sum, and trained_params_per_task, a mean, heads
        left out; total_multiple, the parameters of a model of all tasks as a multiple of the backbone, and
        trained_percent, trained per task in per cent of it; both again `..._of_encoder`, as the paper counts; average,
        the mean score, null of a row that lacks tasks which others have; `score/<task>`. Null what is not known.
        Arguments and errors as in `score_table`; the definitions are `orchestrator.analysis.paper.parameter_table`'s.
        """
        return parameter_table(self._trials, self._configurations, self._check_split("parameter_table", split))

    def robustness(self, hyperparameter: str = "learning_rate") -> pa.Table:
        """The best score at each value of one hyperparameter: Figure 7 of Houlsby et al. 2019, and 6 (right).

        A row per task, method and value: the best configuration on validation with it, so all others are tuned.
        Columns: task, backbone, method, config_id, metric, hyperparameter, value; validation_mean and validation_sem
        over num_seeds; num_folds; loss_to_best, how far behind the method's best value on the task; num_configs_tried,
        with this value. Raises `FaultsError` on an unknown hyperparameter.
        """
        known = hyperparameter_columns(self._trials)
        if faults := name_faults("hyperparameter", hyperparameter, known):
            if len(self._trials) or not isinstance(hyperparameter, str):
                raise FaultsError("robustness", faults)
            return robustness((), hyperparameter, pa.float64())
        return robustness(self._configurations, hyperparameter, self._trials.schema.field(hyperparameter).type)

    def tried(self) -> pa.Table:
        """Everything that was tried, a row per configuration with a completed trial: what slice plots show.

        Columns: task, backbone, method, config_id, metric; the sizes; validation and test mean and s.e.m. over
        num_seeds; num_folds; loss_to_best, how far behind the best configuration of the task on validation (0 is the
        best); duration_s of a trial, a mean; the hyperparameters that have more than one value, as in `searched`.
        """
        return tried(self._trials, self._configurations, self.searched())

    def importance(self, task: str | None = None) -> pa.Table:
        """Which hyperparameters the validation score of a method depends on, over all tasks or on one (fANOVA).

        Of those in `searched`. Over several tasks each task's scores are first given mean 0 and variance 1. A method
        needs two hyperparameters that vary, and four configurations with as many seeds as any of its own.

        Columns: backbone, method, task (null: all), hyperparameter; importance, its share of the variance that single
        hyperparameters explain, and spread, the standard deviation over num_seeds seeds (ddof = 1); num_folds;
        num_configs; num_tasks. Definition and source: `orchestrator.analysis.statistics.importance`. Raises
        `FaultsError` on an unknown task.
        """
        known = set(self._trials["task"].to_pylist())
        if task is not None and (faults := name_faults("task", task, known)):
            raise FaultsError("importance", faults)
        return importance(self._configurations, self.searched(), task)

    def expected_validation(self, split: str | None = None) -> pa.Table:
        """What a search would have found with fewer configurations, a row per task, method and number of them.

        The expected validation score of the best of n configurations drawn at random without replacement from those
        with a completed trial (means over seeds; Dodge et al. 2019, Tang et al. 2020). It makes methods comparable that
        were tried with unequal budgets: read them at the same n, or at the same seconds. Where others were pruned or
        failed, that is said (`orchestrator.analysis.missing.missing_of`): those that are left are better than a draw.

        Columns: task, backbone, method, metric, split; num_configs, n, of num_configs_completed; num_configs_tried,
        those without a completed trial included, as in `best`; engine_seconds, what n configurations with all their
        seeds take on average; expected_validation; expected_score, on the split, of the one that is best on validation.
        Arguments and errors as in `score_table`.
        """
        split = self._check_split("expected_validation", split)
        return expected_validation(self._configurations, split)

    def trade_off(self, cost: str = "trained_params") -> pa.Table:
        """Which configurations no other beats at the same or a lower cost, a row per configuration in `tried`.

        `cost`: trained_params, trained_params_without_head, total_params or duration_s (a trial's seconds, a mean), or
        latency_ms or ms_per_example as `pareto` has them.
        Columns: task, backbone, method, config_id, metric; cost_name, cost, is_on_front, by mean validation score;
        the others of `tried`. A configuration without a known cost has no row; how many these are is said
        (`orchestrator.analysis.missing.missing_of`). Raises `FaultsError` on another cost, and on one that was measured
        of none.
        """
        if faults := name_faults("cost", cost, [*COST_COLUMNS, *inference_cost.INFERENCE_COSTS]):
            raise FaultsError("trade_off", faults)
        if cost in inference_cost.INFERENCE_COSTS:
            known, tried = inference_cost.milliseconds(self._inference_costs, cost), self.tried()
            values = [known.get(config_id) for config_id in tried["config_id"].to_pylist()]
            return trade_off(tried.append_column(cost, pa.array(values, pa.float64())), cost)
        return trade_off(self.tried(), cost)

    def profile(self, split: str | None = None) -> pa.Table:
        """Performance profiles: the share of runs above every threshold, a row per method and threshold.

        A run is a seed of a method's chosen configuration on one task; its score is taken less the mean of the best
        method of that task, so 0 is the best and -0.01 a point below. Over the tasks that all methods share.

        Columns: backbone, method; threshold; share, a mean over tasks; share_low and share_high, the middle 95 % over
        resamples of each task's seeds (null for one seed; the tasks stay as they are); num_tasks; num_seeds, the
        fewest; num_folds. Arguments and errors as in `score_table`.
        """
        return profile(self._configurations, self._check_split("profile", split))

    def paired_differences(self, reference: str | None = None, split: str | None = None) -> pa.Table:
        """How much better each method is than a reference: what a forest plot shows.

        A row per method and task, then one per method over its tasks (task null). Positive is better, also where a
        lower score is better. `reference` is a method, on the same backbone; without it full_finetuning where that has
        completed, or else the method with most tasks.

        Columns: task, backbone, method, reference, metric, split; difference, of means over seeds; low and high, its 95
        % interval: on a task Welch's over seeds, over tasks Student's over the tasks' differences; num_tasks;
        num_seeds, the fewest; num_folds; num_configs_tried of both sides, whose budgets may differ. Over tasks: p_value
        of the exact sign-flip test, p_holm with Holm's correction over the methods, smallest_p that so many tasks can
        give. Raises `FaultsError` on an unknown method or split.
        """
        known = {c.method for c in self._configurations}
        faults = [] if reference is None else name_faults("method of this sweep", reference, known)
        faults += [] if split is None else name_faults("split to score on", split, SPLITS)
        if faults:
            raise FaultsError("paired_differences", faults)
        return paired_differences(self._configurations, reference or usual_reference(self._configurations), split)

    def ranks(self, split: str | None = None) -> pa.Table:
        """The methods' mean ranks over the tasks they share, the best first: a critical-difference diagram.

        Columns: backbone, method; mean_rank, best_rank, worst_rank (1 is best, ties share); not_told_apart_from, the
        methods from which exact sign-flip tests over tasks with Holm's correction over all pairs do not tell it apart
        at 0.05; num_tasks; friedman_p, of Friedman's test that all rank alike (null below three methods or two tasks).
        Without two methods that share a task there are no rows. Arguments and errors as in `score_table`.
        """
        return ranks(self._configurations, self._check_split("ranks", split))

    def draw(self, figure: str, **arguments: Any) -> Any:
        """One of the figures, as matplotlib's `Figure`: `results.draw("curve").savefig("curve.pdf")`.

        Its table is that of the method of `Results` with the same name, which takes the arguments: `tasks` shows
        `points`, `slices` and `parallel_coordinates` show `tried`, `pareto` shows `trade_off`, `forest` shows
        `paired_differences` and `critical_difference` shows `ranks`. What the figure needs and the sweep does not have
        is said in it. Raises `FaultsError` on an unknown name, where that method does, and where the table has nothing
        that the figure could show: a curve without quantiles, or no ablation or several.
        """
        from orchestrator.analysis import figures  # matplotlib, which asking does without

        if faults := name_faults("figure", figure, figures.FIGURES):
            raise FaultsError("draw", faults)
        drawn = figures.FIGURES[figure]
        return drawn.draw(getattr(self, drawn.asks)(**arguments))

    def paper(self, folder: str | Path = "paper") -> list[Path]:
        """Write what a paper takes from a sweep into a folder, ./paper if none is named, and say which files these are.

        figures/: every figure of `draw` as PDF, PNG and SVG; tables/: `score_table` and `parameter_table` in LaTeX
        (booktabs) and Markdown, with several backbones of each one by itself; data/: the table of each as CSV and
        Parquet; methods.tex and methods.md, the paragraph on how the numbers came about, with every number taken from
        the trials; missing.md, what the figures and tables would need and the sweep does not have. Raises `FaultsError`
        where the folder cannot be written, or holds files of these names that no paper wrote.
        """
        from orchestrator.analysis.paper.write import write_paper

        return write_paper(self, given_path("paper", "folder", folder))

    def backbone_names(self) -> dict[str, str]:
        """What each backbone is called in tables and figures; empty where there is one, which needs no name."""
        return backbone_names(self._trials)

    def method_columns(self) -> list[str]:
        """The columns by which `best` tells every method on every task apart: with several backbones, those too."""
        return ["task", *(["backbone"] if self.backbone_names() else []), "method"]

    def searched(self) -> list[str]:
        """The hyperparameters that have more than one value in this sweep, in the order of their columns.

        More than one with the same backbone, and of a method's options with the same method too: their defaults may
        differ between these.
        """
        return varying_hyperparameters(self._trials)

    def _repr_html_(self) -> str:
        """What a notebook shows of it."""
        from orchestrator.analysis.notebook import results_html

        return results_html(self)

    @cached_property
    def _kept(self) -> KeptRows:
        return KeptRows(self._predictions, self._trials)

    @cached_property
    def _configurations(self) -> list[Configuration]:
        return group_by_configuration(self._trials)

    def _groupable(self) -> list[str]:
        """The columns by which configurations can be told apart."""
        return [*IDENTITY, *SIZES, "metric", *hyperparameter_columns(self._trials)]

    def _margin(self, reference: Group, margin: float | None) -> float | None:
        """The margin to judge by: the one asked for, or the one declared for this reference."""
        if margin is None and self._non_inferiority and is_name(reference, self._non_inferiority[0]):
            return self._non_inferiority[1]
        return margin

    def _price(self, question: str, cost: str) -> Price:
        """What a configuration costs. Raises `FaultsError` on a cost that is unknown or not measured."""
        if faults := name_faults("cost", cost, [*COSTS, *inference_cost.INFERENCE_COSTS]):
            raise FaultsError(question, faults)
        if cost in inference_cost.INFERENCE_COSTS:
            known = inference_cost.milliseconds(self._inference_costs, cost)
            return lambda configuration: known.get(configuration.config_id)
        return recorded_price(cost)

    def _check_per(self, per: Sequence[str], question: str = "best") -> list[str]:
        """The grouping columns without repetition. Raises `FaultsError`."""
        names, known = as_list(per), self._groupable()
        faults = [fault for name in names for fault in name_faults("column to group by", name, known)]
        if not any(is_name(name, "task") for name in names):
            rule = "per: must contain 'task', since scores of different tasks cannot be compared to choose among them"
            faults.append(f"{rule}, but got {names!r}")
        if faults:
            raise FaultsError(question, faults)
        return list(dict.fromkeys(names))

    def _check_split(self, question: str, split: str | None) -> str | None:
        """Raises `FaultsError`."""
        if split is not None and (faults := name_faults("split to score on", split, SPLITS)):
            raise FaultsError(question, faults)
        return split

    def _ask_curve(self, quantiles: Sequence[float], normalize_to: str | None, split: str | None) -> CurveRequest:
        """Raises `FaultsError`. A sweep that has not completed any trial yet is not asked for a reference."""
        request = CurveRequest(quantiles=tuple(as_list(quantiles)), normalize_to=normalize_to, split=split)
        scored = any(c.validation is not None for c in self._configurations)
        known = {c.method for c in self._configurations} if scored else None
        if faults := request.faults(known_methods=known):
            raise FaultsError("curve", faults)
        return request

    def _table(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str], *, with_options: bool = True) -> pa.Table:
        """Rows as a table of the named columns and, unless it does without, the hyperparameters after them."""
        hyperparameters = hyperparameter_columns(self._trials)
        kinds = {**RECORDED, **_SCORES, **_INTERVAL, **_COUNTS, **_BEST, **_REASONS, **_COST}
        kinds |= {**calibration.COLUMNS, **OPTIMISM}
        kinds |= {name: self._trials.schema.field(name).type for name in hyperparameters}
        shown = [*names, *hyperparameters] if with_options else names
        schema = pa.schema([(name, kinds[name]) for name in dict.fromkeys(shown)])
        return pa.Table.from_pylist(rows, schema=schema)


def _describe(chosen: Configuration) -> dict[str, Any]:
    """A configuration as a row: what it is, what it scored, how large it is."""
    validation, test = chosen.validation, chosen.test
    return {
        **chosen.hyperparameters,
        **{name: chosen.value(name) for name in (*IDENTITY, "config_id", "metric", *SIZES)},
        "validation_mean": validation and validation.mean,
        "validation_sem": validation and validation.sem,
        "test_mean": test and test.mean,
        "test_sem": test and test.sem,
        "num_seeds": validation and validation.num_seeds,
        "num_folds": validation and validation.num_folds,
    }


def _interval(chosen: Configuration, kept: KeptRows) -> dict[str, Any]:
    """Of the mean test score."""
    if chosen.test is None:
        return {"test_low": None, "test_high": None, "interval_over": None}
    estimate, over = kept.estimate(chosen, "test"), replicates.with_rows(chosen.test.num_folds)
    if estimate is None:
        estimate, over = replicates.estimate(chosen.test)
    low, high = estimate.interval() if estimate else (None, None)
    return {"test_low": low, "test_high": high, "interval_over": over if estimate else None}


def _count(group: Sequence[Configuration]) -> dict[str, float | None]:
    """What it took to choose among a group, failures included."""
    seconds = [c.engine_seconds for c in group if c.engine_seconds is not None]
    return {
        "engine_seconds": math.fsum(seconds) if seconds else None,
        "num_configs_tried": len(group),
        "num_trials": sum(c.num_trials for c in group),
        "num_failed": sum(c.num_failed for c in group),
    }


def _as_best(best: Configuration) -> dict[str, Any]:
    row = {"best_" + name: value for name, value in _describe(best).items()}
    return {name: row[name] for name in _BEST}
