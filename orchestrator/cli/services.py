"""`adaptune ui` and `adaptune submit`: hand over to a service and stay with it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from orchestrator.cli.app import console
from orchestrator.sweep import with_absolute_paths
from orchestrator.sweep_file import read_sweep


def serve_ui(*, port: int | None, tracking_uri: str | None) -> int:
    """Serve MLflow's pages on the loopback interface until Ctrl-C."""
    from orchestrator.tracking import default_tracking_uri, ui_command

    uri = tracking_uri or default_tracking_uri()
    command = ui_command(uri, port)
    chosen = command[command.index("--port") + 1]
    console().print(f"MLflow over {uri}\nOpen http://127.0.0.1:{chosen} and stop with Ctrl-C.", soft_wrap=True)
    server = subprocess.Popen(command)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0


def submit_sweep(
    sweep: str, overrides: Sequence[str], *, address: str, store: str | None, tracking_uri: str | None
) -> int:
    """Check the sweep here, then send it to the cluster and show its log."""
    from orchestrator.plan import plan_sweep
    from orchestrator.scheduling.submit import submit_job

    # Whether the hub's data and weights can be had is for the cluster to say, not for this machine.
    plan = plan_sweep(with_absolute_paths(read_sweep(sweep, overrides)), allow_missing=True)
    screen = console()
    return submit_job(
        plan,
        address,
        store=store,
        tracking_uri=tracking_uri,
        show=lambda text: screen.print(text, end="", markup=False, soft_wrap=True),
    )
