# Every target makes .venv and installs what it needs on first use, and again when
# pyproject.toml changes. `make serve ARGS="--port 9000"` passes options on.
PYTHON ?= python3
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help install serve demo test check bench docs

help:
	@echo "make serve | demo | test | check | bench | docs | install"

serve: .venv/base.stamp
	$(BIN)/tollkeeper serve $(ARGS)

demo: .venv/dev.stamp
	$(BIN)/tollkeeper demo $(ARGS)

test: .venv/dev.stamp
	$(BIN)/python -m pytest $(ARGS)

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/base.stamp
	$(BIN)/tollkeeper bench run guard-speed --scale smoke
	$(BIN)/tollkeeper bench run gateway-overhead --scale smoke

docs: .venv/dev.stamp
	$(BIN)/python -m pytest tests/test_docs.py

install: .venv/dev.stamp

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Tollkeeper needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/base.stamp: pyproject.toml | .venv/python.stamp
	$(PIP) --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/python.stamp
	$(PIP) --constraint constraints.txt --editable '.[dev,lab]'
	@touch $@ .venv/base.stamp
