"""Options and arguments that several commands have: what each is called, and what its help says."""

from __future__ import annotations

from typing import Annotated

import typer

SWEEP_FILE = ".py (it is executed), .yaml or .json"  # said wherever a file that declares something is taken
Sweep = Annotated[str, typer.Argument(metavar="SWEEP", help=f"A {SWEEP_FILE} sweep, or a packaged one by its name.")]
StoreArgument = Annotated[str, typer.Argument(metavar="STORE", help="Folder or URI of a sweep's store.")]
StoreOption = Annotated[
    str | None, typer.Option("--store", metavar="URI", help="Where records go; ./sweeps/NAME by default.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a value: seeds=[0], num_epochs=1, methods.adapter.adapter_size=8. Repeatable.",
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
OnlyDriver = Annotated[
    bool,
    typer.Option(
        "--only-driver",
        help="Vouch that nothing else runs on this store, where it cannot keep a second driver out: gs://, abfs://, "
        "hdfs://, s3:// without boto3.",
    ),
]
SweepName = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME", help="Name of one sweep, where several share the store.")
]
MOST_MONEY = 1e9  # of one device for an hour, in any currency; beyond it sums could be no numbers
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
        "--max-cost", metavar="AMOUNT", help="End in order when the devices have cost so much; needs --price."
    ),
]
Price = Annotated[
    float | None,
    typer.Option(
        "--price", metavar="AMOUNT", help="Price of one GPU, or of one core where there is none, for one hour."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on standard output.")]
