# SPDX-License-Identifier: Apache-2.0
# VENV=DIR shares one environment between several checkouts; the default is .venv here.
VENV ?= .venv
# The first interpreter that runs and is new enough; DIDKit has no wheels beyond 3.12.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
OURS := identity chaincode participant coordinator ops tests
INSTALLED := $(VENV)/installed
BENCHED := $(VENV)/installed-bench
CHANNELLED := $(VENV)/installed-fabric
TESTED := $(VENV)/installed-test
# The peer of the benchmark has an environment of its own; FLOWER_VENV=DIR shares one between several checkouts.
FLOWER_VENV ?= build/flower-venv
FLOWER := $(FLOWER_VENV)/installed-flower-1.42.0

.PHONY: demo test check bench fabric-demo bench-fabric fabric-build install clean help

help:            ## this list
	@grep -E '^[a-z-]+: .*## ' Makefile | sed 's/: .*## /\t/' | expand -t 12

install: $(INSTALLED) ## make the environment and install Fedledger

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Fedledger needs Python 3.11 or 3.12 on the PATH. Then: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt
	@echo "installing Fedledger into $(VENV) (torch is large: one to three minutes)"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(TESTED): $(INSTALLED)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test,check]'
	@touch $@

$(BENCHED): $(INSTALLED)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(CHANNELLED): $(INSTALLED)
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[fabric]'
	@touch $@

demo: $(INSTALLED) ## ten hospitals train one model on real data; the ledger first; then the audit
	@$(BIN)/python -m ops.cli run demo

test: $(TESTED)  ## all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(TESTED) ## linter, formatter, types, floors
	$(BIN)/python -m ruff check $(OURS)
	$(BIN)/python -m ruff format --check --quiet $(OURS)
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/test_floors.py

$(FLOWER): ops/bench/flower-requirements.txt
	@test -n "$(PYTHON)" || { echo "The benchmark needs Python 3.11 or 3.12 on the PATH. Then: make PYTHON=/path/to/python3.12 bench"; exit 1; }
	@echo "installing Flower into $(FLOWER_VENV) (torch once more: one to three minutes)"
	test -x $(FLOWER_VENV)/bin/python || $(PYTHON) -m venv $(FLOWER_VENV)
	PYTHONWARNINGS=ignore $(FLOWER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement ops/bench/flower-requirements.txt
	PYTHONWARNINGS=ignore $(FLOWER_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps flwr==1.42.0
	@touch $@

bench: $(BENCHED) $(FLOWER) ## measure beside a plain loop, Flower and the machine's limits; QUICK=1: two minutes
	$(BIN)/python -m ops.bench --flower $(FLOWER_VENV) $(if $(filter-out 0,$(QUICK)),--quick)

fabric-demo: $(CHANNELLED) ## the demonstration on a Hyperledger Fabric network; one peer is killed in mid-run (needs Go)
	@$(BIN)/python -m ops.cli fabric demo

fabric-build: $(CHANNELLED) ## build Hyperledger Fabric's programs (once, about a minute; needs Go 1.25 or later)
	@$(BIN)/python -m ops.cli fabric build

bench-fabric: $(CHANNELLED) ## the Fabric ledger beside the embedded one and the network alone; QUICK=1: ten seconds
	$(BIN)/python -m ops.bench.fabric $(if $(filter-out 0,$(QUICK)),--quick)

clean:           ## remove the environment and caches, never a run
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
