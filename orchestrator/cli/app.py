"""The commands, and how each ends: what is printed, with which exit status.

Exit status: 0 all trials completed or were pruned; 1 some failed; 2 a fault in what was given, nothing started;
130 interrupted. Heavy rooms are imported by the commands that need them, so that the others answer at once.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from trainables.faults import FaultsError

app = typer.Typer(
    name="adaptune",
    help="How much accuracy does each trained parameter buy, on your tasks, and which setting should you ship?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Sweep = Annotated[str, typer.Argument(metavar="SWEEP", help="A .py, .yaml or .json sweep, or a packaged one by name.")]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URI of a sweep's store.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Where records go; ./sweeps/<name> by default.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change the sweep: seeds=[0], num_epochs=1. Repeatable."),
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="A running Ray to join, such as 10.0.0.1:6379 or auto.")
]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", metavar="URI", help="MLflow; ./sweeps/mlflow.db by default.")
]
SweepName = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME", help="One of several sweeps that share the store.")
]
Json = Annotated[bool, typer.Option("--json", help="Answer as JSON on standard output.")]


@app.command()
def plan(
    sweep: Sweep,
    set_: Overrides = None,
    store: StoreOption = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices (GPUs, or cores) to plan for; this machine's by default.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="PlanEstimate of one device for an hour.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure on this machine first, for a minute; later plans know it too.")
    ] = False,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="STORE", help="An earlier sweep to learn from. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Show the trials of a sweep, their trained parameters, memory, time and cost. Trains nothing."""
    from orchestrator.cli.preview import show_plan

    return show_plan(
        sweep,
        set_ or (),
        store=store,
        devices=devices,
        price=price,
        calibrate=calibrate,
        earlier=from_ or (),
        as_json=as_json,
    )


@app.command()
def run(
    sweep: Sweep,
    store: StoreOption = None,
    set_: Overrides = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> int:
    """Train what is missing of a sweep and write its report."""
    from orchestrator.cli.run import run_from_file

    return run_from_file(sweep, set_ or (), store=store, address=address, tracking_uri=tracking_uri, as_json=as_json)


@app.command()
def resume(
    store: StoreArgument,
    sweep: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A larger sweep to widen it with.")] = None,
    name: SweepName = None,
    set_: Overrides = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> int:
    """Finish an interrupted sweep, or widen it with a larger one."""
    from orchestrator.cli.run import run_from_store

    return run_from_store(
        store, sweep, set_ or (), name=name, address=address, tracking_uri=tracking_uri, as_json=as_json
    )


@app.command()
def status(store: StoreArgument, sweep: SweepName = None, as_json: Json = False) -> int:
    """Show how far a sweep is and how fast, from any terminal, while it runs or after."""
    from orchestrator.cli.look import show_status

    return show_status(store, sweep=sweep, as_json=as_json)


@app.command()
def report(store: StoreArgument, sweep: SweepName = None, as_json: Json = False) -> int:
    """Write HTML, pictures, CSV and Parquet into STORE/report/ and print the tables."""
    from orchestrator.cli.look import make_report

    return make_report(store, sweep=sweep, as_json=as_json)


@app.command()
def export(
    store: StoreArgument,
    task: Annotated[str | None, typer.Option(help="The task to export for; needed where there are several.")] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="TRIAL_ID", help="This trial instead of the recommended.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="The best of this method instead of the recommended.")] = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="STORE/adapters/<trial id> by default.")] = None,
    as_json: Json = False,
) -> int:
    """Write the recommended adapter of a task, weights and model card, ready for `trainables.load`."""
    from orchestrator.cli.export import export_adapter

    return export_adapter(store, task=task, trial=trial, method=method, out=out, as_json=as_json)


@app.command()
def ablate(
    store: StoreArgument,
    task: Annotated[str | None, typer.Option(help="The task to ablate for; needed where there are several.")] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="TRIAL_ID", help="This trial instead of the best one with adapters.")
    ] = None,
    split: Annotated[str, typer.Option(help="The rows to evaluate on.")] = "validation",
    again: Annotated[bool, typer.Option("--again", help="Replace an ablation that is kept already.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> int:
    """Evaluate a trial without the adapters of every span of layers; figure and tables into STORE/artifacts/."""
    from orchestrator.cli.ablate import ablate_adapters

    return ablate_adapters(
        store, task=task, trial=trial, split=split, again=again, tracking_uri=tracking_uri, as_json=as_json
    )


@app.command()
def ui(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port on 127.0.0.1; a free one by default.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Open MLflow's pages over the default tracking store, on this machine only, until Ctrl-C."""
    from orchestrator.cli.services import serve_ui

    return serve_ui(port=port, tracking_uri=tracking_uri)


@app.command()
def submit(
    sweep: Sweep,
    address: Annotated[str, typer.Option(metavar="URL", help="The cluster's job server, http://HEAD:8265.")],
    set_: Overrides = None,
    store: StoreOption = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Send a sweep to a Ray cluster as a job and follow it to its end."""
    from orchestrator.cli.services import submit_sweep

    return submit_sweep(sweep, set_ or (), address=address, store=store, tracking_uri=tracking_uri)


@app.command()
def doctor(address: Address = None, tracking_uri: TrackingUri = None, as_json: Json = False) -> int:
    """Check versions, devices, memory, disk, cluster, tracking and write access."""
    from orchestrator.cli.doctor import examine

    return examine(address=address, tracking_uri=tracking_uri, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (and is what the console script calls)."""
    # A sweep loads so much that the interpreter would look through it for garbage for seconds before it exits.
    atexit.register(gc.freeze)
    logging.basicConfig(level=os.environ.get("ADAPTUNE_LOG", "WARNING").upper(), format="%(name)s: %(message)s")
    try:
        result: Any = app(arguments, standalone_mode=False)
        return int(result or 0)
    except FaultsError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
        return 130
    except typer.Abort:
        return 130
    except typer.Exit as end:
        return end.exit_code
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's own faults of the command line
        if usage is None:
            raise
        print(f"adaptune: {usage()}", file=sys.stderr)
        return 2
