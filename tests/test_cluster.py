"""The cluster definitions are what the programs that read them accept, as far as that shows without a cluster."""

import copy
import subprocess
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

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
def test_a_yaml_file_can_be_read_and_holds_a_mapping(path):
    assert isinstance(read(path), dict)


def test_rays_cluster_launcher_accepts_the_ray_up_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(copy.deepcopy(read(CLUSTER / "ray-up.yaml")))
    validate_config(config)
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


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
    assert {container["image"].partition(":")[2] for container in containers} == {version}
    assert [int(container["resources"]["limits"].get("nvidia.com/gpu", 0)) for container in containers] == [0, 1]


def test_every_path_the_dockerfile_copies_is_let_through_to_the_build():
    allowed = {line[1:] for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copies = [line.split()[1:-1] for line in (CLUSTER / "Dockerfile").read_text().splitlines() if line[:5] == "COPY "]
    assert {source for sources in copies for source in sources} == allowed


def test_the_two_node_script_is_sound_bash_and_refuses_what_it_does_not_know(tmp_path):
    script = CLUSTER / "local-two-nodes.sh"
    subprocess.run(["bash", "-n", script], check=True)
    environment = {"PATH": "/usr/bin:/bin", "STATE": str(tmp_path / "none")}
    for word, answer in [("restart", "usage:"), ("stop", "nothing to stop")]:
        answered = subprocess.run([script, word], env=environment, capture_output=True, text=True, check=False)
        assert answered.returncode == 1
        assert answer in answered.stderr
