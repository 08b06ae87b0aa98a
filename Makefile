# Every target sets up .venv when it is missing or pyproject.toml has changed.
TRIALS ?= 50
ARGS ?=
STUDY ?= mnist
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.PHONY: search test lint dashboard clean

search: $(READY)  ## search MNIST: make search TRIALS=5 ARGS="--seed 3"
	$(BIN)/python -m nas.search --trials $(TRIALS) $(ARGS)

test: $(READY) lint  ## everything that must hold
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

dashboard: $(READY)  ## the trial history: make dashboard STUDY=mnist
	$(BIN)/python -m nas.dashboard --study-name $(STUDY) $(ARGS)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
