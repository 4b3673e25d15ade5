"""Draws curves.png and writes table.md of this page: one sweep with early stopping beside the same without.

python docs/early-stopping/figure.py STORE_OF_ALL STORE_OF_ASHA
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from adaptune import load_results


def main(all_store: str, asha_store: str) -> None:
    whole, asha = (load_results(store) for store in (all_store, asha_store))
    tasks = sorted(set(whole.trials()["task"].to_pylist()))
    figure, axes = plt.subplots(1, len(tasks), figsize=(10, 4), sharex=True, layout="constrained")
    spent = {"all": 0, "asha": 0}
    lines = [
        "| task | epochs | with ASHA | share | best on validation | with ASHA | its test score | with ASHA |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for axis, task in zip(axes, tasks, strict=True):
        curves = {name: _curves(results, task) for name, results in (("all", whole), ("asha", asha))}
        ends = {name: _trials(results, task) for name, results in (("all", whole), ("asha", asha))}
        for curve in curves["all"].values():
            axis.plot(curve.index, curve.values, color="0.85", linewidth=1, zorder=1)
        for trial_id, curve in curves["asha"].items():
            is_whole = ends["asha"].loc[trial_id, "status"] == "completed"
            colour = "tab:blue" if is_whole else "tab:orange"
            axis.plot(curve.index, curve.values, color=colour, linewidth=1.5, zorder=3 if is_whole else 2)
            axis.plot(curve.index[-1], curve.iloc[-1], "o" if is_whole else "x", color=colour, zorder=4)
        axis.set(title=task, xlabel="epoch", ylabel="accuracy on validation")
        best = {name: _best(each) for name, each in ends.items()}
        epochs = {name: sum(map(len, each.values())) for name, each in curves.items()}
        for name in spent:
            spent[name] += epochs[name]
        share = epochs["asha"] / epochs["all"]
        columns = ("validation_score", "test_score")
        scores = [f"{best[name][column]:.3f}" for column in columns for name in ("all", "asha")]
        lines.append(f"| {task} | {epochs['all']} | {epochs['asha']} | {share:.0%} | {' | '.join(scores)} |")
    lines.append(f"\nIn all {spent['asha']} of {spent['all']} epochs: {spent['asha'] / spent['all']:.1%}.")
    (Path(__file__).parent / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    axes[-1].plot([], [], color="tab:blue", marker="o", label="trained to the end")
    axes[-1].plot([], [], color="tab:orange", marker="x", label="pruned")
    axes[-1].plot([], [], color="0.85", label="the same without early stopping")
    axes[-1].legend(loc="center right", frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "curves.png", dpi=150)


def _trials(results: object, task: str) -> pd.DataFrame:
    trials = results.trials().to_pandas()  # type: ignore[attr-defined]
    return trials[trials["task"] == task].set_index("trial_id")


def _best(trials: pd.DataFrame) -> pd.Series:
    """The trial with the highest validation score among those trained to the end."""
    completed = trials[trials["status"] == "completed"]
    return completed.loc[completed["validation_score"].idxmax()]


def _curves(results: object, task: str) -> dict[str, pd.Series]:
    epochs = results.epochs().to_pandas()  # type: ignore[attr-defined]
    of_task = epochs[epochs["task"] == task]
    return {trial_id: rows.set_index("epoch")["validation_score"] for trial_id, rows in of_task.groupby("trial_id")}


if __name__ == "__main__":
    main(*sys.argv[1:])
