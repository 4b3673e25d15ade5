"""Every number of the answers, once more, from nothing but the Parquet files of a store.

As short and as slow as it likes to be: what it says must be seen to be right by reading it. It shares no code with
adaptune, and a test holds the answers to it. Each function gives the rows of one answer as dictionaries.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow.parquet as pq

Row = dict[str, Any]
REPORTED = ("backbone", "method", "config_id", "metric")
SIZES = ("trained_params", "trained_params_without_head", "total_params")
HYPERPARAMETERS = (
    *("adapter_size", "learning_rate", "num_epochs", "batch_size", "warmup_ratio", "weight_decay", "max_grad_norm"),
    *("max_length", "dropout", "precision", "class_weights"),
)


class Recomputed:
    def __init__(self, store: Path) -> None:
        self.trials: list[Row] = []
        for file in sorted((store / "trials").glob("*.parquet")):
            self.trials += pq.read_table(file).to_pylist()
        self.predictions: dict[tuple[str, str], list[Row]] = {}
        for file in sorted((store / "predictions").glob("*.parquet")):
            for row in pq.read_table(file).to_pylist():
                self.predictions.setdefault((row["trial_id"], row["split"]), []).append(row)
        self.labels = {
            file.stem: pq.read_table(file)["label"].to_numpy()
            for file in (store / "predictions" / "rows").glob("*.parquet")
        }
        self.configs: dict[str, list[Row]] = {}
        for trial in sorted(self.trials, key=lambda row: row["seed"]):
            self.configs.setdefault(trial["config_id"], []).append(trial)

    # What a configuration is and scored.

    def completed(self, config: str) -> list[Row]:
        return [trial for trial in self.configs[config] if trial["status"] == "completed"]

    def value(self, config: str, column: str) -> Any:
        """What any of its trials knows."""
        return next((trial[column] for trial in self.configs[config] if trial[column] is not None), None)

    def scores(self, config: str, split: str) -> list[float]:
        found = [trial[f"{split}_score"] for trial in self.completed(config)]
        return [score for score in found if score is not None]

    def groups(self, *columns: str) -> dict[tuple[Any, ...], list[str]]:
        groups: dict[tuple[Any, ...], list[str]] = {}
        for config in self.configs:
            groups.setdefault(tuple(self.value(config, column) for column in columns), []).append(config)
        return dict(sorted(groups.items(), key=lambda item: [(each is None, each or 0) for each in item[0]]))

    def contenders(self, configs: list[str]) -> list[str]:
        """Those with the most seeds, the best on validation first."""
        most = max((len(self.scores(config, "validation")) for config in configs), default=0)
        able = [config for config in configs if most and len(self.scores(config, "validation")) == most]
        return sorted(able, key=lambda c: (-mean(self.scores(c, "validation")), self.value(c, "trained_params"), c))

    def describe(self, config: str) -> Row:
        row = {name: self.value(config, name) for name in ("task", *REPORTED, *SIZES, *HYPERPARAMETERS)}
        for split in ("validation", "test"):
            scores = self.scores(config, split)
            row[f"{split}_mean"], row[f"{split}_sem"] = (mean(scores), sem(scores)) if scores else (None, None)
        return {**row, "num_seeds": len(self.scores(config, "validation")), "num_folds": self.num_folds(config)}

    def num_folds(self, config: str) -> int | None:
        folds = {trial["fold"] for trial in self.configs[config]} - {None}
        return max(folds) + 1 if folds else None

    def count(self, configs: list[str]) -> Row:
        trials = [trial for config in configs for trial in self.configs[config]]
        return {
            "num_configs_tried": len(configs),
            "num_trials": len(trials),
            "num_failed": sum(trial["status"] == "failed" for trial in trials),
            "engine_seconds": sum(trial["duration_s"] / trial["pack_size"] for trial in trials),
        }

    # What it predicted.

    def predicted(self, config: str, split: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Labels, and predictions of every seed."""
        found = [self.predictions.get((trial["trial_id"], split)) for trial in self.completed(config)]
        if not all(found):
            return None
        name = {"classification": "class", "regression": "number"}[found[0][0]["kind"]]
        values = [[row[name] for row in sorted(rows, key=lambda row: row["row"])] for rows in found]
        return self.labels[found[0][0]["rows"]], np.array(values)

    def outcomes(self, config: str, split: str) -> np.ndarray | None:
        """What each row adds to the score of each seed."""
        found = self.predicted(config, split)
        if found is None:
            return None
        labels, predictions = found
        score, n = METRICS[self.value(config, "metric")], len(labels)
        if score is accuracy:
            return (predictions == labels).astype(float)
        return np.array(
            [
                [n * score(each, labels) - (n - 1) * score(np.delete(each, i), np.delete(labels, i)) for i in range(n)]
                for each in predictions
            ]
        )

    # The answers.

    def best(self) -> list[Row]:
        groups = [(configs, self.contenders(configs)) for configs in self.groups("task", "method").values()]
        return [{**self.describe(chosen[0]), **self.count(configs)} for configs, chosen in groups if chosen]

    def curve(self, reference: str = "full_finetuning") -> list[Row]:
        points: dict[tuple[Any, ...], list[Row]] = {}
        for (task, backbone, method, size), configs in self.groups("task", "backbone", "method", SIZES[1]).items():
            best = self.contenders(configs)[0]
            other = self.contenders(self.groups("task", "backbone", "method")[task, backbone, reference])[0]
            split = "test" if self.scores(best, "test") else "validation"
            point = self.describe(best)
            point["delta"] = mean(self.scores(best, split)) - mean(self.scores(other, split))
            points.setdefault((backbone, method, size), []).append({**point, "split": split})
        return [
            {
                **dict(zip(("backbone", "method", SIZES[1]), key, strict=True)),
                "trained_params": round(mean([point["trained_params"] for point in own])),
                "num_tasks": len(own),
                "num_tasks_on_validation": sum(point["split"] == "validation" for point in own),
                "num_seeds": min(point["num_seeds"] for point in own),
                "num_folds": max((point["num_folds"] for point in own if point["num_folds"]), default=None),
                "metric": own[0]["metric"] if len({point["metric"] for point in own}) == 1 else None,
                "normalize_to": reference,
                **{f"p{p}": np.percentile([point["delta"] for point in own], p) for p in (20, 50, 80)},
            }
            for key, own in sorted(points.items())
        ]

    def recommend(self) -> list[Row]:
        rows = []
        for (task,), configs in self.groups("task").items():
            tried = self.contenders(configs)
            best = tried[0]
            seen = {config: self.scores(config, "validation") for config in tried}
            good = [config for config in tried if mean(seen[best]) - mean(seen[config]) <= sem(seen[best])]
            chosen = min(good, key=lambda config: self.value(config, "trained_params"))
            row = {**self.describe(chosen), **self.count(configs), "task": task}
            beside = self.describe(best)
            row |= {"best_" + name: beside[name] for name in ("method", "config_id", "trained_params")}
            row |= {f"best_{s}_{what}": beside[f"{s}_{what}"] for s in SPLITS for what in ("mean", "sem")}
            row |= dict.fromkeys(("test_low", "test_high", "interval_over"))
            if test := self.scores(chosen, "test"):
                outcomes = self.outcomes(chosen, "test")
                error, freedom = (sem(test), len(test) - 1) if outcomes is None else crossed(outcomes)
                row["test_low"], row["test_high"] = interval(mean(test), error, freedom)
                row["interval_over"] = "seeds" if outcomes is None else "seeds and rows"
            row |= dict.fromkeys(("difference", "difference_low", "difference_high", "difference_over"))
            if chosen != best:
                found = self.difference(chosen, best, "test" if test else "validation")
                row |= {"difference": found["difference"], "difference_over": found["interval_over"]}
                row |= {f"difference_{end}": found[end] for end in ("low", "high")}
            drawn = np.random.default_rng(0).integers(3, size=(200, len(tried), 3))
            kept = 0
            for sample in drawn:
                again = [np.array(seen[config])[seeds] for config, seeds in zip(tried, sample, strict=True)]
                means = [each.mean() for each in again]
                reach = max(means) - sem(again[int(np.argmax(means))].tolist()) - 1e-12
                able = [
                    (self.value(config, "trained_params"), -level, place)
                    for place, (config, level) in enumerate(zip(tried, means, strict=True))
                    if level >= reach
                ]
                kept += tried[min(able)[2]] == chosen
            rows.append({**row, "share_kept": kept / 200})
        return rows

    def difference(self, a: str, b: str, split: str) -> Row:
        """Of two configurations, over seeds, and over rows too where these are kept."""
        ours, theirs = self.scores(a, split), self.scores(b, split)
        rows = self.outcomes(a, split), self.outcomes(b, split)
        if rows[0] is None or rows[1] is None:
            over, parts = "seeds", [(sem(side) ** 2, len(side) - 1) for side in (ours, theirs)]
        else:
            over, parts = "seeds and rows", crossed_parts(*rows)
        error, freedom = combined(parts)
        centre = mean(ours) - mean(theirs)
        low, high = interval(centre, error, freedom)
        bound = centre - student(freedom, 0.95) * error
        return {"difference": centre, "low": low, "high": high, "interval_over": over, "lower_bound": bound}

    def p_rows(self, a: str, b: str, split: str) -> float | None:
        found = self.predicted(a, split), self.predicted(b, split)
        if found[0] is None or found[1] is None:
            return None
        (labels, ours), (_, theirs) = found[0], found[1]
        score = METRICS[self.value(a, "metric")]
        if score is accuracy:  # every assignment of signs to the rows' differences
            gains = (ours == labels).sum(axis=0) * len(theirs) - (theirs == labels).sum(axis=0) * len(ours)
            chances = {0: 1.0}
            for gain in gains[gains != 0].tolist():
                flipped: dict[int, float] = {}
                for total, chance in chances.items():
                    for sign in (-1, 1):
                        flipped[total + sign * gain] = flipped.get(total + sign * gain, 0) + chance / 2
                chances = flipped
            return sum(chance for total, chance in chances.items() if abs(total) >= abs(gains.sum()))
        drawn = np.random.default_rng(0).integers(len(labels), size=(2000, len(labels)))
        found_differences = np.array(
            [
                mean([score(each[i], labels[i]) for each in ours])
                - mean([score(each[i], labels[i]) for each in theirs])
                for i in drawn
            ]
        )
        beyond = min((found_differences <= 1e-12).sum(), (found_differences >= -1e-12).sum())
        return float(min(1.0, 2 * (1 + beyond) / 2001))

    def compare(self, a: str, b: str, margin: float) -> list[Row]:
        rows = []
        for (task,), _ in self.groups("task").items():
            tried = {side: self.groups("task", "method")[task, method] for side, method in (("a", a), ("b", b))}
            best = {side: self.contenders(configs)[0] for side, configs in tried.items()}
            split = "test" if self.scores(best["a"], "test") else "validation"
            row: Row = {"task": task, "metric": self.value(best["a"], "metric"), "split": split, "num_tasks": 1}
            row |= self.difference(best["a"], best["b"], split)
            pairs = itertools.product(*(self.scores(best[side], split) for side in "ab"))
            row["probability_of_improvement"] = mean([(x > y) + (x == y) / 2 for x, y in pairs])
            for side in "ab":
                scores, spent = self.scores(best[side], split), self.count(tried[side])
                row |= {f"{side}_config_id": best[side], f"{side}_score": mean(scores), f"{side}_sem": sem(scores)}
                row |= {f"{side}_num_seeds": len(scores), f"{side}_num_folds": self.num_folds(best[side])}
                row |= {f"{side}_{name}": spent[name] for name in ("num_configs_tried", "engine_seconds")}
            row |= {"p_rows": self.p_rows(best["a"], best["b"], split), "p_value": None, "smallest_p": None}
            rows.append(row)
        deltas = [row["difference"] for row in rows]
        low, high = interval(mean(deltas), sem(deltas), len(deltas) - 1)
        flips = [sum(s * d for s, d in zip(signs, deltas, strict=True)) for signs in signs_of(len(deltas))]
        total = {
            **dict.fromkeys(("task", "split", "metric", "a_config_id", "b_config_id", "a_sem", "b_sem", "p_rows")),
            "num_tasks": len(rows),
            "difference": mean(deltas),
            "low": low,
            "high": high,
            "lower_bound": mean(deltas) - student(len(deltas) - 1, 0.95) * sem(deltas),
            "interval_over": "tasks",
            "probability_of_improvement": mean([row["probability_of_improvement"] for row in rows]),
            "p_value": mean([abs(flip) >= abs(sum(deltas)) - 1e-12 for flip in flips]),
            "smallest_p": 2 / len(flips),
        }
        for side in "ab":
            total[f"{side}_score"] = mean([row[f"{side}_score"] for row in rows])
            total[f"{side}_num_seeds"] = min(row[f"{side}_num_seeds"] for row in rows)
            total[f"{side}_num_folds"] = max((n for row in rows if (n := row[f"{side}_num_folds"])), default=None)
            for name in ("num_configs_tried", "engine_seconds"):
                total[f"{side}_{name}"] = sum(row[f"{side}_{name}"] for row in rows)
        rows.append(total)
        for row in rows:
            seconds = sorted(row[f"{side}_engine_seconds"] for side in "ab")
            same = all(row[f"a_{name}"] == row[f"b_{name}"] for name in ("num_configs_tried", "num_seeds"))
            row |= {"budgets_differ": not same or seconds[1] > 1.1 * seconds[0], "equalised_to": None}
            row |= {"margin": margin, "is_non_inferior": row["lower_bound"] > -margin}
            row["backbone"] = self.value(rows[0]["a_config_id"], "backbone")  # there is one
        rows[-1]["budgets_differ"] = any(row["budgets_differ"] for row in rows)
        return rows

    def pareto(self, cost: str = "trained_params") -> list[Row]:
        rows = []
        for configs in self.groups("task").values():
            able = [(self.value(c, cost), mean(self.scores(c, "validation")), c) for c in self.contenders(configs)]
            for price, score, config in sorted(able):
                if not any(p <= price and s >= score and (p, s) != (price, score) for p, s, _ in able):
                    row = {**self.describe(config), **self.count(configs), "cost": cost, "cost_value": price}
                    if not rows or (rows[-1]["task"], rows[-1]["cost_value"]) != (row["task"], price):
                        rows.append(row)
        return rows

    def calibration(self, num_bins: int = 15) -> list[Row]:
        rows = []
        for configs in self.groups("task", "method").values():
            best = self.contenders(configs)[0]
            split = "test" if self.scores(best, "test") else "validation"
            found = self.predicted(best, split)
            if found is None or self.value(best, "metric") == "pearson_and_spearman":
                continue
            labels, predictions = found
            trials = [trial["trial_id"] for trial in self.completed(best)]
            sure = np.exp([[max(row["scores"]) for row in self.predictions[t, split]] for t in trials])
            right = predictions == labels
            errors = [sum(self.bins(*one, num_bins)[2]) for one in zip(sure, right, strict=True)]
            numbers, bins, _ = self.bins(sure.reshape(-1), right.reshape(-1), num_bins)
            for number, own in zip(numbers, bins, strict=True):
                rows.append(
                    {
                        **{name: self.value(best, name) for name in ("task", "backbone", "method", "config_id")},
                        **{"split": split, "num_seeds": len(trials), "num_rows": len(labels)},
                        "expected_calibration_error": mean(errors),
                        "expected_calibration_error_sem": sem(errors),
                        "bin": number,
                        "bin_confidence": sure.reshape(-1)[own].mean(),
                        "bin_accuracy": right.reshape(-1)[own].mean(),
                        "bin_rows": len(own),
                    }
                )
        return rows

    @staticmethod
    def bins(sure: np.ndarray, right: np.ndarray, num_bins: int) -> tuple[list[int], list[np.ndarray], list[float]]:
        """The numbers of those that are filled, their rows, and what each adds to the error."""
        place = np.ceil(sure * num_bins).clip(1, num_bins).astype(int)
        bins = {number: np.flatnonzero(place == number) for number in sorted(set(place.tolist()))}
        parts = [len(own) / len(sure) * abs(sure[own].mean() - right[own].mean()) for own in bins.values()]
        return list(bins), list(bins.values()), parts


