# Every verb of the project, defined once: people, the README and CI call these.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
SLOW_STAMP := $(VENV)/.installed-slow
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo test test-slow prove check format bench clean

help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What the demo needs; the rest takes a minute more.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[cli,codecs]"
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[beam,cli,codecs]" --group dev
	$(BIN)/python -m pip install --quiet --no-deps --group slides
	@touch $@

# Only the slow tests train: torch is as large as everything else together.
$(SLOW_STAMP): $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --group training
	@touch $@

install: $(DEV_STAMP) ## Make the virtual environment with everything that tests and demo need

demo: $(STAMP) ## Ingest real DICOM into a local datastore, append, read a frame, verify
	$(BIN)/python -m cloud_optimized_dicom.cli.demo

test: $(DEV_STAMP) ## Run the fast tests
	$(PYTEST) -n 2 -m "not slow"

# Three at a time on two processors: they wait for disks and leases as much as they compute.
test-slow: $(SLOW_STAMP) ## Run the heavy tests (minutes, gigabytes)
	$(PYTEST) -n 3 --dist worksteal -m "slow and not exhaustive"

prove: $(DEV_STAMP) ## Run what even CI leaves out: the largest configurations of the model, gigabytes on the other store
	$(PYTEST) -n 2 -m exhaustive

check: $(DEV_STAMP) ## Lint, check formatting, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV_STAMP) ## Format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV_STAMP) ## Measure against floors and goals; options by BENCH="--quick ..."
	$(BIN)/python -m benchmarks $(BENCH)

clean: ## Remove what the other verbs made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
