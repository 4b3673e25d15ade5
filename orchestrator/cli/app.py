"""The commands, and how each ends: what is printed, with which exit status.

Exit status: 0 all trials completed or were pruned; 1 some failed; 2 a fault in what was given, nothing started; 3 a
budget is used up; 130, 143 or 129 interrupted by Ctrl-C (SIGINT), SIGTERM or SIGHUP. Heavy rooms are imported by the
commands that need them, so that the others answer at once.
"""

from __future__ import annotations

import atexit
import functools
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any

import typer
import typer.core

from orchestrator.analysis.text.visible import visible
from orchestrator.secrets import masked
from trainables.faults import FaultsError
from trainables.inference.formats import format_names


class _Commands(typer.core.TyperGroup):
    """Commands of which an interrupt is told as this product tells it; Typer would say 130 of any, and no more."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            print(f"interrupted: {stop}" if str(stop) else "interrupted", file=sys.stderr)
            return 128 + getattr(stop, "number", signal.SIGINT)


app = typer.Typer(
    name="adaptune",
    cls=_Commands,
    help="How much accuracy does each trained parameter buy, on your tasks, and which setting should you ship?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Sweep = Annotated[
    str,
    typer.Argument(
        metavar="SWEEP", help="A .py (it is executed), .yaml or .json sweep, or a packaged one by its name."
    ),
]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URI of a sweep's store.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Where records go; ./sweeps/<name> by default.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the sweep: seeds=[0], num_epochs=1. Repeatable."
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", metavar="RAY", help="Ray cluster to join, such as 10.0.0.1:6379 or auto.")
]
JobServerAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="The cluster's job server, such as http://HEAD:8265. RAY_API_SERVER_ADDRESS and RAY_ADDRESS win.",
    ),
]
Job = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or the name of its sweep.")]
TrackingUri = Annotated[
    str | None,
    typer.Option("--tracking-uri", metavar="URI", help="MLflow's tracking store; ./sweeps/mlflow.db by default."),
]
TakeOver = Annotated[
    bool,
    typer.Option(
        "--take-over", help="Take the store over from the driver that has it, without waiting for it to fall silent."
    ),
]
SweepName = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME", help="Name of one sweep, where several share the store.")
]
MaxHours = Annotated[
    float | None,
    typer.Option("--max-hours", metavar="HOURS", help="End in order after so long; resume trains the rest."),
]
MaxFailures = Annotated[
    int | None,
    typer.Option("--max-failures", metavar="N", help="End in order when N trials have failed; resume trains the rest."),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost", metavar="AMOUNT", help="End in order when the engines have cost so much; needs --price."
    ),
]
Price = Annotated[
    float | None, typer.Option("--price", metavar="AMOUNT", help="Price of one engine (GPU or core) for one hour.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on standard output.")]


@app.command()
def plan(
    sweep: Sweep,
    set_: Overrides = None,
    store: StoreOption = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Devices (GPUs, or cores) to plan for; this machine's by default.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of one device for one hour.")] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine first, about a minute; later plans reuse it.")
    ] = False,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="STORE", help="Earlier sweep whose speeds to use. Repeatable.")
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
def simulate(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP_OR_STORE", help="A sweep, timed by arithmetic or --from; or a store, timed by its records."
        ),
    ],
    nodes: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of nodes to compare.")] = "1,10,100,1000",
    gpus_per_node: Annotated[
        int | None, typer.Option(min=0, help="GPUs of each node; 1 by default, where the times are a GPU's.")
    ] = None,
    cpus_per_node: Annotated[
        int | None, typer.Option(min=1, help="Cores of each node without a GPU, an engine each; 1 by default.")
    ] = None,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="STORE", help="Earlier sweep whose speeds to use. Repeatable.")
    ] = None,
    failures_per_hour: Annotated[
        float, typer.Option(min=0, help="How often one node fails in an hour; its trials begin anew.")
    ] = 0.0,
    replacement_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes until another node stands in the place of one that failed.")
    ] = 5.0,
    price: Annotated[float | None, typer.Option(min=0, help="Price of one device for one hour.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of failures, and of whom early stopping stops.")] = 0,
    set_: Overrides = None,
    as_json: Json = False,
) -> int:
    """Play a sweep through on clusters of several sizes: time, use, cost, and where more nodes stop paying."""
    from orchestrator.cli.simulate import show_simulation

    return show_simulation(
        sweep,
        set_ or (),
        nodes=nodes,
        gpus_per_node=gpus_per_node,
        cpus_per_node=cpus_per_node,
        earlier=from_ or (),
        failures_per_hour=failures_per_hour,
        replacement_minutes=replacement_minutes,
        price=price,
        seed=seed,
        as_json=as_json,
    )


@app.command()
def run(
    sweep: Sweep,
    store: StoreOption = None,
    set_: Overrides = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    max_hours: MaxHours = None,
    max_failures: MaxFailures = None,
    max_cost: MaxCost = None,
    price: Price = None,
    take_over: TakeOver = False,
    as_json: Json = False,
) -> int:
    """Train the trials of a sweep that have no record yet, and write its report."""
    from orchestrator.cli.run import run_from_file
    from orchestrator.scheduling.early_end import Budget

    return run_from_file(
        sweep,
        set_ or (),
        store=store,
        address=address,
        tracking_uri=tracking_uri,
        budget=Budget(max_hours=max_hours, max_failures=max_failures, max_cost=max_cost, price=price),
        take_over=take_over,
        as_json=as_json,
    )


@app.command()
def resume(
    store: StoreArgument,
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="SWEEP", help="A larger sweep (a .py file is executed): what is new is trained too."),
    ] = None,
    name: SweepName = None,
    set_: Overrides = None,
    address: Address = None,
    tracking_uri: TrackingUri = None,
    max_hours: MaxHours = None,
    max_failures: MaxFailures = None,
    max_cost: MaxCost = None,
    price: Price = None,
    take_over: TakeOver = False,
    as_json: Json = False,
) -> int:
    """Finish an interrupted sweep, or extend it to a larger one."""
    from orchestrator.cli.run import run_from_store
    from orchestrator.scheduling.early_end import Budget

    return run_from_store(
        store,
        sweep,
        set_ or (),
        name=name,
        address=address,
        tracking_uri=tracking_uri,
        budget=Budget(max_hours=max_hours, max_failures=max_failures, max_cost=max_cost, price=price),
        take_over=take_over,
        as_json=as_json,
    )


@app.command()
def data(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Task folders, or tasks by name such as toy/sentiment.")
    ],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whose word pieces to count; those of minilm by default.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Word pieces that a text is cut to; 128 by default.")
    ] = None,
    silence: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Count this warning but do not show it. Repeatable.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the suggested task.json; what one says that is there stays.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show what task folders hold, how their files were read and what is odd in them."""
    from orchestrator.cli.data import show_data

    return show_data(
        paths, backbone=backbone, max_length=max_length, silence=silence or (), write=write, as_json=as_json
    )


