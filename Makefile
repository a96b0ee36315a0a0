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

.PHONY: help install demo ui production test test-slow lint types bench clean purge

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed ## Create the virtual environment, with exact versions from constraints.txt

# torch is installed first and pinned: a range could select another build of it, with gigabytes of dependencies.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,postgres]'
	touch $@

demo: install ## Run the whole pipeline, from raw files to a model; MIRROR=folder or URL for real data
	$(BIN)/python -m orchestration.demo $(if $(MIRROR),--mirror '$(MIRROR)')

ui: install ## Start Dagster (port 3000) and MLflow (port 5000) on loopback
	$(BIN)/python -m orchestration.ui

production: install ## Start all servers on PostgreSQL, supervised, configured by deploy/environment (docs/production.md)
	deploy/start

# Two test processes on two cores: more threads of torch and BLAS would only wait for each other.
test test-slow: export OMP_NUM_THREADS := 1

test: install ## Run the quick tests, with coverage
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --cov --cov-report=term

test-slow: install ## Run the tests that take minutes
	$(BIN)/python -m pytest -m slow -n 2

lint: install ## Run ruff and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install ## Run pyright
	$(BIN)/pyright

bench: install ## Run the benchmarks at the paper's size, beside the method of the released code; half an hour
	@mkdir -p "$$ECG_HOME/benchmarks"
	for name in train_step attention feeding corpus download harmonize probes serving; do \
	    $(BIN)/python -m benchmarks.$$name --json "$$ECG_HOME/benchmarks/$$name.json"; \
	done

clean: ## Remove caches, but not data, models and the virtual environment
	rm -rf build .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage .coverage.*

purge: clean ## Remove caches and the data home: downloads, products, history and registered models
	rm -rf "$$ECG_HOME"
