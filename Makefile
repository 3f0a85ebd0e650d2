# `make run` starts Callsheet, `make test` checks everything. Both set up what they need, in .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test chaos fuzz bench check fmt lock migration openapi verify-scale pictures clean setup setup-dev setup-bench
.NOTPARALLEL:

# The first of these that is new enough; name another with make PYTHON=/path/to/python
PYTHON     ?= python3 python3.14 python3.13 python3.12 python3.11
VENV       := .venv
BIN        := $(VENV)/bin
UV         := $(VENV)/tools/bin/uv
UV_VERSION := 0.13.9
JOBS       ?= 2000
SEED       ?= 1
MINUTES    ?= 5

# Compiled once: without these files every process, and every test process, compiles all it imports for seconds.
unexport PYTHONDONTWRITEBYTECODE

export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export UV_CACHE_DIR ?= $(CURDIR)/$(VENV)/cache

help: ## Show what each command does
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup ## Start Callsheet; takes PORT=8000 SIMULATOR_PORT=8001 DATA=.callsheet BIND=127.0.0.1
	@# make hands on what it was given as environment, where `callsheet` looks for it.
	@$(BIN)/callsheet up

test: check ## Check everything, then run every test
	@$(BIN)/pytest -n auto --maxprocesses 4

chaos: setup-dev ## Kill and cut everything, again and again; takes JOBS=2000 SEED=1 MINUTES=5
	@$(BIN)/pytest -m slow tests/faults
	@$(BIN)/python -m tests.faults.storm --jobs $(JOBS) --seed $(SEED) --minutes $(MINUTES)

fuzz: setup-dev ## Call every operation, alone and as answers lead, until time is up; takes MINUTES=5 SEED=1
	@SEED='$(if $(filter-out file,$(origin SEED)),$(SEED))' $(BIN)/python -m tests.openapi.fuzz $(MINUTES)

bench: setup-bench ## Measure how fast it is, against others; takes QUICK=1 ROUNDS=3 JOBS=10000000 FIGURES='a e'
	@$(BIN)/python -m tests.bench $(if $(QUICK),--quick) --rounds $(or $(ROUNDS),3) $(if $(filter-out file,$(origin JOBS)),--jobs $(JOBS)) $(FIGURES)

check: setup-dev ## Format, lint, types, imports, SQL of the migrations, container files
	@$(BIN)/ruff format --check --quiet --output-format concise || { echo "Not in our format: make fmt" >&2; exit 1; }
	@$(BIN)/ruff check --quiet
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -c "$$PRINT_SQL" >$(VENV)/migrations.sql
	@$(BIN)/squawk $(VENV)/migrations.sql
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

fmt: setup-dev ## Mend what a tool can mend, and format
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format

lock: $(VENV)/place ## Remake the locks after a change in pyproject.toml; UPGRADE=1 takes newer versions too
	@$(COMPILE) --output-file requirements.lock
	@$(COMPILE) --output-file requirements-dev.lock --constraints requirements.lock --group dev
	@$(COMPILE) --output-file requirements-bench.lock --constraints requirements-dev.lock --group dev --group bench

migration: setup-dev ## Write the migration that the tables ask for; takes MESSAGE='resolve each hold once'
	@test -n '$(MESSAGE)' || { echo "Say what it does: make migration MESSAGE='resolve each hold once'" >&2; exit 1; }
	@$(BIN)/python -c "$$WRITE_MIGRATION" '$(MESSAGE)'
	@$(BIN)/ruff format --quiet migrations

openapi: setup-dev ## Renew docs/openapi.json after a change of the API; takes BREAKING=yes where callers will break
	@BREAKING='$(BREAKING)' $(BIN)/python -m tests.openapi.document

verify-scale: setup-dev ## Prove the promises on a million jobs and say how long it took; takes JOBS=1000000
	@$(BIN)/python -m tests.verify.scale $(or $(JOBS),1000000)

pictures: setup-dev ## Take the README's pictures anew; needs a Chromium
	@PICTURES=1 $(BIN)/pytest tests/incidents/test_page.py