@app.command()
def status(
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE", help="Folder or URI of a sweep's store; with --address a job, the last if none."
        ),
    ] = None,
    sweep: SweepName = None,
    address: Annotated[
        str | None,
        typer.Option("--address", metavar="URL", help="A cluster's job server, to ask for a submitted sweep."),
    ] = None,
    as_json: Json = False,
) -> int:
    """Show how many trials are done and how fast they train, while a sweep runs or afterwards."""
    if address is not None:
        from orchestrator.cli.jobs import show_job

        if sweep is not None:
            fault = "--sweep: names a sweep of a store; with --address, name the job or the sweep instead of the store"
            raise FaultsError("status", [fault])
        return show_job(store, address=address, as_json=as_json)
    from orchestrator.cli.look import show_status

    if store is None:
        rule = "there must be a STORE, or with --address a cluster to ask for a submitted sweep, but there is neither"
        raise FaultsError("status", [rule])
    return show_status(store, sweep=sweep, as_json=as_json)


@app.command()
def report(
    store: StoreArgument,
    sweep: SweepName = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it again as trials end, until the sweep that runs has ended.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Print the tables of a sweep and write its report (HTML, figures, CSV, Parquet) to STORE/report/."""
    from orchestrator.cli.report import make_report

    return make_report(store, sweep=sweep, as_json=as_json, open_page=open_, watch=watch)


@app.command()
def paper(
    store: StoreArgument,
    sweep: SweepName = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where to; STORE/paper by default.")] = None,
    as_json: Json = False,
) -> int:
    """Write the figures (PDF, PNG, SVG), tables (LaTeX, Markdown) and methods paragraph of a paper."""
    from orchestrator.cli.paper import make_paper

    return make_paper(store, sweep=sweep, out=out, as_json=as_json)


@app.command()
def export(
    store: StoreArgument,
    task: Annotated[str | None, typer.Option(help="The task to export for; needed where there are several.")] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="TRIAL_ID", help="Export this trial, not the recommended one.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Export the best trial of this method.")] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Export the best of this backbone, of a sweep with several.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Where to; STORE/adapters/<trial id> by default.")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help=f"For another library: {', '.join(format_names())}."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push", metavar="REPO_ID", help="Send it to this repository of the hub, by the token in HF_TOKEN."
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Push to a repository that all can read.")] = False,
    register_model: Annotated[
        str | None,
        typer.Option(
            "--register-model", metavar="NAME", help="Make it a version of this model in MLflow's registry, too."
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> int:
    """Write the weights and model card of a task's recommended setting, for `adaptune.load` or another library."""
    from orchestrator.cli.export import export_adapter

    return export_adapter(
        store,
        task=task,
        trial=trial,
        method=method,
        backbone=backbone,
        out=out,
        as_json=as_json,
        to=to,
        push=push,
        public=public,
        register_model=register_model,
        tracking_uri=tracking_uri,
    )


@app.command()
def convert(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A saved adapter.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"The library's: {', '.join(format_names())}.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where to; a new or empty folder.")],
    as_json: Json = False,
) -> int:
    """Write a saved adapter in the format of another library, which answers there as it does here or is refused."""
    from orchestrator.cli.export import convert_folder

    return convert_folder(folder, to=to, out=out, as_json=as_json)


