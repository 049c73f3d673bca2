# Every target makes what it needs: Python 3.11 and nothing else has to be there.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install quickstart test lint types check results limits bench clean

help:
	@echo "make quickstart   install, fetch model and data, run the quickstart suite, show its leaderboard"
	@echo "make test         install and run the tests"
	@echo "make lint types   ruff, and mypy in strict mode"
	@echo "make results      run the suites that ship and renew results/"
	@echo "make limits       draw docs/span-limits.svg from results/span-limits"
	@echo "make bench        speed and size of a federation"

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/.installed

quickstart: install
	$(BIN)/qlorabench run quickstart

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

check: lint types test

results: install
	$(BIN)/python -m benchmarks.results

limits: install
	$(BIN)/python -m benchmarks.limits results/span-limits docs/span-limits.svg

bench: install
	$(BIN)/python -m benchmarks.federation

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
