# `make run` starts Callsheet, `make test` checks everything. Both set up what they need, in .venv.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help run test check fmt lock docs clean setup setup-dev

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(VENV)/tools/bin/uv
UV_VERSION := 0.13.9

export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export UV_CACHE_DIR ?= $(CURDIR)/$(VENV)/cache

help: ## Show what each command does
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

# --- Set-up: each stamp is newer than what it was made from, so a second run does nothing -------------------

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit("Callsheet needs Python 3.11 or newer; this is %d.%d. Name another one: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Setting up .venv (once) ..."
	@$(PYTHON) -m venv $(VENV)/tools
	@$(VENV)/tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(BIN)/python: $(UV)
	@test -x $@ || $(UV) venv --quiet --allow-existing --python $(VENV)/tools/bin/python $(VENV)
	@touch -c $@

$(VENV)/run.stamp: $(BIN)/python requirements.lock pyproject.toml
	@test -e $(VENV)/dev.stamp || $(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/dev.stamp: $(BIN)/python requirements-dev.lock pyproject.toml
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@ $(VENV)/run.stamp

setup: $(VENV)/run.stamp
setup-dev: $(VENV)/dev.stamp
