"""A Ray of this machine without the processes that a sweep has no use for.

By itself `ray.init` starts, beside what schedules and stores, a dashboard's server even where none is asked for, an
autoscaler, and a process that reads all log files to print them; and the agent of each node loads a web server.
Together they are two seconds of a core before anything trains, and Ray has no options for them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray._private import node as ray_node
from ray._private import services as ray_services
from ray._private import utils as ray_utils


@contextmanager
def bare_ray() -> Iterator[None]:
    """Whoever starts a Ray here meanwhile gets one that schedules, stores, and does nothing else.

    What another version of Ray does not have is left as it is.
    """
    changes = (
        (ray_services, "start_api_server", _no_dashboard),
        (ray_node.Node, "start_monitor", _nothing),
        (ray_node.Node, "start_log_monitor", _nothing),
        # Asked for what the dashboard lacks, and nothing else: without it agents load no web server.
        (ray_utils, "get_dashboard_dependency_error", _lacking),
    )
    with contextlib.ExitStack() as changed:
        for owner, name, instead in changes:
            if hasattr(owner, name):
                changed.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, instead)
        yield


def _no_dashboard(*arguments: Any, **options: Any) -> tuple[str, None]:
    """No address, and no process."""
    return "", None


def _nothing(node: ray_node.Node) -> None: ...


def _lacking() -> ImportError:
    return ImportError("a sweep has no use for a dashboard")
