"""Dockerfiles, compose file, manifests and Terraform, held against what can be known without an engine."""

import functools
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cots.flows.local import deployments
from cots.flows.local.__main__ import up
from cots.service.app import ServiceSettings, create_app
from cots.service.middleware import OPEN_PATHS, RequestLimits
from cots.service.page import FILES

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DOCKERFILES = sorted((INFRA / "docker").glob("Dockerfile.*"))
OVERLAYS = ["staging", "production"]
VERSION = re.compile(r"[^:@]+:[^:@]*\d+\.\d+[^:@]*|[^:@]+:RELEASE\.\d{4}-[^:@]+|.+@sha256:[0-9a-f]{64}")
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
ONE_SHOT = {"owner", "bucket", "deployments"}


def tool(name: str) -> str:
    """The path of a program; skips where the machine lacks it."""
    beside = Path(sys.executable).parent / name
    program = str(beside) if beside.exists() else shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed here")
    return program


def ran(*command: str, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dockerfiles_have_no_finding() -> None:
    ran(tool("hadolint"), *map(str, DOCKERFILES))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_stands_on_a_version_runs_as_nobody_in_particular_and_takes_the_lock(path: Path) -> None:
    text = path.read_text()
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    named = {name for _, name in stages}
    assert all(VERSION.fullmatch(base) for base, _ in stages if base not in named)
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "10001:10001"
    assert "--constraint requirements.lock" in text
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)


def test_what_the_dockerfiles_copy_is_let_through_to_them() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    built_in = {"cots", "pyproject.toml", "requirements.lock", "README.md", "LICENSE", *wheel["force-include"]}
    assert allowed == {"pipelines", *built_in}
    for path in DOCKERFILES:
        copied = re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text(), re.MULTILINE)
        assert {name for line in copied for name in line.split()} == built_in
    assert all((ROOT / name).exists() for name in allowed)


def test_both_images_hold_the_same_versions_of_python_and_uv() -> None:
    texts = [path.read_text() for path in DOCKERFILES]
    for pattern in (r"FROM (python:\S+)", r"(uv==\S+)"):
        assert len({match for text in texts for match in re.findall(pattern, text)}) == 1