clean: ## Remove .venv and every cache; your data stays
	@rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find app migrations tests -name __pycache__ -prune -exec rm -rf {} +

COMPILE = $(UV) pip compile pyproject.toml --extra local --universal --python-version 3.11 \
	--generate-hashes --no-header --quiet $(if $(UPGRADE),--upgrade)

define PRINT_SQL
from alembic import command
from app.migrate import config
command.upgrade(config(None), "head", sql=True)
endef
export PRINT_SQL

define WRITE_MIGRATION
import sys, tempfile
from pathlib import Path
from alembic import command
from app.migrate import FOLDER, config, upgrade
from app.postgres import EmbeddedPostgres
number = len(list(FOLDER.glob("versions/*.py"))) + 1
with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder, "postgres")) as postgres:
    upgrade(postgres.url)
    command.revision(config(postgres.url), sys.argv[1], autogenerate=True, rev_id=f"{number:04}")
endef
export WRITE_MIGRATION

# --- Set-up: each file below is newer than what it was made from, so a second run does nothing --------------

# Whatever broke .venv (a moved folder, a Python that is gone, a kill in the middle), it is laid anew.
SOUND = import glob, os, sys; infos = glob.glob("$(VENV)/lib/python*/site-packages/*.dist-info"); \
	sys.exit(not infos or not all(os.path.exists(os.path.join(info, "..", line.rsplit(",", 2)[0].strip(chr(34)))) \
	for info in infos for line in open(info + "/RECORD")))

ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),help)),)
  $(shell for turn in 1 2 3 4 5 6 7 8 9 10 11 12; do \
    kill -0 "`cat $(VENV)/unfinished 2>/dev/null`" 2>/dev/null || break; \
    echo "Another make sets up .venv; waiting ..." >&2; sleep 5; done)
  $(shell { test "`cat $(VENV)/place`" = '$(CURDIR)' && test ! -e $(VENV)/unfinished && \
    $(BIN)/python -ISc '$(SOUND)' || rm -f $(VENV)/place; \
    test -e $(VENV)/place || { $(UV) --version | grep -q "uv $(UV_VERSION)" && $(VENV)/tools/bin/python -c ''; } || rm -f $(UV); } >/dev/null 2>&1)
endif

$(UV):
	@for python in $(PYTHON); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	  version=`$$python --version 2>/dev/null` && found="$$found $$version"; python=; done; \
	test -n "$$python" || { echo "Callsheet needs Python 3.11 or newer; found:$${found:- none}." \
	  "Name another: make PYTHON=/path/to/python" >&2; exit 1; }; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || { echo "$$python comes without its venv module;" \
	  "on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }; \
	echo "Setting up .venv (once) ..."; mkdir -p $(VENV); echo $$PPID >$(VENV)/unfinished; \
	$$python -m venv --clear $(VENV)/tools && \
	$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(VENV)/place: $(UV)
	@rm -rf $(VENV)/bin $(VENV)/lib* $(VENV)/include $(VENV)/share $(VENV)/*.stamp
	@$(UV) venv --quiet --allow-existing --python $(VENV)/tools/bin/python $(VENV)
	@echo '$(CURDIR)' >$@

# $(call install,LOCK): exactly what the lock names, and Callsheet itself.
define install
@echo $$PPID >$(VENV)/unfinished
@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes $(1)
@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
@rm -f $(VENV)/unfinished $(VENV)/bench.stamp
@touch $@
endef

$(VENV)/run.stamp: $(VENV)/place requirements.lock pyproject.toml
	$(call install,$(if $(wildcard $(VENV)/dev.stamp),requirements-dev.lock,requirements.lock))

$(VENV)/dev.stamp: $(VENV)/place requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock)
	@touch $(VENV)/run.stamp

# What development needs is in it, too, so that going back to that takes nothing.
$(VENV)/bench.stamp: $(VENV)/place requirements-bench.lock pyproject.toml
	$(call install,requirements-bench.lock)
	@touch $(VENV)/run.stamp $(VENV)/dev.stamp

setup: $(VENV)/run.stamp
setup-dev: $(VENV)/dev.stamp
setup-bench: $(VENV)/bench.stamp
