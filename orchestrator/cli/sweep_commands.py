"""What is declared and trained: tasks, sweeps and sequences."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import (
    MOST_MONEY,
    SWEEP_FILE,
    Address,
    Json,
    MaxCost,
    MaxFailures,
    MaxHours,
    OnlyDriver,
    Overrides,
    Price,
    StoreArgument,
    StoreOption,
    Sweep,
    SweepName,
    TakeOver,
    TrackingUri,
)


def plan(
    sweep: Sweep,
    set_: Overrides = None,
    store: StoreOption = None,
    devices: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Devices (GPUs, or cores) to plan for; this machine's by default."),
    ] = None,
    price: Annotated[
        float | None, typer.Option(min=0, max=MOST_MONEY, help="Price of one device for one hour.")
    ] = None,
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


def simulate(
    sweep: Annotated[
        str,
        typer.Argument(
            metavar="SWEEP_OR_STORE",
            help=f"A {SWEEP_FILE} sweep, or a packaged one, timed by arithmetic or --from; or a store, timed by its "
            "records.",
        ),
    ],
    nodes: Annotated[str, typer.Option(metavar="N,N,...", help="Numbers of nodes to compare.")] = "1,10,100,1000",
    gpus_per_node: Annotated[
        int | None, typer.Option(min=0, max=1_000, help="GPUs of each node; 1 by default, where the times are a GPU's.")
    ] = None,
    cpus_per_node: Annotated[
        int | None,
        typer.Option(min=1, max=1_000, help="Cores of each node without a GPU, an engine each; 1 by default."),
    ] = None,
    from_: Annotated[
        list[str] | None, typer.Option("--from", metavar="STORE", help="Earlier sweep whose speeds to use. Repeatable.")
    ] = None,
    failures_per_hour: Annotated[
        float, typer.Option(min=0, max=3_600, help="How often one node fails in an hour; its trials begin anew.")
    ] = 0.0,
    replacement_minutes: Annotated[
        float,
        typer.Option(min=0, max=1_000_000, help="Minutes until another node stands in the place of one that failed."),
    ] = 5.0,
    price: Annotated[
        float | None, typer.Option(min=0, max=MOST_MONEY, help="Price of one device for one hour.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of failures, and of which trials early stopping ends.")] = 0,
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
    only_driver: OnlyDriver = False,
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
        only_driver=only_driver,
        as_json=as_json,
    )


def resume(
    store: StoreArgument,
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="SWEEP", help=f"A larger {SWEEP_FILE} sweep: what is new is trained too."),
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
    only_driver: OnlyDriver = False,
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
        only_driver=only_driver,
        as_json=as_json,
    )


def data(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Task folders, or tasks by name such as toy/sentiment.")
    ],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="The backbone whose word pieces are counted; minilm by default.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(min=3, metavar="N", help="Word pieces that a text is cut to; 128 by default.")
    ] = None,
    silence: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Count this warning but do not show it. Repeatable.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the suggested task.json; what an existing one says stays.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show what task folders hold, how their files were read and what is odd in them."""
    from orchestrator.cli.data import show_data

    return show_data(
        paths, backbone=backbone, max_length=max_length, silence=silence or (), write=write, as_json=as_json
    )


def sequence(
    tasks: Annotated[
        list[str],
        typer.Argument(metavar="TASK|FILE", help=f"Tasks in their order; or one {SWEEP_FILE} file."),
    ],
    methods: Annotated[
        str | None, typer.Option(metavar="METHOD,...", help="Methods to train; adapter,full_finetuning by default.")
    ] = None,
    sequential: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD,...",
            help="Methods that are one model, trained on task after task; full_finetuning and top_layers by default.",
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="The encoder; minilm by default.")] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over each task's training rows; 3 by default.")
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            "--learning-rate", metavar="RATE", help="For all methods, or METHOD=RATE,METHOD=RATE; 3e-4 by default."
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N", help="So many seeds, from 0; or a list, such as 0,7; 3 by default.")
    ] = None,
    shuffle: Annotated[bool, typer.Option("--shuffle", help="Give every seed an order of tasks of its own.")] = False,
    max_train_rows: Annotated[
        int | None,
        typer.Option("--max-train-rows", metavar="N", help="Training rows used of each task; all by default."),
    ] = None,
    max_evaluation_rows: Annotated[
        int | None,
        typer.Option("--max-evaluation-rows", metavar="N", help="Rows used of each other split; all by default."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The sequence's name; `sequence` by default.")] = None,
    set_: Overrides = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="FOLDER", help="Where all is kept; ./sweeps/NAME by default.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; the first GPU by default.")] = None,
    take_over: TakeOver = False,
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
    return show_sequence(values, store=store, device=device, take_over=take_over, as_json=as_json)