def test_the_compose_file_fits_the_specification() -> None:
    ran(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(INFRA / "compose.yaml"))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_pinned_and_fenced_in(name: str) -> None:
    service = SERVICES[name]
    assert VERSION.fullmatch(service["image"]), service["image"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert ("healthcheck" in service) or (service["build"]["target"] == "service")
    root = service["user"] in ("root", "0", "0:0")
    assert not root or (service["cap_add"] == ["CHOWN"] and service["network_mode"] == "none")
    assert (service["restart"] == "no") == (name in ONE_SHOT)


def test_no_secret_has_a_value_in_the_files() -> None:
    text = (INFRA / "compose.yaml").read_text()
    variables = set(re.findall(r"\$\{(\w+)[:}]", text))
    example = dict(line.split("=", 1) for line in (INFRA / ".env.example").read_text().splitlines() if "=" in line)
    assert variables == set(example)
    assert {name for name, value in example.items() if value} == {"PROJECT"}
    for name in variables - {"PROJECT"}:
        assert set(re.findall(rf"\$\{{{name}([^}}]*)\}}", text)) == {":?set it in infra/.env"}
    ignored = subprocess.run(["git", "check-ignore", "-q", "infra/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0


def test_both_databases_exist_under_the_names_that_are_used() -> None:
    made = set(re.findall(r"CREATE DATABASE (\w+);", (INFRA / "postgres/databases.sql").read_text()))
    assert (
        made == set(re.findall(r"@postgres:5432/(\w+)", (INFRA / "compose.yaml").read_text())) == {"mlflow", "prefect"}
    )


@functools.cache
def built(overlay: str) -> list[dict[str, Any]]:
    text = ran(tool("kubectl"), "kustomize", str(INFRA / "kubernetes/overlays" / overlay))
    return list(yaml.safe_load_all(text))


def pods(overlay: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in built(overlay):
        if manifest["kind"] == "Deployment":
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def cluster_version() -> str:
    match = re.search(
        r'"kubernetes_version" \{[^}]*default     = "([\d.]+)"', (INFRA / "terraform/variables.tf").read_text()
    )
    assert match
    return match[1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_manifests_of_an_overlay_are_valid_for_the_cluster(overlay: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(built(overlay)))
    ran(tool("kubernetes-validate"), "--strict", "-k", cluster_version(), str(tmp_path / "all.yaml"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_pinned_fenced_in_probed_and_limited(overlay: str) -> None:
    names = []
    for name, pod in pods(overlay):
        names.append(name)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert VERSION.fullmatch(container["image"]), container["image"]
        inside = container["securityContext"]
        assert inside["readOnlyRootFilesystem"]
        assert inside["allowPrivilegeEscalation"] is False
        assert inside["capabilities"] == {"drop": ["ALL"]}
        assert {"livenessProbe", "startupProbe"} <= container.keys()
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]
    assert names == ["mlflow", "prefect-server", "prefect-worker", "search"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_whatever_a_manifest_refers_to_is_there(overlay: str) -> None:
    named = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in built(overlay)}
    for _, pod in pods(overlay):
        assert ("ServiceAccount", pod["serviceAccountName"]) in named
        for source in [source for container in pod["containers"] for source in container.get("envFrom", [])]:
            assert ("ConfigMap", source["configMapRef"]["name"]) in named
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    for manifest in built(overlay):
        if manifest["kind"] in ("HorizontalPodAutoscaler",):
            assert ("Deployment", manifest["spec"]["scaleTargetRef"]["name"]) in named
        if manifest["kind"] == "Service":
            assert ("Deployment", manifest["spec"]["selector"]["app.kubernetes.io/name"]) in named
        assert manifest["metadata"].get("namespace", "cots") == "cots"
    secrets = set(re.findall(r"secretKeyRef': \{'key': '([\w-]+)', 'name': '([\w-]+)'", str(built(overlay))))
    base = (INFRA / "kubernetes/base/kustomization.yaml").read_text()
    assert secrets == {
        ("mlflow-uri", "cots-database"),
        ("prefect-uri", "cots-database"),
        ("login", "cots-prefect"),
        ("token", "cots-search"),
    }
    assert all(f"{key}=" in base and name in base for key, name in secrets)


AS_PREFECT_MAKES_IT = """
import asyncio, json, sys, uuid
from prefect.client.schemas.objects import FlowRun
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration
with open(sys.argv[1]) as template:
    made = asyncio.run(KubernetesWorkerJobConfiguration.from_template_and_values(json.load(template), {}))
made.prepare_for_flow_run(FlowRun(id=uuid.uuid4(), name="brave-cat", flow_id=uuid.uuid4()))
print(json.dumps(made.job_manifest))
"""


@pytest.mark.slow
def test_the_job_that_prefect_makes_of_a_flow_run_is_a_valid_one(tmp_path: Path, fork_python: str) -> None:
    pytest.importorskip("prefect_kubernetes", reason="install the extra kubernetes")
    login = {"PREFECT_API_AUTH_STRING": "cots:secret"}
    nowhere = os.environ | login | {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_HOME": str(tmp_path)}
    pool = str(INFRA / "kubernetes/base/work-pool.json")
    job = json.loads(ran(fork_python, "-c", AS_PREFECT_MAKES_IT, pool, environment=nowhere))
    pod = job["spec"]["template"]["spec"]
    for name in (
        "parallelism",
        "completions",
    ):  # Prefect asks for them where Kubernetes knows none and passes over them
        del pod[name]
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job | {"metadata": job["metadata"] | {"name": "run"}}))
    ran(tool("kubernetes-validate"), "--strict", "-k", cluster_version(), str(tmp_path / "job.yaml"))
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in built("production")}
    assert {("PersistentVolumeClaim", claim), ("ServiceAccount", pod["serviceAccountName"])} <= names
    [container] = pod["containers"]
    assert VERSION.fullmatch(container["image"])
    assert container["args"] == ["prefect", "flow-run", "execute"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert environment.items() >= login.items()


def test_prefect_wants_a_log_in_and_lets_no_other_sites_page_in() -> None:
    compose = {name: service.get("environment", {}) for name, service in SERVICES.items()}
    manifests = {
        name: {variable["name"]: variable.get("value", str(variable.get("valueFrom"))) for variable in container["env"]}
        for name, pod in pods("production")
        for container in pod["containers"]
    }
    for server, worker in (
        (compose["prefect"], compose["worker"]),
        (manifests["prefect-server"], manifests["prefect-worker"]),
    ):
        assert server["PREFECT_SERVER_API_AUTH_STRING"] == worker["PREFECT_API_AUTH_STRING"]
        assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4200"


def test_make_up_starts_in_containers_what_it_starts_as_plain_processes() -> None:
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert {"mlflow", "prefect", "deployments", "worker"} <= started
    defaults = {name: option.default for name, option in inspect.signature(up).parameters.items()}
    for name in ("mlflow", "prefect"):
        port = defaults[f"{name}_port"]
        assert SERVICES[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert SERVICES["deployments"]["command"] == ["python", "-m", deployments.__name__]
    assert SERVICES["worker"]["depends_on"]["deployments"] == {"condition": "service_completed_successfully"}
    assert SERVICES["worker"]["command"][3:7] == ["--pool", deployments.POOL, "--type", "process"]
    assert SERVICES["worker"]["environment"] == SERVICES["deployments"]["environment"]


def test_make_up_draws_secrets_once_and_ends_with_the_addresses_and_the_log_in(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    for name in ("Makefile", "infra/.env.example"):
        shutil.copy(ROOT / name, tmp_path / name)
    command = ("make", "-C", str(tmp_path), "--no-print-directory", "-o", "setup", "up", "COMPOSE=true compose")
    ran(*command)
    secrets = tmp_path / "infra/.env"
    assert secrets.stat().st_mode & 0o077 == 0
    drawn = dict(re.findall(r"^(\w+)=(.*)$", secrets.read_text(), re.MULTILINE))
    asked = set(re.findall(r"\$\{(\w+):\?", (INFRA / "compose.yaml").read_text()))
    assert all(re.fullmatch(r"[0-9a-f]{32}", drawn[name]) for name in asked)
    assert len({drawn[name] for name in asked}) == len(asked)
    lines = ran(*command).split("\n\n")[1].splitlines()
    assert drawn == dict(re.findall(r"^(\w+)=(.*)$", secrets.read_text(), re.MULTILINE))
    shown = ran("bash", "-c", f"cd {tmp_path}; {'; '.join(lines)}; env")
    values = dict(line.split("=", 1) for line in shown.splitlines() if line.startswith(("MLFLOW_TRACK", "PREFECT_API")))
    login = SERVICES["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    assert values["PREFECT_API_AUTH_STRING"] == re.sub(r"\$\{(\w+):.*\}", lambda name: drawn[name[1]], login)
    assert values["PREFECT_API_URL"] == SERVICES["prefect"]["environment"]["PREFECT_UI_API_URL"]
    assert values["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_the_ingress_leads_to_the_page_and_to_searches_alone(tmp_path: Path) -> None:
    [ingress] = [manifest for manifest in built("production") if manifest["kind"] == "Ingress"]
    [rule] = ingress["spec"]["rules"]
    limits = RequestLimits(body=1, pixels=1, in_flight=1, seconds=1)
    settings = ServiceSettings(uri=str(tmp_path), poll=1, limits=limits, hosts=None, token=None, log_queries=None)
    served = {f"/{path.split('/')[1]}" for path in create_app(settings).openapi()["paths"]} | {*FILES, "/openapi.json"}
    assert {path["path"] for path in rule["http"]["paths"]} == served - {"/healthz", "/readyz", "/metrics", "/items"}


def test_prometheus_is_sent_to_an_address_that_needs_no_token() -> None:
    by_kind = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in built("production")}
    annotations = by_kind["Deployment", "search"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in OPEN_PATHS


def test_the_worker_watches_only_the_namespace_in_which_it_may_ask() -> None:
    by_kind = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in built("production")}
    [container] = by_kind["Deployment", "prefect-worker"]["spec"]["template"]["spec"]["containers"]
    [watched] = [variable["value"] for variable in container["env"] if variable["name"].endswith("OBSERVER_NAMESPACES")]
    assert watched == by_kind["Role", "worker"]["metadata"]["namespace"]
    assert not [kind for kind, _ in by_kind if kind.startswith("Cluster")]


def test_terraform_is_formatted_and_parses() -> None:
    ran(tool("terraform"), f"-chdir={INFRA / 'terraform'}", "fmt", "-check", "-diff")


def test_providers_are_pinned_and_no_secret_is_printed() -> None:
    text = (INFRA / "terraform/versions.tf").read_text()
    assert (
        len(re.findall(r'^ +version = "\d+\.\d+\.\d+"$', text, re.MULTILINE)) == len(re.findall(r"source +=", text)) > 0
    )
    outputs = (INFRA / "terraform/outputs.tf").read_text()
    for block in outputs.split("output ")[1:]:
        assert ("password" not in block) or ("sensitive   = true" in block)


def test_nothing_runs_an_image_without_a_version() -> None:
    texts = {path: path.read_text() for path in INFRA.rglob("*") if path.is_file()}
    assert [path for path, text in texts.items() if ":latest" in text] == []
