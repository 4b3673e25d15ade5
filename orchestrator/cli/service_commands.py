"""Servers, the jobs of a cluster, and this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import (
    Address,
    Job,
    JobServerAddress,
    Json,
    MaxCost,
    MaxFailures,
    MaxHours,
    OnlyDriver,
    Overrides,
    Price,
    StoreOption,
    Sweep,
    TakeOver,
    TrackingUri,
)


def ui(
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port on 127.0.0.1; a free one by default.")
    ] = None,
    tracking_uri: TrackingUri = None,
) -> int:
    """Serve the MLflow UI on 127.0.0.1 until Ctrl-C."""
    from orchestrator.cli.services import serve_ui

    return serve_ui(port=port, tracking_uri=tracking_uri)


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
    method: Annotated[str | None, typer.Option(help="With --store: serve the best trials of this method.")] = None,
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="The adapters' backbone; found by its name by default.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen at; one that others reach needs --token-env.")
    ] = "127.0.0.1",
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
    only_driver: OnlyDriver = False,
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
        only_driver=only_driver,
        detach=detach,
        as_json=as_json,
    )


def jobs(address: JobServerAddress = None, as_json: Json = False) -> int:
    """List the sweeps that were submitted to a cluster: status, trials done, where their records are."""
    from orchestrator.cli.jobs import list_jobs

    return list_jobs(address=address, as_json=as_json)


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


def stop(job: Job, address: JobServerAddress = None, as_json: Json = False) -> int:
    """End a submitted sweep in order: running trials end with their epoch, and what is finished is recorded."""
    from orchestrator.cli.jobs import stop_job

    return stop_job(job, address=address, as_json=as_json)


def doctor(address: Address = None, tracking_uri: TrackingUri = None, as_json: Json = False) -> int:
    """Check package versions, devices, memory, disk, cluster, MLflow and write access."""
    from orchestrator.cli.doctor import examine

    return examine(address=address, tracking_uri=tracking_uri, as_json=as_json)
