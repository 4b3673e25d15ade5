"""The cluster definitions are what the programs that read them accept, as far as that shows without a cluster."""

import copy
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.listening import listeners

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"


def read(path: Path):
    return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def constraints():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.partition(" ;")[0].split("==") for line in lines if "==" in line and not line.startswith("#"))


@pytest.mark.parametrize(
    "path", [*CLUSTER.glob("*.yaml"), ROOT / ".pre-commit-config.yaml"], ids=lambda path: path.name
)
def test_a_yaml_file_can_be_read_and_holds_mappings(path):
    assert all(
        isinstance(each, dict) for each in YAML(typ="safe", pure=True).load_all(path.read_text(encoding="utf-8"))
    )


def test_rays_cluster_launcher_accepts_the_ray_up_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(read(CLUSTER / "ray-up.yaml")))
    validate_config(config)
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_every_node_of_the_ray_up_file_demands_the_token_that_is_copied_to_it():
    config = read(CLUSTER / "ray-up.yaml")
    (token,) = [path for path in config["file_mounts"] if "token" in path]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        settings = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token.replace('~', '$HOME')}"
        assert settings in start.partition("ray start")[0]


@pytest.mark.ray
@pytest.mark.timeout(400)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_the_two_node_script_starts_a_cluster_on_loopback_that_wants_its_token(tmp_path):
    """By the token that the script prints, a process joins; without it, or with another, it does not."""
    state = f"/tmp/a2n-{tmp_path.name[-8:]}-{os.getpid()}"  # short: Ray's sockets lie in it
    script = [CLUSTER / "local-two-nodes.sh"]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    environment = {**plain, "STATE": state, "RAY": str(Path(sys.executable).with_name("ray"))}
    started = subprocess.run([*script, "start"], env=environment, capture_output=True, text=True, check=False)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        printed = dict(line.split(":", 1) for line in started.stdout.splitlines())
        settings = dict(pair.split("=") for pair in printed["first run"].split()[1:])
        assert Path(settings["RAY_AUTH_TOKEN_PATH"]).stat().st_mode & 0o077 == 0
        leaders = [int(Path(state, f"{name}.pid").read_text()) for name in ("head", "worker")]
        found = [listener for leader in leaders for listener in listeners(leader)]
        assert len(found) > 8
        assert [listener for listener in found if not listener.is_loopback] == []
        module = "from orchestrator.scheduling.cluster import describe_cluster"
        join = f"import sys; {module}; print(describe_cluster(sys.argv[1]))"
        address = printed["ray address"].split()[0]
        for token, is_let_in in ((settings, True), ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}, False)):
            joined = subprocess.run(
                [sys.executable, "-c", join, address],
                env={**plain, **token},
                capture_output=True,
                text=True,
                check=False,
            )
            assert ("2 nodes" in joined.stdout) is is_let_in, joined.stdout + joined.stderr
    finally:
        subprocess.run([*script, "stop"], env=environment, check=False)
    assert not Path(state).exists()


def test_the_rayjob_ends_its_cluster_and_names_the_pinned_ray(constraints):
    job = read(CLUSTER / "rayjob.yaml")["spec"]
    assert job["entrypoint"].startswith("adaptune run ")
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert job["rayClusterSpec"]["rayVersion"] == constraints["ray"]


def test_the_rayjob_trains_on_gpus_in_the_image_of_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    cluster = read(CLUSTER / "rayjob.yaml")["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [container for group in groups for container in group["template"]["spec"]["containers"]]
    assert [container["image"].partition(":")[2] for container in containers] == [version, f"{version}-cuda"]
    assert [int(container["resources"]["limits"].get("nvidia.com/gpu", 0)) for container in containers] == [0, 1]


def test_every_path_the_dockerfile_copies_is_let_through_to_the_build():
    allowed = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copies = [line.split()[1:-1] for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line[:5] == "COPY "]
    copied = {source for sources in copies for source in sources}
    assert copied == allowed
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert set(built["wheel"]["packages"]) <= copied


def test_the_two_node_script_is_sound_bash_and_refuses_what_it_does_not_know(tmp_path):
    script = CLUSTER / "local-two-nodes.sh"
    subprocess.run(["bash", "-n", script], check=True)
    environment = {"PATH": "/usr/bin:/bin", "STATE": str(tmp_path / "none")}
    for word, answer in [("restart", "usage:"), ("stop", "nothing to stop")]:
        answered = subprocess.run([script, word], env=environment, capture_output=True, text=True, check=False)
        assert answered.returncode == 1
        assert answer in answered.stderr
