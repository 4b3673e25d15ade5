"""What a closed Ray finds in its environment, and that all is as before when it has ended. No Ray is started here."""

from __future__ import annotations

import logging
import os

import pytest
import ray
from ray._private import services, worker
from ray._private.authentication.authentication_utils import is_token_auth_enabled

from orchestrator.scheduling import closed_ray as closed_ray_module
from orchestrator.scheduling.closed_ray import (
    closed_ray,
    loopback_kept,
    ray_told_to_the_log,
    started_patiently,
    warn_if_open,
)


def test_each_has_a_fresh_token_whatever_the_environment_says_of_other_clusters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/a/token/of/another/cluster"}
    for name, value in others.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    before, tokens = dict(os.environ), set()
    for _ in range(2):
        with closed_ray():
            tokens.add(os.environ["RAY_AUTH_TOKEN"])
            assert "RAY_AUTH_TOKEN_PATH" not in os.environ
            assert is_token_auth_enabled()
        assert dict(os.environ) == before
        assert not is_token_auth_enabled()
    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)


def test_a_loopback_address_is_taken_for_what_it_says_and_only_meanwhile() -> None:
    outside = services.resolve_ip_for_localhost("127.0.0.1")
    with loopback_kept():
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
        assert services.get_node_ip_address() == "127.0.0.1"
    assert services.resolve_ip_for_localhost("127.0.0.1") == outside


def test_a_node_that_starts_slowly_is_waited_for_and_one_that_never_comes_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def look(address: str, node: str) -> str:
        asked.append(node)
        if node == "never" or len(asked) < 3:
            raise RuntimeError("it is not known yet")
        return address

    monkeypatch.setattr(services, "get_node", look)
    monkeypatch.setattr(closed_ray_module, "NODE_START_S", 0.5)
    with started_patiently():
        assert services.get_node("here", "slow") == "here"
        assert len(asked) == 3
        with pytest.raises(RuntimeError):
            services.get_node("here", "never")
    assert services.get_node is look


def test_what_ray_says_of_its_processes_is_for_the_log_alone(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "orchestrator")
    before = worker.print_to_stdstream
    with ray_told_to_the_log():
        said = {"lines": ["Task EnginePool.release failed."], "pid": "raylet", "is_err": False}
        worker.print_to_stdstream(said, ignore_prefix=False)
    assert worker.print_to_stdstream is before
    assert capsys.readouterr() == ("", "")
    assert "EnginePool.release failed" in caplog.text


@pytest.mark.parametrize(("address", "is_told"), [("127.0.0.1", False), ("::1", False), ("192.0.2.7", True)])
def test_the_user_is_told_of_a_ray_that_listens_further(
    address: str, is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: address)
    told: list[str] = []
    warn_if_open(told.append)
    assert [address in line for line in told] == [True] * is_told
