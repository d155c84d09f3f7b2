# make demo | test | check | fix | bench; each sets up .venv by itself.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix bench ablation
SHELL := /bin/bash

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS = 1
export MLFLOW_DISABLE_TELEMETRY = true
export PREFECT_SERVER_ANALYTICS_ENABLED = false
export DO_NOT_TRACK = 1

help:
	@echo "make demo   set up, run the pipeline on drawn scenes, publish, show the result"
	@echo "make test   the test suite"
	@echo "make check  format, lint, types, import floors, duplicates"
	@echo "make fix    format and mend what can be mended"
	@echo "make bench  benchmarks: make bench ONLY=step runs one"
	@echo "make ablation   what each level is worth, by dvc exp over seeds, on params.yaml's data"

setup: .venv/.ready

.venv/.ready: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet "uv>=0.9,<1"
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

demo: setup
	dvc repro
	cots registry publish
	cots summary

test: setup
	pytest

check: setup
	ruff format --check .
	ruff check .
	mypy
	lint-imports
	pylint --disable=all --enable=duplicate-code --min-similarity-lines=8 --ignore-imports=y --ignore-signatures=y cots pipelines

fix: setup
	ruff check --fix .
	ruff format .

bench: setup
	python -m benchmarks $(ONLY)

ablation: setup
	python -m benchmarks.ablation $(ARGS)
