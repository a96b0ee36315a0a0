# The main targets are `make demo` and `make test`; `make help` lists all.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
ECG_HOME ?= var
override ECG_HOME := $(shell realpath -m '$(ECG_HOME)')
export ECG_HOME
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install install-production install-dev lock demo ui production test test-slow lint types bench clean purge

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

# pip takes what a list names, checks each file's sha256, and neither looks up nor builds anything else.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all:

install: .venv/.installed .venv/.installed-vendor ## Create .venv with what the pipeline needs, vendors' files included

install-production: install .venv/.installed-production ## Add what production needs

install-dev: .venv/.installed-dev ## Add what tests and checks need

# PyPI's torch for Linux needs gigabytes of CUDA libraries, so it is for machines with an NVIDIA driver (docs/dependencies.md).
TORCH ?= $(if $(and $(filter Linux,$(shell uname)),$(if $(shell command -v nvidia-smi),,no)),cpu,pypi)

.venv/.installed: pyproject.toml locks/torch-cpu.txt locks/torch-pypi.txt locks/run.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) --requirement locks/torch-$(TORCH).txt || { echo "torch was not installed; TORCH=pypi takes PyPI's build" >&2; exit 1; }
	$(INSTALL) --requirement locks/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	touch $@

.venv/.installed-production .venv/.installed-vendor .venv/.installed-dev: .venv/.installed-%: locks/%.txt | .venv/.installed
	$(INSTALL) --requirement $<
	touch $@

# Tests start production and read vendors' files.
.venv/.installed-dev: | .venv/.installed-production .venv/.installed-vendor

lock: install-dev ## Write the lists of exact versions; UV="--upgrade-package NAME" or UV=--upgrade for newer ones
	$(BIN)/python locks/update.py $(UV)

demo: .venv/.installed ## Run the whole pipeline, from raw files to a model; MIRROR=folder or URL for real data
	$(BIN)/python -m orchestration.demo $(if $(MIRROR),--mirror '$(MIRROR)')

PORT ?= 3000
MLFLOW_PORT ?= 5000

ui: install ## Start Dagster (PORT=3000) and MLflow (MLFLOW_PORT=5000) on loopback
	$(BIN)/python -m orchestration.ui --dagster-port '$(PORT)' --mlflow-port '$(MLFLOW_PORT)'

production: install-production ## Start all servers on PostgreSQL, supervised, configured by deploy/environment (docs/production.md)
	deploy/start

# Two test processes on two cores: more threads of torch and BLAS would only wait for each other.
test test-slow: export OMP_NUM_THREADS := 1

test: install-dev ## Run the quick tests, with coverage
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --cov --cov-report=term

test-slow: install-dev ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow -n 2

lint: install-dev ## Run ruff, the import contracts and the check that what is imported is declared
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/deptry tests benchmarks --exclude .venv --ignore DEP002,DEP004

types: install-dev ## Run pyright
	$(BIN)/pyright

bench: install-dev ## Run the benchmarks at the paper's size, beside the method of the released code; half an hour
	@mkdir -p "$$ECG_HOME/benchmarks"
	for name in train_step s4 attention feeding corpus download harmonize probes serving; do \
	    $(BIN)/python -m benchmarks.$$name --json "$$ECG_HOME/benchmarks/$$name.json"; \
	done

clean: ## Remove caches, but not data, models and the virtual environment
	rm -rf build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*

purge: clean ## Remove caches and the data home: downloads, products, history and registered models
	rm -rf "$$ECG_HOME"
