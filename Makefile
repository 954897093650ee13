# SPDX-License-Identifier: Apache-2.0
# VENV=DIR shares one environment between several checkouts; the default is .venv here.
VENV ?= .venv
# The first interpreter that runs and is new enough; DIDKit has no wheels beyond 3.12.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.13 python3; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
OURS := identity chaincode participant coordinator ops tests
INSTALLED := $(VENV)/installed
TESTED := $(VENV)/installed-test

.PHONY: demo test check install clean help

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

demo: $(INSTALLED) ## ten hospitals train one model on real data; the ledger first; then the audit
	@$(BIN)/python -m ops.cli run demo

test: $(TESTED)  ## all tests
	$(BIN)/python -m pytest

check: $(TESTED) ## linter, formatter, types, floors
	$(BIN)/python -m ruff check $(OURS)
	$(BIN)/python -m ruff format --check --quiet $(OURS)
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest tests/test_floors.py

clean:           ## remove the environment and caches, never a run
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
