"""`adaptune simulate`: a sweep on clusters that one may not have yet, and where more of them stops paying."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table

from orchestrator.analysis.text import wording
from orchestrator.cli.screen import console
from orchestrator.estimate.outages import Outages
from orchestrator.estimate.plan_estimate import existing, gather
from orchestrator.estimate.recorded_trials import recorded_sweep
from orchestrator.estimate.simulation import Nodes, Simulated, Step, longest_alone, simulate, steps
from orchestrator.estimate.sweep_estimate import END_S, ENGINE_START_S, RAY_START_S, time_trials
from orchestrator.planning.plan import plan_sweep, remaining
from orchestrator.run.sweep import default_store
from orchestrator.scheduling.engine_layout import ENGINES_PER_GPU, engines_per_gpu
from orchestrator.spec.absolute_paths import with_absolute_paths
from orchestrator.spec.sweep_file import read_sweep
from orchestrator.store import Store
from trainables.faults import FaultsError

if TYPE_CHECKING:
    from orchestrator.estimate.timed_trials import TimedTrials
    from orchestrator.spec.spec import SweepSpec


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """The sweep to simulate."""

    spec: SweepSpec
    timed: TimedTrials
    is_gpu: bool  # whether the times are those of a GPU
    start_s: float  # from the command to the first trial, and from the last one to the report
    notes: tuple[str, ...]


def show_simulation(
    sweep: str,
    overrides: Sequence[str],
    *,
    nodes: str,
    gpus_per_node: int | None,
    cpus_per_node: int | None,
    earlier: Sequence[str],
    failures_per_hour: float,
    replacement_minutes: float,
    price: float | None,
    seed: int,
    as_json: bool,
) -> int:
    """Print what each number of nodes would make of the whole sweep, as if none of its trials had a record."""
    counts = _counts(nodes)
    if gpus_per_node and cpus_per_node is not None:
        rule = "--cpus-per-node is for nodes without a GPU, each of whose cores has an engine"
        raise FaultsError("simulate", [f"{rule}, but --gpus-per-node is {gpus_per_node}"])
    stores = [existing(uri) for uri in earlier]
    found = _of_store(sweep, overrides, stores) or _of_sweep(sweep, overrides, stores)
    has_gpus = cpus_per_node is None and found.is_gpu if gpus_per_node is None else gpus_per_node > 0
    gpus, cpus, sharing = (gpus_per_node or 1) if has_gpus else 0, cpus_per_node or 1, engines_per_gpu()
    if (most := counts[-1] * (gpus * sharing or cpus)) > _MOST_ENGINES:
        rule = f"--nodes times the devices of each must be at most {_MOST_ENGINES:,} engines"
        raise FaultsError("simulate", [f"{rule}, but are {most:,}"])
    rule = found.spec.early_stopping
    drawn = found.timed.drawn_epochs(rule, np.random.default_rng(seed), 1)
    loads = found.timed.loads(drawn[0] if drawn else found.timed.most_epochs)
    outages = Outages(
        per_hour=failures_per_hour, replaced_after_s=60 * replacement_minutes, start_s=ENGINE_START_S, seed=seed
    )
    simulated = [
        simulate(
            loads,
            Nodes(count=count, gpus=gpus, cpus=cpus, engines_per_gpu=sharing),
            start_s=found.start_s,
            max_concurrent_trials=found.spec.search.max_concurrent_trials,
            price=price,
            outages=outages,
        )
        for count in counts
    ]
    notes = list(found.notes)
    if has_gpus and not found.is_gpu:
        notes.append("the step times are those of a CPU core, not of a GPU: only how sizes compare is to be relied on")
    if has_gpus and sharing > 1:
        notes.append(f"{sharing} engines share each GPU, as {ENGINES_PER_GPU} asks; times should be of as many")
    if failures_per_hour:
        notes.append(
            f"a node fails {failures_per_hour:g} times an hour and another stands in its place after "
            f"{replacement_minutes:g} minutes; drawn with seed {seed}"
        )
    least_s = found.start_s + longest_alone(loads)
    if as_json:
        print(json.dumps(_answer(found, simulated, least_s, notes, price, seed)))
        return 0
    screen = console()
    screen.print(_table(found.spec.name, len(loads), simulated, "GPUs" if has_gpus else "cores"))
    screen.print()
    for sentence in _sentences(simulated, least_s, "GPU" if has_gpus else "core"):
        screen.print(sentence, soft_wrap=True)
    for note in notes:
        screen.print(f"Note: {note}", soft_wrap=True)
    return 0


def _counts(nodes: str) -> list[int]:
    """The numbers of nodes, each once, the smallest first."""
    words = nodes.replace(",", " ").split()
    wrong = [word for word in words if not word.isdecimal() or len(word) > 9 or not 1 <= int(word) <= _MOST_NODES]
    if wrong or not words:
        rule = f"--nodes must be whole numbers from 1 to {_MOST_NODES:,} with commas between them, such as 1,10,100"
        raise FaultsError("simulate", [f"{rule}, but got {nodes!r}"])
    return sorted({int(word) for word in words})


_MOST_NODES = 100_000
_MOST_ENGINES = 1_000_000  # that a simulation holds in some hundreds of megabytes


def _of_store(name: str, overrides: Sequence[str], earlier: Sequence[Store]) -> _Timed | None:
    """The sweep of a store, timed by its records; None where there is no such store."""
    store = Store(name)
    if not store.exists():
        return None
    if overrides:
        fault = f"--set changes a sweep file, but {name} is a store; name the sweep, and the store by --from"
        raise FaultsError("simulate", [fault])
    found = recorded_sweep(store, earlier)
    return _Timed(
        spec=found.spec,
        timed=found.timed,
        is_gpu=found.is_gpu,
        start_s=RAY_START_S + ENGINE_START_S + END_S,
        notes=(f"step times are as recorded on {', '.join(found.devices) or 'unknown devices'}", *found.notes),
    )


def _of_sweep(sweep: str, overrides: Sequence[str], earlier: Sequence[Store]) -> _Timed:
    """A declared sweep, timed by what was measured of it or, where nothing was, by arithmetic."""
    plan = plan_sweep(with_absolute_paths(read_sweep(sweep, overrides)), allow_missing=True)
    if plan.missing:
        raise FaultsError("simulate", [*plan.missing, "the store of an earlier run can be simulated without them"])
    trials = plan.sample_trials() if plan.is_adaptive else remaining(plan, ())
    own = Store(default_store(plan.spec.name))
    gathered = gather(plan, trials, [*([own] if own.exists() else []), *earlier])
    if isinstance(gathered, str):
        raise FaultsError("simulate", [gathered, "the store of an earlier run can be simulated"])
    timed = time_trials(trials, gathered.costs, gathered.measurements)
    sources = sorted({timing.source for timing in timed.timings})
    return _Timed(
        spec=plan.spec,
        timed=timed,
        is_gpu=gathered.measurements.is_gpu,
        start_s=RAY_START_S + (gathered.measurements.start_s or ENGINE_START_S) + END_S,
        notes=(f"step times come from {' and '.join(sources)}", *gathered.notes),
    )


def _table(name: str, trials: int, simulated: Sequence[Simulated], devices: str) -> Table:
    title = f"Sweep {name}, {wording.plural(trials, 'trial')}"
    table = Table(title=title, title_justify="left", box=None)
    priced = any(each.cost is not None for each in simulated)
    failing = any(each.failures for each in simulated)
    headings = ["nodes", devices, "time", "times faster", "busy", "pack"]
    headings += ["cost"] * priced + ["nodes lost", "trials begun anew"] * failing
    for heading in headings:
        table.add_column(heading, justify="right")
    for each in simulated:
        row = [f"{each.nodes:,}", f"{each.devices:,}", wording.duration(each.seconds)]
        row += [f"{simulated[0].seconds / each.seconds:.1f}", f"{each.utilisation:.0%}", f"{each.trials_per_pack:.1f}"]
        row += [f"{each.cost or 0:,.2f}"] * priced
        row += [f"{each.failures:,}", f"{each.begun_anew:,}"] * failing
        table.add_row(*row)
    return table


def _sentences(simulated: Sequence[Simulated], least_s: float, device: str) -> list[str]:
    """Where more devices stop paying, and what none of them shortens."""
    found = steps(simulated)
    floor = f"No number of {device}s brings it below {wording.duration(least_s)}, what the longest trial takes alone"
    floor += " with the start of Ray."
    if not found:
        return [floor]
    stop = next((step for step in found if not step.pays), None)
    if stop is None:
        return [f"Up to {found[-1].more:,} {device}s each more pays: {_added(found[-1], device)}.", floor]
    more = f"More than {wording.plural(stop.devices, device)} stop paying" if stop.devices > 1 else "More do not pay"
    return [f"{more}: from {stop.devices:,} to {stop.more:,}, {_added(stop, device)}.", floor]


def _added(step: Step, device: str) -> str:
    """What the devices of one step bring."""
    if step.times_faster <= 1:
        return f"the sweep is no faster ({step.times_faster:.2f} times)"
    times, share = step.more / step.devices, f"{max(0.0, step.worth):.0%}"
    return (
        f"{times:.3g} times as many make it {step.times_faster:.2f} times as fast, and each {device} that is added "
        f"does {share} of what each does in the smallest cluster"
    )


def _answer(
    found: _Timed, simulated: Sequence[Simulated], least_s: float, notes: Sequence[str], price: float | None, seed: int
) -> dict[str, Any]:
    """`stops_paying_at`: the devices beyond which more do less than half of what the first do; null where none is."""
    taken = steps(simulated)
    return {
        "sweep": found.spec.name,
        "num_trials": len(found.timed.trials),
        "seed": seed,
        "price": price,
        "start_seconds": found.start_s,
        "least_seconds": least_s,
        "sizes": [asdict(each) for each in simulated],
        "steps": [{**asdict(step), "pays": step.pays} for step in taken],
        "stops_paying_at": next((step.devices for step in taken if not step.pays), None),
        "notes": list(notes),
    }