@app.command()
def ablate(
    store: StoreArgument,
    task: Annotated[str | None, typer.Option(help="The task to ablate for; needed where there are several.")] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="TRIAL_ID", help="Ablate this trial, not the recommended adapter.")
    ] = None,
    split: Annotated[str, typer.Option(help="The split to evaluate on.")] = "validation",
    again: Annotated[bool, typer.Option("--again", help="Compute it anew where the store has it already.")] = False,
    tracking_uri: TrackingUri = None,
    as_json: Json = False,
) -> int:
    """Measure what each layer's adapters contribute: evaluate without every contiguous span of them."""
    from orchestrator.cli.ablate import ablate_adapters

    return ablate_adapters(
        store, task=task, trial=trial, split=split, again=again, tracking_uri=tracking_uri, as_json=as_json
    )


@app.command()
def sequence(
    tasks: Annotated[
        list[str],
        typer.Argument(metavar="TASK... | FILE", help="Tasks in their order; or one .yaml, .json or .py file."),
    ],
    methods: Annotated[
        str | None, typer.Option(metavar="METHOD,...", help="adapter,full_finetuning by default.")
    ] = None,
    sequential: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD,...",
            help="Methods that are one model, trained on task after task; full_finetuning and top_layers by default.",
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="minilm by default.")] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over each task's training rows.")] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option("--learning-rate", metavar="RATE", help="Of all methods; or METHOD=RATE,METHOD=RATE."),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="So many seeds, from 0; or a list, such as 0,7.")
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="An order of its own for every seed.")] = False,
    max_train_rows: Annotated[
        int | None, typer.Option("--max-train-rows", metavar="N", help="Training rows used of each task.")
    ] = None,
    max_evaluation_rows: Annotated[
        int | None, typer.Option("--max-evaluation-rows", metavar="N", help="Rows used of each other split.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The sequence's name; `sequence` by default.")] = None,
    set_: Overrides = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="FOLDER", help="Where all is kept; ./sweeps/<name> by default.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> int:
    """Train tasks one after another and evaluate all earlier ones after each: what is forgotten, and what is not."""
    from orchestrator.cli.sequence import declared, show_sequence

    values = declared(
        tasks,
        overrides=set_ or (),
        methods=methods,
        sequential=sequential,
        backbone=backbone,
        epochs=epochs,
        learning_rate=learning_rate,
        seeds=seeds,
        shuffle=shuffle,
        max_train_rows=max_train_rows,
        max_evaluation_rows=max_evaluation_rows,
        name=name,
    )
    return show_sequence(values, store=store, device=device, as_json=as_json)


