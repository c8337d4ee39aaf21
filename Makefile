# Every verb of the project, defined once: people, the README and CI call these.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TRAINING_STAMP := $(VENV)/.installed-training
PYTEST := $(BIN)/python -m pytest

.PHONY: help install demo test test-slow check format bench clean

help: ## List the verbs
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[cli,codecs]" --group dev
	@touch $@

install: $(STAMP) ## Make the virtual environment with everything that tests and demo need

demo: $(STAMP) ## Ingest real DICOM into a local datastore, append, read a frame, verify
	$(BIN)/python -m cloud_optimized_dicom.cli.demo

test: $(STAMP) ## Run the fast tests
	$(PYTEST) -n 2 -m "not slow"

# Only the slow tests train: torch is as large as everything else together.
$(TRAINING_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --group training
	@touch $@

test-slow: $(TRAINING_STAMP) ## Run the heavy tests (minutes, gigabytes)
	$(PYTEST) -n 2 -m slow

check: $(STAMP) ## Lint, check formatting, types and the layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Format and apply safe fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Print ratios of the benchmarks
	$(BIN)/python -m benchmarks

clean: ## Remove what the other verbs made
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache build dist
