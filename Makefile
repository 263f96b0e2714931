# `make figures` and `make test` are all one needs: the first of them builds .venv, and both keep it as the lock says.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= tiny

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help setup figures redraw site doctor test lint types organism clean
.DELETE_ON_ERROR:

help:
	@echo "make figures   run every notebook and remake every figure (PROFILE=$(PROFILE))"
	@echo "make redraw    draw the figures again from their CSV files, without a model"
	@echo "make site      build pages to read into site/, from figures and executed notebooks (PROFILE=$(PROFILE))"
	@echo "make doctor    say what is missing on this machine for PROFILE, and what it would take"
	@echo "make test      run the tests"
	@echo "make lint      check code and notebooks with ruff, words with codespell, and types"
	@echo "make types     check types with mypy"
	@echo "make organism  train the embedded models and their SAEs anew"
	@echo "make setup     install the pinned packages into $(VENV) (PYTHON=$(PYTHON))"
	@echo "make clean     remove cached stages, executed notebooks, pages and caches; figures stay"

setup: $(INSTALLED)

# The stamp is written last, so an installation that was cut short is done again.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1 || true), Python 3.11, 3.12 or 3.13 is needed;" \
	       "name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(INSTALLED)-site: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -e '.[site]'
	@touch $@

figures: setup
	$(BIN)/python -m helpers.reproduce --profile $(PROFILE)

redraw: setup
	$(BIN)/python -m helpers.reproduce --profile $(PROFILE) --figures-only

# The packages that build pages are an extra, installed when first asked for.
site: $(INSTALLED)-site
	$(BIN)/python docs/build.py --profile $(PROFILE)

doctor: setup
	$(BIN)/python -m helpers.doctor --profile $(PROFILE)

test: setup
	$(BIN)/python -m pytest -n logical

lint: setup types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: setup
	$(BIN)/mypy

organism: setup
	$(BIN)/python -m helpers.organism

clean:
	rm -rf runs site .pytest_cache .ruff_cache .mypy_cache build *.egg-info
	find helpers tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
	find helpers tests notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