@app.command()
def measure(
    store: StoreArgument,
    length: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Word pieces of each text; 32 by default.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads on a CPU; as many as torch takes by itself.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> int:
    """Measure what the models of a sweep cost when they answer: latency and texts a second, on this machine."""
    from orchestrator.cli.measure import measure_costs

    return measure_costs(store, length=length, num_threads=threads, device=device, as_json=as_json)


@app.command()
def ui(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port on 127.0.0.1; a free one by default.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Serve the MLflow UI on 127.0.0.1 until Ctrl-C."""
    from orchestrator.cli.services import serve_ui

    return serve_ui(port=port, tracking_uri=tracking_uri)


@app.command()
def serve(
    adapters: Annotated[
        list[str] | None,
        typer.Option(
            "--adapters",
            metavar="FOLDER",
            help="A saved adapter, or a folder of such; NAME=FOLDER names it. Repeatable.",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="STORE", help="Serve the kept winners of a sweep, by their tasks.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Of a store, the best trials of this method.")] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="The adapters' backbone; found by its name by default.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen at; others need --token-env.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 is a free one.")] = 8900,
    token_env: Annotated[
        str | None,
        typer.Option("--token-env", metavar="VARIABLE", help="The environment variable with the clients' token."),
    ] = None,
) -> int:
    """Serve many adapters over one backbone by HTTP, until SIGTERM or Ctrl-C."""
    from orchestrator.cli.serve import serve_adapters

    return serve_adapters(
        adapters or (),
        store=store,
        method=method,
        backbone=backbone,
        device=device,
        host=host,
        port=port,
        token_env=token_env,
    )


@app.command()
def submit(
    sweep: Sweep,
    address: JobServerAddress = None,
    set_: Overrides = None,
    store: StoreOption = None,
    tracking_uri: TrackingUri = None,
    max_hours: MaxHours = None,
    max_failures: MaxFailures = None,
    max_cost: MaxCost = None,
    price: Price = None,
    take_over: TakeOver = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once its trials are planned; say how to find it again.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Send a sweep to a Ray cluster as a job and show its log until it ends. It goes on without the terminal."""
    from orchestrator.cli.jobs import submit_sweep
    from orchestrator.scheduling.early_end import Budget

    return submit_sweep(
        sweep,
        set_ or (),
        address=address,
        store=store,
        tracking_uri=tracking_uri,
        budget=Budget(max_hours=max_hours, max_failures=max_failures, max_cost=max_cost, price=price),
        take_over=take_over,
        detach=detach,
        as_json=as_json,
    )


@app.command()
def jobs(address: JobServerAddress = None, as_json: Json = False) -> int:
    """List the sweeps that were submitted to a cluster: status, trials done, where their records are."""
    from orchestrator.cli.jobs import list_jobs

    return list_jobs(address=address, as_json=as_json)


@app.command()
def logs(
    job: Job,
    address: JobServerAddress = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job ends, and exit as its sweep does.")
    ] = False,
) -> int:
    """Print the log of a submitted sweep."""
    from orchestrator.cli.jobs import show_log

    return show_log(job, address=address, follow=follow)


@app.command()
def stop(job: Job, address: JobServerAddress = None, as_json: Json = False) -> int:
    """End a submitted sweep in order: running trials end with their epoch, and what is finished is recorded."""
    from orchestrator.cli.jobs import stop_job

    return stop_job(job, address=address, as_json=as_json)


@app.command()
def doctor(address: Address = None, tracking_uri: TrackingUri = None, as_json: Json = False) -> int:
    """Check package versions, devices, memory, disk, cluster, MLflow and write access."""
    from orchestrator.cli.doctor import examine

    return examine(address=address, tracking_uri=tracking_uri, as_json=as_json)


class TextLines(logging.Formatter):
    """Lines of the log as text that can be seen, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(masked(super().format(record)))


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What an error that nobody expected leaves on the terminal, without secrets."""
    print(masked("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


@functools.cache
def _command() -> Any:
    """What Typer makes of all that is declared above. Calling `app` would make it anew each time."""
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (and is what the console script calls)."""
    # A sweep loads so much that the interpreter would look through it for garbage for seconds before it exits.
    atexit.register(gc.freeze)
    sys.excepthook = _show_traceback
    lines = logging.StreamHandler()
    lines.setFormatter(TextLines("%(name)s: %(message)s"))
    logging.basicConfig(level=os.environ.get("ADAPTUNE_LOG", "WARNING").upper(), handlers=[lines])
    try:
        result: Any = _command()(arguments, standalone_mode=False)
        return int(result or 0)
    except FaultsError as error:
        print(visible(masked(str(error))), file=sys.stderr)
        return 2
    except typer.Abort:
        return 130
    except typer.Exit as end:
        return end.exit_code
    except Exception as error:
        usage = getattr(error, "format_message", None)  # click's own faults of the command line
        if usage is None:
            raise
        print(visible(masked(f"adaptune: {usage()}")), file=sys.stderr)
        return 2
