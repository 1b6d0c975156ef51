# Everyday commands; each is what .ci/run or a document calls.
PYTHON ?= python3
.PHONY: help fast test lint types kernels docs bench soak stub

help:  ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

fast:  ## tests to run after every edit: under two minutes on two cores
	$(PYTHON) -m pytest -q -m "not slow and not gpu and not kernels" tests/engine tests/scheduler tests/kernels tests/models tests/test_package.py

test:  ## all tests, on all cores
	$(PYTHON) -m pytest

lint:  ## ruff, and the floors: which folder may import which
	ruff check .
	ruff format --check .
	lint-imports

types:  ## mypy
	mypy -p tritone

kernels:  ## compile every declared case of every kernel, with no GPU
	$(PYTHON) -m tritone.kernels

docs:  ## the documentation's site, into site/
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

bench:  ## micro benchmarks; `make bench ARGS=--benchmark-compare` compares with the run saved before
	$(PYTHON) -m pytest -n 0 bench/micro --benchmark-only --benchmark-autosave $(ARGS)

soak:  ## random load, faults, kills and damaged files, for ten minutes: `make soak SECONDS_=600`
	$(PYTHON) tests/soak/soak.py --seconds $(or $(SECONDS_),600)

stub:  ## the facade's stub, from the families' registrations
	$(PYTHON) -m tritone.stub
