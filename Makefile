# Plantão. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
# What Python compiles is kept, whatever the shell says: most of the processes that are started here live for seconds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo day0 day1 day2 day60 up down test test-fast release-check crash-test celery-test containers check fix bench bench-parts bench-scale bench-ledger lock lock-check clean

help: ## This list (PYTHON=python3.12 chooses the Python of any of them)
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo ## From a fresh clone to predictions in a table, through real Airflow runs
	@$(BIN)/python -m demo run

day0 day1 day2 day60: .venv/demo ## A bad day acted out, and its recovery: what on-call reads
	@$(BIN)/plantao demo $@

up: .venv/demo ## Airflow's UI on localhost, with the demo in it
	@$(BIN)/python -m demo up

down: ## End everything that `make demo` and `make up` started
	@if [ -d .plantao ]; then $(MAKE) --no-print-directory .venv/demo && $(BIN)/python -m demo down; fi

test: .venv/test ## Every test, on all cores (TESTS="tests/unit -x": these, one after the other)
	@$(PYTEST) $(or $(TESTS),$(ON_ALL_CORES) -m "not release")

test-fast: .venv/test ## In a minute: the rules, properties with fewer examples, one whole run on PostgreSQL
	@SHARE_OF_EXAMPLES=0.1 $(PYTEST) $(ON_ALL_CORES) -q -m "not slow and not release" tests/unit tests/properties tests/test_architecture.py \
	  tests/postgres/test_run.py::$(WHOLE_RUN)

release-check: .venv/test ## All that is too long for every day: 1,000 kills, containers, Celery, the days; prints a table
	@PYTHONPATH=tests $(BIN)/python -m release $(RELEASE)

# `exec`, so that a signal to make reaches pytest. Half of the time is waiting, so there are three processes for two
# cores; so a process has one thread for numbers, unless a test asks for more.
PYTEST = OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 exec $(BIN)/python -m pytest
ON_ALL_CORES = -n $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)) --maxprocesses 8 --dist loadscope --no-loadscope-reorder
WHOLE_RUN = test_every_row_of_the_window_is_scored_and_no_other

crash-test: .venv/test ## Kill workers at a thousand instants, and compare (CRASH="--kills 1000 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m crash $(CRASH)

celery-test: .venv/test ## Two Celery workers share a window, one is killed in the middle; prints the ledger
	@$(BIN)/python -m pytest -q -s tests/airflow/test_celery.py

containers: .venv/test ## docker-compose.yml for real: production and staging side by side, in podman (root on Debian)
	@PYTHONPATH=tests $(BIN)/python -m containers

check: .venv/test ## Format, lint, types, job files, and the locks in step with pyproject.toml
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict --config-data '$(YAMLLINT)' docker-compose.yml
	$(BIN)/plantao jobs list
	@$(MAKE) --no-print-directory lock-check

YAMLLINT := {extends: default, rules: {line-length: {max: 120}, braces: {max-spaces-inside: 1}, \
  comments: {min-spaces-from-content: 1}, document-start: disable}}

fix: .venv/test ## Format, and mend what the linter can mend
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

bench: .venv/demo ## Rows per second: a whole run, each stage alone, and the usual way
	@$(BIN)/python tests/bench/bench.py $(BENCH)

bench-parts: .venv/demo ## What a window in parts costs, and what follows for many workers
	@$(BIN)/python tests/bench/parts.py $(BENCH)

bench-scale: .venv/demo ## What ten million rows cost: memory, runs again, reconciliation; and what small jobs cost
	@$(BIN)/python tests/bench/scale.py $(BENCH)

bench-ledger: .venv/test ## What a ledger of a million runs costs beside one of a thousand
	@PYTHONPATH=tests $(BIN)/python tests/bench/ledger.py $(BENCH)

lock: .venv/test ## Renew requirements.txt and tests/requirements.txt from pyproject.toml (EXTRAS="airflow demo build s3")
	@$(call compile,,requirements.txt,tests/requirements.txt)

clean: down ## End everything and throw away what was made here, but for the packages
	rm -rf .plantao .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

# --- set-up: include/set_up.py installs, with uv where it is on the PATH, else with pip --------------------------------

# PYTHON=... chooses the Python; else that of .venv stays, or the first that fits is taken.
PYTHONS = $(if $(PYTHON),"$(PYTHON)",$(BIN)/python python3 python3.13 python3.12 python3.11)
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))

.PHONY: .venv/demo .venv/test
.venv/demo .venv/test:
	@for python in $(PYTHONS); do \
	  if "$$python" -I -c '$(FITS)' 2>/dev/null; then exec "$$python" -I include/set_up.py $(@F); fi; \
	done; \
	echo "Plantão needs Python 3.11, 3.12 or 3.13, and none of these is one:" $(PYTHONS). >&2; \
	echo "Next: install one, or name it as in: make PYTHON=/path/to/python3.12 demo" >&2; exit 1

# --- the locks: one for what runs, one for what tests it, both universal for Python 3.11 to 3.13 ----------------------

EXTRAS ?= airflow demo build
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
compile = $(COMPILE) $(1) pyproject.toml $(EXTRAS:%=--extra %) -o $(2) && $(COMPILE) $(1) --group test -c $(2) -o $(3)

lock-check: .venv/test ## Compare the locks with pyproject.toml (takes EXTRAS as well)
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
	  cp requirements.txt "$$work/run.txt" && cp tests/requirements.txt "$$work/test.txt" && \
	  $(call compile,,"$$work/run.txt","$$work/test.txt") && \
	  diff -q <(grep -v '^ *#' requirements.txt) <(grep -v '^ *#' "$$work/run.txt") >/dev/null && \
	  diff -q <(grep -v '^ *#' tests/requirements.txt) <(grep -v '^ *#' "$$work/test.txt") >/dev/null && \
	  echo "the locks are in step with pyproject.toml" || \
	  { echo "requirements.txt or tests/requirements.txt is not in step with pyproject.toml. Next: make lock"; exit 1; }
