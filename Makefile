# Everything here needs Python 3.11 or later and make; the rest is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
export QUICK GROWTH BENCH_JSON BENCH_ONLY BENCH_ROUNDS
export CHAOS_MINUTES CHAOS_SEED CHAOS_RATE CHAOS_JSON CHAOS_LOGS CHAOS_CONTROL CHAOS_FAULTS

.PHONY: help demo pictures test test-fast chaos bench check docs findings format clean
help:
	@echo "make demo          watch notifications being delivered, retried, replayed; ONCE=1 ends after the verdicts"
	@echo "make test          run the tests; ARGS=... goes to pytest"
	@echo "make test-fast     run the tests that start no programs of their own; about two minutes"
	@echo "make chaos         break everything for CHAOS_MINUTES (3) by the schedule of CHAOS_SEED; count at the receiver"
	@echo "make bench         measure everything that docs/performance.md claims; QUICK=1 takes about 15 minutes"
	@echo "make bench GROWTH=1   measure 1, 2 and 4 workers beside 10 thousand to 10 million rows"
	@echo "make check         format, lint, types, imports, migrations, deployment checks"
	@echo "make docs          build the site of docs/ in build/docs; a link that leads nowhere fails"
	@echo "make findings      run the scripts in findings/, which install real libraries; ONLY=name runs one"
	@echo "make format        let ruff format the code"
	@echo "make pictures      photograph the admin for README and docs (needs Chromium)"
	@echo "make clean         remove what these commands made"

.venv/installed: requirements.txt requirements-dev.txt requirements-psycopg3.txt requirements-celery-beat.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name it: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/psycopg3 -r requirements-psycopg3.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/celery-beat -r requirements-celery-beat.txt
	@touch $@

demo: .venv/installed
	@$(BIN)/python -m dev.services run -- $(BIN)/python -m dev.demo $(if $(ONCE),--once)

test: .venv/installed
	@$(BIN)/python -m dev.services run -- $(BIN)/python -m pytest $(ARGS)

# The tests that start no programs of their own: for the loop of editing and testing.
test-fast: .venv/installed
	@FAST=1 $(BIN)/python -m dev.services run -- $(BIN)/python -m pytest -n 2 -m "not processes" $(ARGS)

# Brings its own servers, because it stops and kills them.
chaos: .venv/installed
	@$(BIN)/python -m dev.chaos

.venv/benchmarks: .venv/installed requirements-bench.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-bench.txt
	@touch $@

# Brings its own servers too: nothing else may use them meanwhile.
bench: .venv/benchmarks
	@$(BIN)/python -m benchmarks

pictures: .venv/installed
	@$(BIN)/python -m dev.services run -- $(BIN)/python -m dev.pictures

check: .venv/installed
	@$(BIN)/python -m dev.services run -- sh -e dev/check.sh

.venv/docs: .venv/installed requirements-docs.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-docs.txt
	@touch $@

docs: .venv/docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env -b html docs build/docs
	@echo "make docs: build/docs/index.html"

# Not a part of CI: each script installs the library it is about.
findings:
	@failed=; for script in findings/$(or $(ONLY),*).sh; do \
		echo "== $$script"; bash "$$script" || failed="$$failed $$script"; \
	done; test -z "$$failed" || { echo "not as stated:$$failed"; exit 1; }

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage*
