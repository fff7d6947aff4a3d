# Every target works in a fresh clone: what it needs, it makes first. ARGS reaches the command behind a target.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Servers are in sbin, which a plain user's PATH often lacks.
export PATH := $(PATH):/usr/sbin

.PHONY: help env demo test test-unit lint chaos test-deploy bench wheel lock clean mariadb

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(VENV)/.installed ## Make .venv as locked (PYTHON=python3.12 for another Python)

demo: env ## Run the demo
	$(BIN)/batchscore demo $(ARGS)

# Two processes, since most tests wait for processes, locks and databases; whole files, since many share one world; in the order of
# their names, which ends with the many short ones of tests/unit, so that no process is left alone with a long file.
# pytest's last -m and -n win, so ARGS may still ask for anything (-n 0: one process, for a debugger).
test: env mariadb ## Run all tests (installs a MariaDB server program if it may)
	@command -v mariadbd >/dev/null || set -- -m 'not mysql and not deploy'; set -x; $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder "$$@" $(ARGS)

test-unit: env ## Run the unit tests
	$(BIN)/pytest tests/unit $(ARGS)

lint: env ## Check style, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

chaos: env mariadb ## Run the longer programmes: 200 kills, every failpoint, a fault at every command, 1,000 damaged models, 10,000 rival releases
	BATCHSCORE_EVERY_FAULT=1 BATCHSCORE_EVERY_CUT=1 BATCHSCORE_KILLS=200 BATCHSCORE_RIVAL_TRANSACTIONS=10000 $(BIN)/pytest $(wildcard tests/chaos/test_*.py) tests/chaos/matrix.py \
		tests/integration/test_mysql_faults.py tests/integration/test_mysql_rivals.py \
		tests/integration/bad_input/test_files.py tests/integration/models/test_probe.py tests/contract/store/test_people_and_engine.py tests/contract/store/test_cut_upgrades.py $(ARGS)

# The checks of cluster/ and jobs/ against the real programs. What cannot be had here skips its test, and is told at the end.
test-deploy: env mariadb .deploy/.laid-out ## Check cluster/ and jobs/: units, image, compose, Kubernetes, alerts, DAGs (minutes)
	$(BIN)/pytest -m deploy tests/deploy $(ARGS)

bench: env ## Run the benchmarks; they print ratios
	$(BIN)/python -m tests.benchmarks $(ARGS)

wheel: env ## Build the wheel into dist/
	$(BIN)/python -m hatchling build --clean --target wheel

# One version of each library for every Python (`fewest`): scores are compared bit by bit. The image's are the same, without tools.
lock: env ## Resolve requirements.lock again (ARGS=--upgrade for the newest versions)
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --fork-strategy fewest --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--quiet --output-file requirements.lock $(ARGS)
	$(BIN)/uv pip compile pyproject.toml --extra fast --extra logs --extra metrics --extra mysql-fast --group cpu \
		--constraint requirements.lock --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' \
		--quiet --output-file cluster/docker/requirements.lock

clean: ## Remove what can be made again, .venv too
	rm -rf $(VENV) .deploy dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find batchscore tests -name __pycache__ -prune -exec rm -rf {} +

# Programs that only test-deploy needs. Of Prometheus the packages are unpacked and not installed: no service starts, now or at boot.
# The image's base is Debian's own Python, since no registry may be at hand.
.deploy/.laid-out: tests/deploy/lay-out.sh tests/deploy/tools.txt tests/deploy/airflow.txt
	PYTHON=$(PYTHON) bash tests/deploy/lay-out.sh .deploy
	@touch $@

# Two stamps: a changed pyproject.toml needs a new install of batchscore (seconds), a changed lock a new environment.
$(VENV)/.installed: pyproject.toml $(VENV)/.locked
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# --clear: nothing stays that the lock no longer names. --only-binary: no compiler needed, no foreign build script run.
$(VENV)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.platform != "linux")' || { \
		echo "batchscore needs Python 3.11 or newer on Linux; $(PYTHON) is: $$($(PYTHON) --version 2>&1 || true)" \
			"→ make env PYTHON=python3.12, or wherever a newer one is" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: -r requirements.lock
	@touch $@

# The core packages of mariadb-server are its programs without its service: nothing starts, now or at boot. Tests start
# and stop servers of their own.
mariadb:
	@if command -v mariadbd >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get -q update; \
		apt-get -qy -o DPkg::Lock::Timeout=300 install --no-install-recommends mariadb-server-core mariadb-client-core; \
	else \
		echo '*** MYSQL TESTS ARE SKIPPED: no mariadbd here, and no root with apt-get to install it ***' >&2; \
		[ "$${CI:-}" != true ]; \
	fi
