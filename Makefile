# Two commands: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
export ECG_HOME ?= $(CURDIR)/var
export DAGSTER_HOME ?= $(ECG_HOME)/dagster
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install demo test test-all lint types ui clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## The virtual environment, exact versions from constraints.txt

# torch first and pinned: a range could pull another build of it, with gigabytes beside.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

$(DAGSTER_HOME)/dagster.yaml: dagster.yaml
	mkdir -p $(@D)
	cp dagster.yaml $@

demo: install $(DAGSTER_HOME)/dagster.yaml ## The whole road, from raw files to a model; MIRROR=folder or URL for real data
	$(BIN)/python -m orchestration.demo $(if $(MIRROR),--mirror '$(MIRROR)')

ui: install $(DAGSTER_HOME)/dagster.yaml ## Dagster (port 3000) and MLflow (port 5000) on loopback
	$(BIN)/python -m orchestration.ui

# Two test processes on two cores: threads of torch and BLAS would only wait for each other.
test test-all: export OMP_NUM_THREADS := 1

test: install ## The quick suite with coverage
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --cov --cov-report=term

test-all: install ## All tests, the minute-long ones too
	$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report=term

lint: install ## ruff and the layer contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install ## pyright
	$(BIN)/pyright

clean: ## Remove the data home and all caches, not the virtual environment
	rm -rf var build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*
