"""The manifest of Ray's nodes and the script for Slurm, held against what can be known without either."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.infra.test_files import INFRA, ROOT, VERSION, built, cluster_version, ran, tool

RAY, POLICY = yaml.safe_load_all((INFRA / "kubernetes/ray/ray-cluster.yaml").read_text())
GROUPS: dict[str, Any] = {
    "head": RAY["spec"]["headGroupSpec"],
    **{group["groupName"]: group for group in RAY["spec"]["workerGroupSpecs"]},
}
SCRIPT = INFRA / "slurm/stage.sbatch"
# Stand in for Slurm's programs on two nodes with two tasks each.
SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames node[1-2]" ] && printf 'node1\\nnode2\\n'
"""
SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
export SLURM_NTASKS=4 "SLURM_TASKS_PER_NODE=2(x2)"
for id in 0 1 2 3; do SLURM_PROCID=$id SLURM_LOCALID=$((id % 2)) "$@" || exit; done
"""
TASK = """
import json, os, sys
names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT OMP_NUM_THREADS".split()
print(json.dumps([sys.argv[1:], {name: os.environ[name] for name in names}]))
"""


def test_rays_nodes_are_valid_pods(tmp_path: Path) -> None:
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name} | group["template"]["metadata"]}
        | {"spec": group["template"]["spec"]}
        for name, group in GROUPS.items()
    ]
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all([*pods, POLICY]))
    ran(tool("kubernetes-validate"), "--strict", "-k", cluster_version(), str(tmp_path / "pods.yaml"))


@pytest.mark.parametrize("name", GROUPS)
def test_a_node_of_ray_is_a_flow_run_that_waits(name: str) -> None:
    """It has the image, folders, user and limits of the job of a flow run."""
    job = json.loads((INFRA / "kubernetes/base/work-pool.json").read_text())
    flow_run = job["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    pod = GROUPS[name]["template"]["spec"]
    [node], [container] = pod["containers"], flow_run["containers"]
    assert node["image"] == job["variables"]["properties"]["image"]["default"]
    assert VERSION.fullmatch(node["image"])
    for key in ("workingDir", "securityContext", "volumeMounts"):
        assert node[key] == container[key]
    for key in ("serviceAccountName", "securityContext", "volumes"):
        assert pod[key] == flow_run[key]
    assert {"cpu", "memory"} <= node["resources"]["requests"].keys()
    assert "memory" in node["resources"]["limits"]
    assert {"livenessProbe", "readinessProbe", "startupProbe"} <= node.keys()
    [port] = node["ports"]
    assert str(port["containerPort"]) == GROUPS[name]["rayStartParams"]["node-manager-port"]
    assert node["livenessProbe"]["tcpSocket"]["port"] == port["name"]


def test_only_rays_nodes_reach_each_other_and_the_head_runs_no_process_of_a_stage() -> None:
    labels = {"app.kubernetes.io/name": "ray"}
    assert all(group["template"]["metadata"]["labels"].items() >= labels.items() for group in GROUPS.values())
    assert POLICY["spec"]["podSelector"] == {"matchLabels": labels}
    assert POLICY["spec"]["ingress"] == [{"from": [{"podSelector": {"matchLabels": labels}}]}]
    assert GROUPS["head"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in GROUPS["head"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert GROUPS["gpu"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_whatever_rays_nodes_refer_to_is_there_in_the_version_that_is_locked() -> None:
    named = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in built("production")}
    for group in GROUPS.values():
        pod = group["template"]["spec"]
        [node] = pod["containers"]
        wanted = {("ServiceAccount", pod["serviceAccountName"]), ("PersistentVolumeClaim", "project")}
        assert wanted <= named
        assert {source["configMapRef"]["name"] for source in node["envFrom"]} == {"cots"}
    assert f"\nray=={RAY['spec']['rayVersion']}\n" in (ROOT / "requirements.lock").read_text()


def test_slurm_starts_every_task_as_a_process_of_one_gang(tmp_path: Path) -> None:
    python = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
    for name, text in {"scontrol": SCONTROL, "srun": SRUN, "python": python}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "task.py").write_text(TASK)
    slurm = {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_ID": "4512345", "SLURM_CPUS_PER_TASK": "8"}
    own = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": f"{ROOT}:{tmp_path}", "COTS_PROCESSES": "4"}
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | own | slurm
    command = ["bash", str(SCRIPT), "task", "data/shards", "a folder"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    common = {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "22345"}
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        [["data/shards", "a folder"], {"RANK": str(rank), "LOCAL_RANK": str(rank % 2), "OMP_NUM_THREADS": "8"} | common]
        for rank in range(4)
    ]