SPLITS = ("validation", "test")


def signs_of(n: int) -> itertools.product[tuple[int, ...]]:
    return itertools.product((-1, 1), repeat=n)


def mean(values: Any) -> float:
    return math.fsum(values) / len(values)


def sem(values: Any) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    both = predictions.sum() + labels.sum()  # of classes 0 and 1
    return 2 * float((predictions * labels).sum()) / both if both else 0.0


def correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's; of classes 0 and 1 it is Matthews'."""
    return float(np.corrcoef(first, second)[0, 1])


def rank(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2


def both_correlations(predictions: np.ndarray, labels: np.ndarray) -> float:
    return (correlation(predictions, labels) + correlation(rank(predictions), rank(labels))) / 2


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews_correlation": correlation,
    "pearson_and_spearman": both_correlations,
}


def seeds_and_rest(table: np.ndarray) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of outcomes by seed and row, what seeds and the rest add to the variance of the mean, with their freedom."""
    seeds, rows = table.shape
    rest = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean()
    free = (seeds - 1) * (rows - 1)
    return (table.mean(axis=1).var(ddof=1) / seeds, seeds - 1), ((rest**2).sum() / free / table.size, free)


def put_together(seeds: list[Any], rows: tuple[float, float], rest: list[Any]) -> list[tuple[float, float]]:
    """What is in both seeds and rows is taken out once; a part that this would make negative is 0."""
    noise = sum(part for part, _ in rest)
    some = sum(part for part, _ in seeds)
    if some <= noise:
        return [rows] if rows[0] > noise else rest
    return seeds if rows[0] <= noise else [*seeds, rows, *((-part, free) for part, free in rest)]


