# Needs make and Python 3.11 or newer, nothing else. `make` alone lists the targets.

PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Stores and SQLite wait for the disk at every commit, for much of the tests' time: their files lie in memory where it
# has room. Where Python is told to keep no bytecode, every process of the tests would compile their sources anew.
SHM := $(shell test "$$(df -Pk /dev/shm 2>/dev/null | awk 'END { print $$4 }')" -gt 4000000 2>/dev/null && \
	echo PYTEST_DEBUG_TEMPROOT=/dev/shm)
# pytest's own time limit waits for Python to go on; a test that hangs deeper than that ends with its process.
ENDING = -o faulthandler_timeout=400 -o faulthandler_exit_on_timeout=true
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(SHM) $(BIN)/python -m pytest
# A warning is an error. Every page is read anew: one that was read before would not warn again.
SPHINX = $(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir build/doctrees

.DEFAULT_GOAL := help
.PHONY: help venv sweep test test-fast test-thorough draws browser gpu chaos check docs docs-run format bench wheel wheel-test lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

# Tests that start Ray come after the others and a few at a time: each takes the whole machine.
test: test-fast ## the test suite of every day, some seven minutes on two cores
	$(PYTEST) -n 2 --dist loadfile -m "(ray or chaos) and not minutes and not thorough"

test-fast: $(INSTALLED) ## those of its tests that start no Ray, about two minutes on two cores
	$(PYTEST) -n auto --dist worksteal $(ENDING) -m "not ray and not chaos and not browser and not thorough"

test-thorough: $(INSTALLED) ## what `make test` leaves out: all cases of products, long simulations, more of Ray
	$(PYTEST) -n auto --dist worksteal $(ENDING) -m "thorough and not ray and not chaos and not minutes"
	$(PYTEST) -n 2 --dist loadfile -m "thorough and (ray or chaos) and not minutes"

draws: $(INSTALLED) ## the tests of `make test-fast` with new examples wherever they are drawn at random
	ADAPTUNE_NEW_DRAWS=1 $(PYTEST) -n auto --dist worksteal $(ENDING) -m "not ray and not chaos and not browser and not thorough"

browser: $(INSTALLED) ## the tests that open MLflow's pages in a headless Chromium, which must be installed
	$(BIN)/python -m pytest -m browser

gpu: $(INSTALLED) ## the tests that need a GPU: kernels against torch, every method against a CPU
	$(BIN)/python -m pytest -m gpu tests/gpu

chaos: $(INSTALLED) ## 40 seeded rounds of everything that can fail and 300 races for a store, an hour or more
	$(BIN)/python -m tests.chaos --rounds 40 --seed 0
	$(BIN)/python -m pytest -m minutes
	ADAPTUNE_CHAOS=1 $(BIN)/python -m pytest tests/orchestrator/cli/test_kill.py tests/orchestrator/store/test_lock_race.py

check: $(INSTALLED) ## format, lint, types, import contracts and a strict build of the docs; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(SPHINX) --builder dummy docs build/docs-check
	@$(BIN)/python -m tests.lengths

docs: $(INSTALLED) ## build the documentation as a site in build/docs
	$(SPHINX) --builder html --write-all docs build/docs
	@echo "The site:  build/docs/index.html"

docs-run: $(INSTALLED) ## run what README and docs show, what takes minutes included
	$(BIN)/python -m tests.docs.play --minutes

format: $(INSTALLED) ## rewrite the sources the way `make check` wants them
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: $(INSTALLED) ## run the benchmarks and keep the results in benchmarks/results/
	$(BIN)/python -m benchmarks

wheel: $(INSTALLED) ## build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

wheel-test: wheel ## install the wheel with all it needs into a new environment and run a sweep there, a few minutes
	rm -rf build/clean && $(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(ls dist/*.whl)[offline]"
	cd build/clean && env -u PYTHONPATH bin/python -I ../../tests/installed_sweep.py minilm

lock: ## pin in constraints.txt the newest versions that fit the Python that runs it, so run it with the oldest
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check -e ".[offline,dev]" "$$(grep ^torch== constraints.txt)"
	{ sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+[^ ]*$$//'; } \
		> build/constraints.txt && mv build/constraints.txt constraints.txt

clean: ## remove what make made; sweeps/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
