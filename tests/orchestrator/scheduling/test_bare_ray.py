"""A Ray without what a sweep has no use for. None is started here; `test_closed` looks at one that is."""

from __future__ import annotations

import pytest
from ray._private import node, services, utils

from orchestrator.scheduling.bare_ray import bare_ray

CHANGED = (
    (services, "start_api_server"),
    (node.Node, "start_monitor"),
    (node.Node, "start_log_monitor"),
    (utils, "get_dashboard_dependency_error"),
)


def test_nothing_is_started_meanwhile_and_all_is_as_before_afterwards() -> None:
    before = [getattr(owner, name) for owner, name in CHANGED]
    with bare_ray():
        assert services.start_api_server(False, True, "127.0.0.1") == ("", None)
        assert node.Node.start_monitor(None) is None
        assert node.Node.start_log_monitor(None) is None
        assert isinstance(utils.get_dashboard_dependency_error(), ImportError)
    assert [getattr(owner, name) for owner, name in CHANGED] == before
    with pytest.raises(TimeoutError), bare_ray():
        raise TimeoutError("the node did not start")
    assert [getattr(owner, name) for owner, name in CHANGED] == before


def test_a_ray_that_has_other_parts_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(node.Node, "start_monitor")
    with bare_ray():
        assert not hasattr(node.Node, "start_monitor")
    assert not hasattr(node.Node, "start_monitor")
