# referee: everything a person types, in one place. Needs Python 3.11+, git and make; the rest is set up in .venv.
#
#   make demo       draw a first picture with the embedded zoo
#   make test       all tests but the slow ones
#   make nightly    all tests
#   make lint       ruff and mypy
#   make docs       the documentation, as a site in site/
#   make bench      what a step costs, over its bare model calls
#   make evidence   draw and judge held-out prompts with every method, in runs/evidence; a day; goes on where it stopped
#   make clean      remove .venv, caches and builds; runs/ stays

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

PROMPT ?= a red circle and a blue striped square
PYTEST ?= $(BIN)/python -m pytest
ARGS   ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test nightly lint docs bench evidence clean

help:
	@sed -n 's/^#   //p' Makefile

setup: $(READY)

# Set up once, and again when pyproject.toml changes.
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "referee needs Python 3.11 or newer: make PYTHON=python3.11")'
	@echo "setting up $(VENV): torch and its company, several GB the first time"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(READY)
	$(BIN)/referee generate "$(PROMPT)" --referee blip2 --referee clip $(ARGS)

test: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

nightly: $(READY)
	$(PYTEST) $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m mkdocs build

bench: $(READY)
	$(BIN)/python benchmarks/step.py $(ARGS)

evidence: $(READY)
	$(BIN)/referee bench pocket --out runs/evidence $(ARGS)

clean:
	rm -rf $(VENV) dist build site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find core plugins tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
