# make run: a three-node cluster on this machine.  make test: everything checked.

PYTHON ?= python3
ENV := .venv
BIN := $(ENV)/bin
STAMP := $(ENV)/.made-from-pyproject
N ?=
SEEDS ?= 1000
SEED ?= 1
SECONDS ?= 60
MINUTES ?= 30
BENCH ?=

.PHONY: help env run stop start status test lint types unit sim mixed-python fuzz crashes chaos mutants \
	bench screenshots format clean

help:  ## Show what can be made.
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml
	@echo "Making an environment in $(ENV) (once; a minute or so)."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; say make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(ENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

env: $(STAMP)

run: $(STAMP)  ## Start the three nodes of the Procfile, and wait until they serve.
	@$(BIN)/python scripts/cluster.py start

start: $(STAMP)  ## Start them, or one of them: make start N=2.
	@$(BIN)/python scripts/cluster.py start $(N)

stop: $(STAMP)  ## Stop them, or one of them: make stop N=2.
	@$(BIN)/python scripts/cluster.py stop $(N)

status: $(STAMP)  ## Show who runs and who leads.
	@$(BIN)/python scripts/cluster.py status

test: lint types unit  ## Check style and types, run all tests, print coverage.

lint: $(STAMP)  ## Check style.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/python scripts/check_apply.py

types: $(STAMP)  ## Check types.
	@$(BIN)/mypy

unit: $(STAMP)  ## Run all tests, and hold each room to its coverage.
	@rm -f .coverage .coverage.*
	@# Three at a time on two cores: real nodes mostly wait.
	@$(BIN)/python -m pytest -n 3 --dist worksteal --durations=5 \
		--cov --cov-report=
	@$(BIN)/python scripts/coverage_by_room.py 90

sim: $(STAMP)  ## Clusters in virtual time with faults: make sim SEEDS=1000 SEED=1.
	@$(BIN)/python -m kvdb.simulation --seeds $(SEEDS) --seed $(SEED)

mixed-python: $(STAMP)  ## One history under every Python at hand: the same must come of it.
	@$(BIN)/python scripts/mixed_python.py

fuzz: $(STAMP)  ## Look for bytes that a decoder is not ready for.
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

crashes: $(STAMP)  ## Every crash of the log; thousands of kills of the engine.
	@$(BIN)/python -m tests.storage.test_every_crash --samples 20 --again 5 --seeds 12
	@$(BIN)/python -m tests.store.kills --times 2000
	@ROUNDS=20 $(BIN)/python -m pytest -q --timeout=600 tests/end_to_end/test_durability.py
	@$(BIN)/python -m tests.store.kills --times 500 --power

chaos: $(STAMP)  ## Real nodes under faults, for MINUTES=30 with SEED=1.
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED)

mutants: $(STAMP)  ## Make small bugs, and see that each is found.
	@$(BIN)/python -m tests.mutants

screenshots: $(STAMP)  ## Take the pictures of the dashboard in docs/images (with Chromium).
	@$(BIN)/python -m tests.ui.screenshots docs/images

bench: $(STAMP)  ## Measure kvdb and others beside it: make bench BENCH="--quick".
	@$(BIN)/python -m benchmarks $(BENCH)

format: $(STAMP)  ## Format the code.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean:  ## Remove what was built, but no data.
	rm -rf $(ENV) build dist *.egg-info .mypy_cache .ruff_cache .coverage* .hypothesis
