"""Files for real clusters, read by the rules of what takes them; none is open to others or holds a secret."""

from __future__ import annotations

import ast
import copy
import importlib.util
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


def source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


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


def test_heads_of_clusters_whose_gpus_come_and_go_train_nothing_while_none_is_up() -> None:
    (cluster,) = read_all("raycluster.yaml")
    assert cluster["spec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for name in ("ray-up-aws.yaml", "ray-up-gcp.yaml"):
        (config,) = read_all(name)
        assert config["available_node_types"][config["head_node_type"]]["resources"]["CPU"] == 0, name
        (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
        assert "--num-cpus=0" in start, name


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


def test_no_metrics_of_ray_are_open_on_kubernetes() -> None:
    """By the variables that this Ray reads; the autoscaler, beside the head, has those of its options alone."""
    (cluster,) = read_all("raycluster.yaml")
    spec = cluster["spec"]
    sidecar = {variable["name"]: variable["value"] for variable in spec["autoscalerOptions"]["env"]}
    assert sidecar == {_port_variable("ray.autoscaler._private.constants"): "-1"}
    assert spec["autoscalerOptions"]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        given = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert given[_port_variable("ray.dashboard.consts")] == "-1"
        assert given["RAY_enable_metrics_collection"] == "0"


def _port_variable(module: str) -> str:
    """The variable by which a module of Ray is told the port of its metrics."""
    (name,) = re.findall(r'_METRIC_PORT = env_integer\("(\w+)"', source_of(module))
    return str(name)


def test_whoever_needs_the_bucket_may_reach_it_without_keys() -> None:
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES

    region = BOTOCORE_DEFAUT_SESSION_VARIABLES["region"][1]
    reaching = [(name, pod) for name, pod in pods() if "adaptune" in pod["containers"][0]["image"]]
    assert len(reaching) == 5  # heads, workers, MLflow
    for name, pod in reaching:
        assert pod["serviceAccountName"] == "adaptune", name
        (container,) = pod["containers"]
        assert region in {variable["name"] for variable in container["env"]}, name
        # The autoscaler beside the head speaks to Kubernetes, and nobody else does.
        assert pod.get("automountServiceAccountToken", True) is (container["name"] == "ray-head"), name


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_a_manifest_asks_to_be_set_is_in_it(name: str) -> None:
    lines = (CLUSTER / name).read_text(encoding="utf-8").splitlines()
    head = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    body = "\n".join(line.partition("#")[0] for line in lines)
    (asked,) = re.findall(r"Before `kubectl apply -f`: set ([^.]+)\.", head)
    for word, place in (("image", "YOUR-REGISTRY"), ("bucket", "YOUR-BUCKET"), ("region", "AWS_DEFAULT_REGION")):
        assert (word in asked) is (place in body), word


def test_a_sweep_that_has_failed_or_used_up_its_budget_is_not_started_again() -> None:
    (job,) = read_all("rayjob.yaml")
    assert job["spec"]["backoffLimit"] == 0


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


@pytest.mark.parametrize("name", CLOUDS)
def test_a_machine_of_a_cloud_installs_nothing_over_the_image(name: str) -> None:
    """Ray fills in commands of its own, by the provider, where a file has none."""
    from ray.autoscaler._private.util import prepare_config

    (written,) = read_all(name)
    config = prepare_config(copy.deepcopy(written))
    commands = [config[f"{kind}setup_commands"] for kind in ("", "head_", "worker_")]
    assert commands == [[], [], []]


@pytest.mark.parametrize("name", CLOUDS)
def test_the_image_has_what_rays_provider_of_machines_imports(name: str) -> None:
    (config,) = read_all(name)
    provider = f"ray.autoscaler._private.{config['provider']['type']}"
    imported = {module for part in ("node_provider", "config") for module in _imports(source_of(f"{provider}.{part}"))}
    foreign = imported - set(sys.stdlib_module_names) - {"ray", "packaging"}  # which Ray itself requires
    assert foreign
    pinned = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for module in foreign:
        assert BROUGHT_BY[module] in _installed_in_the_image(), module
        assert f"\n{BROUGHT_BY[module]}==" in pinned


# Which requirement of ours brings the modules that Ray's providers import.
BROUGHT_BY = {
    "boto3": "boto3",
    "botocore": "boto3",
    "google": "google-api-python-client",
    "google_auth_httplib2": "google-api-python-client",
    "googleapiclient": "google-api-python-client",
    "httplib2": "google-api-python-client",
}


def _imports(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}
    return {name.partition(".")[0] for name in names}


def _installed_in_the_image() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'pip install .*"\.\[([\w,]+)\]"', (CLUSTER / "Dockerfile").read_text(encoding="utf-8"))
    wanted = [requirement for extra in extras.split(",") for requirement in project["optional-dependencies"][extra]]
    return {re.split(r"[^\w-]", requirement)[0] for requirement in wanted}


def test_machines_on_google_cloud_have_a_disk_that_theirs_takes_and_a_driver_before_the_container_starts() -> None:
    (config,) = read_all("ray-up-gcp.yaml")
    for kind in config["available_node_types"].values():
        (disk,) = kind["node_config"]["disks"]
        zone = config["provider"]["availability_zone"]
        assert disk["initializeParams"]["diskType"] == f"zones/{zone}/diskTypes/pd-balanced"
    workers = config["available_node_types"]["gpu_spot"]
    assert {"key": "install-nvidia-driver", "value": "True"} in workers["node_config"]["metadata"]["items"]
    assert workers["initialization_commands"][0] == config["initialization_commands"][0]
    assert "nvidia-smi" in workers["initialization_commands"][1]


def test_a_machine_whose_user_could_not_lend_the_image_its_token_says_so() -> None:
    (config,) = read_all("ray-up-gcp.yaml")
    (check,) = config["initialization_commands"]
    (number,) = re.findall(r"^ARG USER_ID=(\d+)$", (CLUSTER / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for user, passes in ((number, True), ("1234", False)):
        done = subprocess.run(
            ["bash", "-c", f"id() {{ echo {user}; }}; ({check})"], capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is passes
        assert ("--build-arg USER_ID=1234" in done.stderr) is not passes


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
    assert [line for line in lines if line.startswith("USER ")] == ["USER $USER_ID"]
    assert "ARG USER_ID=1000" in lines
    assert [line.split()[-1] for line in lines if line.startswith("FROM ")] == ["cpu", "cuda"]
    assert re.fullmatch(r"FROM python:\d+\.\d+\.\d+-slim-\w+ AS cpu", next(line for line in lines if "FROM" in line))
    assert any("RAY_AUTH_MODE=token" in line for line in lines)


def test_the_image_has_the_programs_that_rays_launcher_calls() -> None:
    source = source_of("ray.autoscaler._private.command_runner")
    called = set(re.findall(r'(?:command|ssh) = \["(\w+)"', source)) - {"scp"}  # on Windows alone
    called |= set(re.findall(r'"(\w+) -e \'\{.*\} exec -i\'', source))  # on the machine, and so in the container too
    assert called == {"rsync", "ssh"}
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    (packages,) = re.findall(r"apt-get install (.*?) \\\n", text)
    assert {{"ssh": "openssh-client"}.get(program, program) for program in called} <= set(packages.split())


@pytest.mark.parametrize("name", CLOUDS)
def test_what_rays_launcher_mounts_lies_in_the_home_of_the_images_user(name: str) -> None:
    """Ray takes the home from the image's variables, and Docker gives root what folders it has to make for a mount."""
    from ray.autoscaler._private.docker import docker_start_cmds

    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"useradd --create-home .* (\w+) ", text)
    (home,) = re.findall(r"^ENV .*\bHOME=(\S+)", text, re.MULTILINE)
    assert home == f"/home/{user}"
    (config,) = read_all(name)
    mounts = {remote: remote for remote in config["file_mounts"]}
    start = docker_start_cmds("ubuntu", "image", mounts, "adaptune", [], "adaptune", home, "docker")
    mounted = [Path(target) for target in re.findall(r"-v \S+:(\S+)", start)]
    assert mounted == [Path(home, ".ray/adaptune-token")]
    owned = f"install --directory --owner={user} --group={user} --mode=700 "
    assert {f"{owned}{path.parent}" in text for path in mounted} == {True}


class Slurm:
    """A Slurm of shell scripts, in which `srun` runs its command here, and a Ray whose nodes are those that started.

    `srun` refuses what Slurm does not know, and a step that would get one core because it names none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        self.calls = folder / "calls"
        self.calls.touch()
        self.program(
            "srun",
            'echo "srun $*" >>"$CALLS"; cores=1\n'
            "while [[ $1 == --* ]]; do\n"
            "    case $1 in\n"
            "        --cpus-per-task=*) cores=${1#*=} ;;\n"
            "        --nodes=* | --ntasks=* | --nodelist=* | --exclude=* | --exact | --kill-on-bad-exit=*) ;;\n"
            '        *) echo "srun: unrecognized option $1" >&2; exit 1 ;;\n'
            "    esac\n"
            "    shift\n"
            "done\n"
            '[[ $cores == "$SLURM_CPUS_PER_TASK" ]] || { echo "srun: a step of $cores cores" >&2; exit 1; }\n'
            'exec "$@"',
        )
        self.program("scontrol", 'echo "scontrol $*" >>"$CALLS"')
        # As Debian has it: the name stands for loopback, and other addresses come in any order.
        self.program(
            "hostname",
            'case $1 in --ip-address) echo 127.0.1.1 ;; --all-ip-addresses) echo "fe80::1 10.1.2.3 172.17.0.1" ;;'
            " *) echo first ;; esac",
        )
        # A node stays until it is ended; its step has the token's path.
        self.program(
            "ray",
            'echo "ray $* $RAY_AUTH_MODE $(wc -c <"$RAY_AUTH_TOKEN_PATH") $(stat -c %a "$RAY_AUTH_TOKEN_PATH")"'
            ' >>"$CALLS"; [[ $1 == health-check ]] || exec sleep 100',
        )
        (self.bin / "python").symlink_to(sys.executable)
        (folder / "modules").mkdir()
        (folder / "modules" / "ray.py").write_text(
            "import os, pathlib\n"
            "def init(address, *, logging_level, log_to_driver):\n"
            "    pass\n"
            "def nodes():\n"
            "    calls = pathlib.Path(os.environ['CALLS']).read_text().splitlines()\n"
            "    return [{'Alive': True} for call in calls if call.startswith('ray start')]\n",
            encoding="utf-8",
        )

    def program(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        (self.bin / name).chmod(0o755)

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(self.folder), "CALLS": str(self.calls),
            "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "2", "SLURM_SUBMIT_DIR": str(self.folder),
            "SLURM_CPUS_PER_TASK": "3", "PYTHONPATH": str(self.folder / "modules"), **variables,
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
    slurm.program("adaptune", f'echo "adaptune $*" >>"$CALLS"; exit {status}')
    job = slurm.start("mine.yaml", "--set", "seeds=[0, 1]")
    _, errors = job.communicate(timeout=100)
    assert job.returncode == status, errors
    said = slurm.said()
    assert "adaptune run mine.yaml --set seeds=[0, 1] --address 10.1.2.3:20077" in said
    assert "ray start --block --head --node-ip-address=10.1.2.3 --port=20077 --num-cpus=3" in said
    assert "ray start --block --address=10.1.2.3:20077 --num-cpus=3" in said
    assert said.index("adaptune run") > said.rindex("ray start")  # once all nodes are there
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


# A worker's step ends where it should have stayed.
HEAD_ALONE = '[[ $1 == health-check || $* != *--head* ]] || { echo "ray start" >>"$CALLS"; exec sleep 100; }'


@pytest.mark.timeout(120)
def test_a_slurm_job_whose_nodes_do_not_all_join_says_so_and_trains_nothing(slurm: Slurm) -> None:
    slurm.program("ray", HEAD_ALONE)
    slurm.program("adaptune", 'echo "adaptune $*" >>"$CALLS"')
    job = slurm.start("mine.yaml", NODES_WITHIN_S="0")
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 2, errors
    assert "1 of 2 nodes joined the Ray at 10.1.2.3:20077 within 0 s" in errors
    assert "adaptune run" not in slurm.said()


@pytest.mark.timeout(120)
def test_a_slurm_job_whose_head_does_not_come_up_ends_at_once(slurm: Slurm) -> None:
    slurm.program("ray", "echo a reason >&2; exit 1")
    job = slurm.start("mine.yaml")
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 2, errors
    assert errors.index("a reason") < errors.index("no Ray came up at 10.1.2.3:20077; why stands above")


@pytest.mark.timeout(120)
def test_a_slurm_job_that_is_to_end_while_it_waits_for_nodes_is_queued_again(slurm: Slurm) -> None:
    slurm.program("ray", HEAD_ALONE)
    job = slurm.start("mine.yaml")
    while "--exclude=first" not in slurm.said():
        assert job.poll() is None
        time.sleep(0.05)
    time.sleep(1)  # until it waits
    job.terminate()
    _, errors = job.communicate(timeout=100)
    assert job.returncode == 143, errors
    assert "scontrol requeue 77" in slurm.said()


def test_what_the_slurm_job_asks_of_ray_is_what_ray_takes() -> None:
    import inspect

    import ray

    assert {"address", "logging_level", "log_to_driver"} <= set(inspect.signature(ray.init).parameters)
