# make help lists what there is. Everything is installed into VENV; nothing needs sudo.

VENV ?= .venv
PYTHON ?=
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
FOR_TEST := --requirement requirements/test.txt --requirement requirements/demo.txt

.PHONY: help test test-all demo bench lint clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      the example project: 234,908 real cities, migrated in front of you"
	@echo "make test      the tests on SQLite and, where it is installed, PostgreSQL, in parallel; takes some minutes."
	@echo "               ARGS='-k name -x' goes to pytest; a single file, or ARGS=-n0, runs in one process"
	@echo "make test-all  these, the fault campaigns, and the tests on the emulators of Google Cloud; takes 25 minutes."
	@echo "               make test ARGS=tests/faults or ARGS=tests/cloud runs one of the two"
	@echo "make bench     measures what benchmarks/README.md says; takes some minutes"
	@echo "make lint      ruff, mypy, import-linter, and whether a Django migration is missing"
	@echo "make clean     removes the virtual environment, caches, builds, and the database of the demo"
	@echo "Variables:     VENV=$(VENV)  PYTHON=the interpreter to make it with (default: the first from 3.10 on)"

test: $(VENV)/.for-test
	$(BIN)/python -m tests $(ARGS)

test-all: $(VENV)/.for-test
	$(BIN)/python -m tests --all $(ARGS)

demo: $(VENV)/.for-demo
	$(BIN)/python example_project/manage.py demo

bench: $(VENV)/.for-test
	$(BIN)/python -m benchmarks.throughput $(ARGS)
	$(BIN)/python -m benchmarks.growth
	$(BIN)/python -m benchmarks.selective
	$(BIN)/python -m benchmarks.large

lint: $(VENV)/.for-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m django makemigrations --check --dry-run --settings tests.settings
	$(BIN)/python example_project/manage.py makemigrations --check --dry-run

clean:
	rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	rm -rf example_project/*.sqlite3* example_project/data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is newer than what it was made from, so that the second run installs nothing. Where the packages of the
# clouds cannot be installed, the other tests still run; with MASSMIGRATION_TEST_REQUIRE=all their absence is a failure.
$(VENV)/.for-demo: pyproject.toml requirements/demo.txt | $(BIN)/python
	@echo "Installing massmigration and the cities into $(VENV)"
	@$(PIP) --editable . --requirement requirements/demo.txt
	@touch $@

$(VENV)/.for-test: pyproject.toml requirements.txt requirements/test.txt requirements/test-cloud.txt requirements/demo.txt | $(BIN)/python
	@echo "Installing massmigration and what its tests need into $(VENV)"
	@$(PIP) --requirement requirements/test-cloud.txt $(FOR_TEST) || { \
		echo "requirements/test-cloud.txt cannot be installed here; going on without it"; \
		$(PIP) --editable . $(FOR_TEST); }
	@touch $@

$(VENV)/.for-lint: requirements/lint.txt $(VENV)/.for-test
	@echo "Installing the linters into $(VENV)"
	@$(PIP) --requirement requirements/lint.txt
	@touch $@

$(BIN)/python:
	@for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.10 python); do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then \
			echo "Making $(VENV) with $$("$$python" --version)"; \
			"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
			exit 0; \
		fi; \
	done; \
	echo "No Python from 3.10 on was found. Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1