def crossed(table: np.ndarray) -> tuple[float, float]:
    """The standard error of the mean over seeds and rows, and its degrees of freedom."""
    seeds, rest = seeds_and_rest(table)
    rows = (table.mean(axis=0).var(ddof=1) / table.shape[1], table.shape[1] - 1)
    return combined(put_together([seeds], rows, [rest]))


def crossed_parts(ours: np.ndarray, theirs: np.ndarray) -> list[tuple[float, float]]:
    """Of the difference of two methods: rows are paired, seeds are not."""
    per_row = ours.mean(axis=0) - theirs.mean(axis=0)
    tables = [seeds_and_rest(table) for table in (ours, theirs)]
    rows = (per_row.var(ddof=1) / len(per_row), len(per_row) - 1)
    return put_together([seeds for seeds, _ in tables], rows, [rest for _, rest in tables])


def combined(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """The standard error, and Satterthwaite's degrees of freedom."""
    variance = sum(part for part, _ in parts)
    return math.sqrt(variance), variance**2 / sum(part**2 / free for part, free in parts)


def interval(centre: float, error: float, freedom: float) -> tuple[float, float]:
    reach = student(freedom, 0.975) * error
    return centre - reach, centre + reach


def student(freedom: float, level: float) -> float:
    """The quantile of Student's distribution above a half, by adding up its density and halving the distance."""
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    low, high = 0.0, 20 * NormalDist().inv_cdf(level)
    while high - low > 1e-11:
        middle = (low + high) / 2
        x = np.linspace(0, middle, 2001)
        y = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
        below = 0.5 + middle / 6000 * (y[0] + 4 * y[1::2].sum() + 2 * y[2:-1:2].sum() + y[-1])  # Simpson's rule
        low, high = (middle, high) if below < level else (low, middle)
    return (low + high) / 2
