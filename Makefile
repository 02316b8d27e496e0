# Plantão. `make help` lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo day0 day1 day2 day60 up down test crash-test celery-test containers check fix bench bench-parts bench-scale lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/demo ## From a fresh clone to predictions in a table, through real Airflow runs
	@$(BIN)/python -m demo run

day0 day1 day2 day60: .venv/demo ## A bad day acted out, and its recovery: what on-call reads
	@$(BIN)/plantao demo $@

up: .venv/demo ## Airflow's UI on localhost, with the demo in it
	@$(BIN)/python -m demo up

down: ## End everything that `make demo` and `make up` started
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m demo down; fi

test: .venv/test ## Every test, on all cores (TESTS="tests/unit -x": these, one after the other)
	@OMP_WAIT_POLICY=passive OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest $(or $(TESTS),$(ON_ALL_CORES))

# A file's tests stay together and in order; those that wait for an Airflow come first. Half of the time is waiting, so
# there are three processes for two cores.
ON_ALL_CORES = -n $$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2)) --maxprocesses 8 --dist loadfile --no-loadscope-reorder

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

lock: .venv/test ## Renew requirements.txt and tests/requirements.txt from pyproject.toml (EXTRAS="airflow demo build s3")
	@$(call compile,,requirements.txt,tests/requirements.txt)

clean: down ## End everything and throw away what was made here, but for the packages
	rm -rf .plantao .pytest_cache .mypy_cache .ruff_cache .hypothesis dist

# --- set-up: with uv where it is installed, else with venv and pip alone ----------------------------------------------

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else \
	  "Plantão needs Python 3.11, 3.12 or 3.13; this is %d.%d. Try: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	@echo "setting up .venv"
	@if command -v uv >/dev/null; then uv venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" .venv; \
	  else $(PYTHON) -m venv --clear .venv; fi

.venv/demo: requirements.txt pyproject.toml | .venv/bin/python
	@$(call install,-r requirements.txt)
	@$(call install_project)
	@touch $@

.venv/test: tests/requirements.txt .venv/demo
	@$(call install,-r requirements.txt -r tests/requirements.txt)
	@touch $@

# Bytecode is compiled now: without it every start of Airflow would compile ten thousand modules.
install = echo "installing the packages of$(subst -r,,$(1))"; \
  if command -v uv >/dev/null; then \
    UV_COMPILE_BYTECODE=1 uv pip install --quiet --python $(BIN)/python --require-hashes $(1); \
  else \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes $(1); \
  fi
install_project = if command -v uv >/dev/null; then \
    uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
  else \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
  fi

# --- the locks: one for what runs, one for what tests it, both universal for Python 3.11 to 3.13 ----------------------

EXTRAS ?= airflow demo build
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
compile = $(COMPILE) $(1) pyproject.toml $(EXTRAS:%=--extra %) -o $(2) && $(COMPILE) $(1) --group test -c $(2) -o $(3)

.PHONY: lock-check
lock-check:
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && \
	  cp requirements.txt "$$work/run.txt" && cp tests/requirements.txt "$$work/test.txt" && \
	  $(call compile,,"$$work/run.txt","$$work/test.txt") && \
	  diff -q <(grep -v '^ *#' requirements.txt) <(grep -v '^ *#' "$$work/run.txt") >/dev/null && \
	  diff -q <(grep -v '^ *#' tests/requirements.txt) <(grep -v '^ *#' "$$work/test.txt") >/dev/null && \
	  echo "the locks are in step with pyproject.toml" || \
	  { echo "requirements.txt or tests/requirements.txt is not in step with pyproject.toml. Next: make lock"; exit 1; }
