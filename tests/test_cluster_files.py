"""Files for real clusters, read by the rules of what takes them; none is open to others or holds a secret."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.kubernetes_shapes import faults

ROOT = Path(__file__).parent.parent
CLUSTER = ROOT / "cluster"
MANIFESTS = ("rayjob.yaml", "raycluster.yaml", "mlflow.yaml")
CLOUDS = ("ray-up-aws.yaml", "ray-up-gcp.yaml")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
SECRET_NAMES = re.compile(r"(PASSWORD|SECRET_KEY|TOKEN|ACCESS_KEY|ACCESS_KEY_ID)$")


def read_all(name: str) -> list[Any]:
    return list(YAML(typ="safe", pure=True).load_all((CLUSTER / name).read_text(encoding="utf-8")))


def mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    """Every mapping in a value, at any depth."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from mappings(inner)


def pods() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in MANIFESTS:
        for found in mappings(read_all(name)):
            if "containers" in found:
                yield name, found


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_a_manifest_as_far_as_its_shape_goes(name: str) -> None:
    for manifest in read_all(name):
        assert faults(manifest) == []


def test_a_shape_that_is_not_taken_is_told_with_its_place() -> None:
    (manifest,) = read_all("raycluster.yaml")
    broken = copy.deepcopy(manifest)
    broken["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    broken["spec"]["workerGroupSpecs"][0]["template"]["spec"]["tolerations"][0]["effect"] = "Never"
    broken["spec"]["rayVersion"] = 2.6
    broken["spec"]["workerGroupSpecs"][0]["template"]["spec"]["volumes"] = {}
    group = "RayCluster.spec.workerGroupSpecs[0]"
    assert sorted(re.sub(r" .*", "", fault) for fault in faults(broken)) == [
        "RayCluster.spec.rayVersion",
        group,
        f"{group}.template.spec.tolerations[0].effect",
        f"{group}.template.spec.volumes",
    ]
    assert faults({"apiVersion": "v1", "kind": "Secret"})


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    for name, pod in pods():
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }, name


def test_ray_on_kubernetes_demands_a_token_scales_down_and_bears_spot_nodes() -> None:
    (cluster,), (job,) = read_all("raycluster.yaml"), read_all("rayjob.yaml")
    assert cluster["spec"] == job["spec"]["rayClusterSpec"]  # one cluster, in two files
    spec = cluster["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"] is True
    (workers,) = spec["workerGroupSpecs"]
    assert workers["minReplicas"] == 0 < workers["replicas"] <= workers["maxReplicas"]
    tolerated = {toleration["key"] for toleration in workers["template"]["spec"]["tolerations"]}
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= tolerated


