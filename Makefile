# make demo | up | down | test | test-fast | check | fix | audit | bench; each sets up .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down status test test-fast check fix docs audit bench ablation
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1
# Bytecode is written also where the environment says otherwise: a test run starts Python 40 times.
export PYTHONDONTWRITEBYTECODE =

help:
	@echo "make demo   set up, run the pipeline on drawn scenes, publish, show the result"
	@echo "make up     MLflow and Prefect on PostgreSQL, the deployments, a worker (docs/operate.md); make status"
	@echo "make down   stop them; PURGE=1 also deletes their data"
	@echo "make test   all tests, 8 to 20 minutes on two cores; make test-fast: 1 (tests/README.md)"
	@echo "make check  format, lint, types, import layers, generated files, duplicates"
	@echo "make fix    format, fix lint, write generated files (deps in dvc.yaml, docs/)"
	@echo "make docs   the documentation as a site: reports/site/index.html"
	@echo "make audit  known vulnerabilities, licences and a bill of materials of the packages (SECURITY.md)"
	@echo "make bench  all benchmarks; ONLY=step runs one, ONLY=smoke all at their smallest size"
	@echo "make ablation   trains with and without each loss level, over seeds, on the data of params.yaml"

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	@echo "setup: the packages of requirements.lock into .venv: 2.8 GB to download and 7 GB of disk with CUDA's libraries,"
	@echo "       which UV_TORCH_BACKEND=cpu leaves out (0.6 GB to download)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "uv>=0.9,<1"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

# Test tools and linters, for every target that needs them.
.venv/.dev: .venv/.ready requirements-dev.lock
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements-dev.lock
	@touch $@

# A stage checks only its own sections of params.yaml; the doctor checks all of them before the first stage runs.
demo: setup
	cots doctor
	dvc repro
	cots registry publish
	cots summary

# In containers if Docker Compose is installed, else as plain processes; COMPOSE= forces the latter.
COMPOSE ?= $(shell docker compose ls >/dev/null 2>&1 && echo docker compose -f infra/compose.yaml)

up: setup $(if $(COMPOSE),infra/.env)
	$(if $(COMPOSE),$(COMPOSE) up --detach --wait,python -m cots.flows.local up $(ARGS))
	$(if $(COMPOSE),@echo '$(PAGES)' && printf '\nexport %s' $(ADDRESSES) && echo)

# What plain processes print themselves.
PAGES = in a browser: http://127.0.0.1:5000/\#/experiments?workflowType=machine_learning (MLflow), http://127.0.0.1:4200 (Prefect)
ADDRESSES = MLFLOW_TRACKING_URI=http://127.0.0.1:5000 PREFECT_API_URL=http://127.0.0.1:4200/api \
	'PREFECT_API_AUTH_STRING="cots:$$(sed -n s/^PREFECT_PASSWORD=//p infra/.env)"'

# The example with secrets that are drawn at the first start, as those of plain processes are.
infra/.env:
	@umask 077 && python -c 'import secrets, sys; [print(line.strip() + secrets.token_hex(16) * line.endswith("=\n")) \
		for line in sys.stdin]' < infra/.env.example > $@

down: setup
	$(if $(COMPOSE),$(COMPOSE) down $(if $(PURGE),--volumes),python -m cots.flows.local down $(if $(PURGE),--purge) $(ARGS))

status: setup
	$(if $(COMPOSE),$(COMPOSE) ps,python -m cots.flows.local status $(ARGS))

test: .venv/.dev
	pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder

test-fast: .venv/.dev
	pytest -m "not slow" --numprocesses=auto --maxprocesses=4 --dist=loadfile

check: .venv/.dev
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	python -m tools.stage_deps --check
	python -m tools.params_reference --check
	pylint --disable=all --enable=duplicate-code --min-similarity-lines=8 --ignore-imports=y --ignore-signatures=y cots pipelines
	python -m tools.cli_reference --check

fix: .venv/.dev
	ruff check --fix .
	ruff format .
	python -m tools.stage_deps
	python -m tools.params_reference
	python -m tools.cli_reference

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

# Known vulnerabilities of the lock file's packages, their licences, and a bill of materials (CycloneDX).
AUDIT := reports/audit
audit: setup
	mkdir -p $(AUDIT)
	uv tool run pip-licenses@5.5.5 --python $(BIN)/python --from mixed --with-system --format markdown --output-file $(AUDIT)/licences.md
	uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py environment $(BIN)/python --output-file $(AUDIT)/sbom.cdx.json
	uv tool run pip-audit@2.10.1 --strict --disable-pip --no-deps --requirement requirements.lock

bench: .venv/.peers
	python -m benchmarks $(ONLY)

.venv/.peers: .venv/.dev benchmarks/requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r benchmarks/requirements.txt
	@touch $@

ablation: .venv/.ready
	python -m benchmarks.ablation $(ARGS)
