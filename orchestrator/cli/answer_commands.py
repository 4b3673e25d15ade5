"""What came of a sweep: its answers, its weights and what they cost."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import Json, StoreArgument, SweepName, TrackingUri
from trainables.faults import FaultsError
from trainables.inference.formats import format_names


def status(
    store: Annotated[
        str | None,
        typer.Argument(
            metavar="STORE",
            help="Folder or URI of a sweep's store; with --address a job or its sweep; none is the last.",
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


def paper(
    store: StoreArgument,
    sweep: SweepName = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Where to; STORE/paper by default.")] = None,
    as_json: Json = False,
) -> int:
    """Write the figures (PDF, PNG, SVG), tables (LaTeX, Markdown) and methods paragraph of a paper."""
    from orchestrator.cli.paper import make_paper

    return make_paper(store, sweep=sweep, out=out, as_json=as_json)


def export(
    store: StoreArgument,
    task: Annotated[str | None, typer.Option(help="The task to export for; needed where there are several.")] = None,
    trial: Annotated[
        str | None, typer.Option(metavar="TRIAL_ID", help="Export this trial, not the recommended one.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Export the best trial of this method.")] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a sweep with several backbones, export the best of this one.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="A new or empty folder, or a saved adapter's to replace; STORE/adapters/TRIAL_ID by default.",
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help=f"For another library: {', '.join(format_names())}."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            "--push", metavar="REPO_ID", help="Send it to this repository of the hub, with the token in HF_TOKEN."
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


def convert(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A saved adapter.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help=f"The library's: {', '.join(format_names())}.")],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where to; a new or empty folder.")],
    as_json: Json = False,
) -> int:
    """Write a saved adapter in the format of another library, which answers there as it does here or is refused."""
    from orchestrator.cli.export import convert_folder

    return convert_folder(folder, to=to, out=out, as_json=as_json)


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


def measure(
    store: StoreArgument,
    length: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Word pieces of each text; 32 by default.")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=4096, metavar="N", help="Threads on a CPU; as many as torch takes by default."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    as_json: Json = False,
) -> int:
    """Measure what the models of a sweep cost when they answer: latency and texts a second, on this machine."""
    from orchestrator.cli.measure import measure_costs

    return measure_costs(store, length=length, num_threads=threads, device=device, as_json=as_json)