def test_secrets_come_from_secret_objects_or_the_environment() -> None:
    for name, pod in pods():
        for container in pod["containers"]:
            for variable in container.get("env", ()):
                if SECRET_NAMES.search(variable["name"]):
                    assert "secretKeyRef" in variable["valueFrom"], (name, variable)
    for service in read_all("compose.yaml")[0]["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET_NAMES.search(name):
                assert re.fullmatch(r"\$\{[A-Z0-9_]+:\?.+\}", value), name
    for path in CLUSTER.iterdir():
        assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", path.read_text(encoding="utf-8")), path
    assert all(line.endswith("=") for line in _settings(CLUSTER / "compose.env.example"))


def _settings(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]


def test_the_users_of_mlflow_are_the_same_in_both_files_and_may_do_nothing_by_default() -> None:
    ours = _settings(CLUSTER / "mlflow-auth.ini")
    (config,) = [manifest for manifest in read_all("mlflow.yaml") if manifest["kind"] == "ConfigMap"]
    assert config["data"]["auth.ini"].splitlines() == ours
    assert "default_permission = NO_PERMISSIONS" in ours
    assert not any("password" in line for line in ours)


@pytest.mark.parametrize("name", CLOUDS)
def test_rays_launcher_takes_the_files_for_clouds(name: str) -> None:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    (config,) = read_all(name)
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    assert max(kind.get("max_workers", 0) for kind in config["available_node_types"].values()) <= config["max_workers"]
    node = config["available_node_types"]["gpu_spot"]["node_config"]
    assert (node.get("InstanceMarketOptions") or node["scheduling"][0]) in (
        {"MarketType": "spot", "SpotOptions": {"SpotInstanceType": "one-time"}},
        {
            "provisioningModel": "SPOT",
            "instanceTerminationAction": "DELETE",
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
        },
    )
    (token,) = [path for path in config["file_mounts"] if "token" in path]
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        (start,) = [command for command in commands if "ray start" in command]
        settings = f"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH={token.replace('~', '$HOME')}"
        assert settings in start.partition("ray start")[0]
    assert any("--dashboard-host=127.0.0.1" in command for command in config["head_start_ray_commands"])


def test_compose_takes_its_file_and_every_door_is_closed() -> None:
    from compose_spec import PyCompose

    (config,) = read_all("compose.yaml")
    parsed = PyCompose.from_json(json.dumps(config))
    assert sorted(parsed.service_names()) == ["bucket", "head", "mlflow", "postgres", "s3", "worker"]
    with pytest.raises(ValueError, match="prots"):
        PyCompose.from_json(json.dumps({**config, "services": {"a": {"image": "b", "prots": ["1:1"]}}}))
    for name, service in config["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert re.search(r":[\w.-]*\d", service["image"]), name  # a version, never `latest`
        for needed in service.get("depends_on", {}):
            assert needed in config["services"]
    for name in ("head", "worker"):
        environment = config["services"][name]["environment"]
        assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", "/run/secrets/ray-token")
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", (CLUSTER / "compose.yaml").read_text(encoding="utf-8")))
    asked |= {secret["environment"] for secret in config["secrets"].values()}
    assert asked == {line.rstrip("=") for line in _settings(CLUSTER / "compose.env.example")}


def test_images_are_those_of_this_version() -> None:
    texts = [path.read_text(encoding="utf-8") for path in CLUSTER.iterdir()]
    tags = {tag for text in texts for tag in re.findall(r"(?:/|\s)adaptune:(\S+)", text)}
    assert tags == {VERSION, f"{VERSION}-cuda"}


def test_hadolint_and_shellcheck_find_nothing() -> None:
    programs = Path(sys.executable).parent
    scripts = [path for path in CLUSTER.iterdir() if path.read_text(encoding="utf-8").startswith("#!")]
    assert len(scripts) == 2
    for command in ([programs / "hadolint", CLUSTER / "Dockerfile"], [programs / "shellcheck", *scripts]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_runs_as_nobody_in_particular_and_wants_a_token() -> None:
    lines = (CLUSTER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]
    assert [line.split()[-1] for line in lines if line.startswith("FROM ")] == ["cpu", "cuda"]
    assert re.fullmatch(r"FROM python:\d+\.\d+\.\d+-slim-\w+ AS cpu", next(line for line in lines if "FROM" in line))
    assert any("RAY_AUTH_MODE=token" in line for line in lines)


class Slurm:
    """A Slurm of shell scripts, in which `srun` runs its command here."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        self.calls = folder / "calls"
        self.calls.touch()
        self.program("srun", 'echo "srun $*" >>"$CALLS"; while [[ $1 == --* ]]; do shift; done; exec "$@"')
        self.program("scontrol", 'echo "scontrol $*" >>"$CALLS"')
        self.program("hostname", "echo 127.0.0.1")
        # A node stays until it is ended; its step has the token's path.
        self.program(
            "ray",
            'echo "ray $* $RAY_AUTH_MODE $(wc -c <"$RAY_AUTH_TOKEN_PATH") $(stat -c %a "$RAY_AUTH_TOKEN_PATH")"'
            ' >>"$CALLS"; [[ $1 == health-check ]] || exec sleep 100',
        )
        (self.bin / "python").symlink_to(sys.executable)

    def program(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "CALLS": str(self.calls),
            "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_CPUS_PER_TASK": "3",
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", CLUSTER / "slurm.sbatch", *arguments], env=environment, text=True, stderr=subprocess.PIPE
        )

    def said(self) -> str:
        return self.calls.read_text(encoding="utf-8")


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_slurm_job_ends_as_its_sweep_does_and_leaves_nothing(slurm: Slurm, status: int) -> None:
    both = 'until [[ $(grep -c "^ray start" "$CALLS") == 2 ]]; do sleep 0.05; done'
    slurm.program("adaptune", f'echo "adaptune $*" >>"$CALLS"; {both}; exit {status}')
    job = slurm.start("mine.yaml", "--set", "seeds=[0, 1]")
    _, errors = job.communicate(timeout=100)
    assert job.returncode == status, errors
    said = slurm.said()
    assert "adaptune run mine.yaml --set seeds=[0, 1] --address 127.0.0.1:20077" in said
    assert "ray start --block --head --node-ip-address=127.0.0.1 --port=20077 --num-cpus=3" in said
    assert "ray start --block --address=127.0.0.1:20077 --num-cpus=3" in said
    assert said.count(" token 64 600") >= 3
    assert "scontrol" not in said
    assert list((slurm.folder / ".adaptune-slurm").iterdir()) == []


@pytest.mark.timeout(120)
def test_a_slurm_job_that_is_pre_empted_ends_in_order_and_is_queued_again(slurm: Slurm) -> None:
    slurm.program(
        "adaptune",
        'echo "adaptune is at work" >>"$CALLS"; trap "echo ended in order >>$CALLS; exit 143" TERM\n'
        "while :; do sleep 0.1; done",
    )
    job = slurm.start("mine.yaml")
    while "at work" not in slurm.said():
        assert job.poll() is None
        time.sleep(0.05)
    job.terminate()
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 143, errors
    assert "ended in order" in slurm.said()
    assert "scontrol requeue 77" in slurm.said()
