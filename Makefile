# Every target sets up .venv when it is missing or pyproject.toml has changed.
TRIALS ?= 50
ARGS ?=
STUDY ?= mnist
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.PHONY: help search test lint browser bench chaos mutations arm rivals load dashboard report pictures clean

help:  ## what there is to make
	@awk -F ':.*  ## ' '/^[a-z]+:.*  ## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

search: $(READY)  ## search MNIST: make search TRIALS=5 ARGS="--seed 3"
	$(BIN)/python -m nas.search --trials $(TRIALS) $(ARGS)

test: $(READY) lint browser  ## everything that must hold
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

browser: $(READY)  ## a Chromium for the tests of pages, where there is none
	$(BIN)/python -m docs.browser

bench: $(READY)  ## the quick form of every benchmark: less than 10 minutes on 2 cores
	$(BIN)/python -m benchmarks.throughput --pairs 5 --seconds 3
	$(BIN)/python -m benchmarks.accuracy --networks 3k --epochs 1 --seeds 2
	$(BIN)/python -m benchmarks.search_cost --replays 300 --pairs 3
	$(BIN)/python -m benchmarks.search_quality --anew --replays 10 --emulators 5 --arms random tpe blueprint
	$(BIN)/python -m benchmarks.overhead --measured 20

chaos: $(READY)  ## 200 faults in real searches
	$(BIN)/python tests/chaos.py $(ARGS)

mutations: $(READY)  ## 100,000 damaged and hostile inputs
	$(BIN)/python tests/mutations.py $(ARGS)

arm: $(READY)  ## the compiled kernels on an emulated ARM processor
	$(BIN)/python tests/arm.py $(ARGS)

rivals: $(READY)  ## other tools as arms of the benchmark of searches: installs them, and tries them
	$(BIN)/python -m pip install --quiet --editable '.[benchmarks]'
	PYTHONHASHSEED=0 $(BIN)/python -m pytest tests/rivals.py

load: $(READY)  ## 2,000 trials in one study, with the dashboard open
	$(BIN)/python -m benchmarks.load $(ARGS)

dashboard: $(READY)  ## the trial history: make dashboard STUDY=mnist
	$(BIN)/python -m nas.dashboard --study-name $(STUDY) $(ARGS)

report: $(READY)  ## what the search has found, as a page: make report STUDY=mnist
	$(BIN)/python -m nas.report --study-name $(STUDY) $(ARGS)

pictures: $(READY) browser  ## the pictures of the pages, from a study of this machine
	$(BIN)/python -m docs.pictures --study-name $(STUDY) $(ARGS)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:  ## remove .venv and caches; results stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
