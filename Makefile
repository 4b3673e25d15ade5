# Needs make and Python 3.11 or newer, nothing else. `make` alone lists the targets.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv sweep test test-fast chaos check format bench lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(INSTALLED) ## create .venv with everything pinned in constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "adaptune needs Python 3.11 or newer: make venv PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[offline,dev]"
	@touch $@

sweep: $(INSTALLED) ## the quickstart: a real sweep on generated tasks, about five minutes on two cores
	$(BIN)/adaptune run quickstart
	@echo
	@echo "The report, with its picture and tables:  sweeps/quickstart/report/"
	@echo "The runs in the MLflow UI:                $(BIN)/adaptune ui"

# Tests that start Ray come after the others and one at a time: each takes the whole machine.
test: test-fast ## the test suite, under eight minutes on two cores
	$(BIN)/python -m pytest -m "ray or chaos"

test-fast: $(INSTALLED) ## the tests that start no Ray, under two minutes on two cores
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not ray and not chaos"

chaos: $(INSTALLED) ## 40 seeded rounds of everything that can fail, about half an hour
	$(BIN)/python -m tests.chaos --rounds 40 --seed 0
	ADAPTUNE_CHAOS=1 $(BIN)/python -m pytest tests/orchestrator/cli/test_kill.py

check: $(INSTALLED) ## format, lint, types and import contracts; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python -m tests.lengths

format: $(INSTALLED) ## rewrite the sources the way `make check` wants them
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(INSTALLED) ## run the benchmarks and keep the results in benchmarks/results/
	$(BIN)/python -m benchmarks

lock: ## pin in constraints.txt the newest versions that fit; torch is moved by hand
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check -e ".[offline,dev]" "$$(grep ^torch== constraints.txt)"
	{ sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+[^ ]*$$//'; } \
		> build/constraints.txt && mv build/constraints.txt constraints.txt

clean: ## remove what make made; sweeps/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
