"""`adaptune ui`: hand over to a service and stay with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from orchestrator.cli.screen import console
from orchestrator.secrets import masked


def serve_ui(*, port: int | None, tracking_uri: str | None) -> int:
    """Serve MLflow's pages on the loopback interface until Ctrl-C."""
    from orchestrator.tracking import database_file, given_tracking_uri, ui_command, ui_environment

    uri = given_tracking_uri(tracking_uri)
    command = ui_command(uri, port)
    chosen = command[command.index("--port") + 1]
    console().print(
        f"MLflow UI for {masked(uri)}\nOpen http://127.0.0.1:{chosen} and stop with Ctrl-C.\n"
        "If it shows GenAI, choose Model training at the top left: the runs of sweeps are there.",
        soft_wrap=True,
    )
    file = database_file(uri)
    if file is not None and not file.exists():
        console().print(
            "Nothing is recorded there yet. Runs of sweeps that were run in another folder are shown from that folder, "
            "or with --tracking-uri.",
            soft_wrap=True,
        )
    # In a session of its own, so that whatever it starts can be ended with it: a terminal that is closed does not.
    server = subprocess.Popen(command, env={**os.environ, **ui_environment(uri)}, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait()
