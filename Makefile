# `make figures` and `make test` are all one needs: the first of them builds .venv, and both keep it as the lock says.
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= tiny

BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: help setup figures redraw doctor test lint organism clean
.DELETE_ON_ERROR:

help:
	@echo "make figures   run every notebook and remake every figure (PROFILE=$(PROFILE))"
	@echo "make redraw    draw the figures again from their CSV files, without a model"
	@echo "make doctor    say what is missing on this machine for PROFILE, and what it would take"
	@echo "make test      run the tests"
	@echo "make lint      check code and notebooks with ruff"
	@echo "make organism  train the embedded model and its SAE anew"
	@echo "make setup     install the pinned packages into $(VENV) (PYTHON=$(PYTHON))"
	@echo "make clean     remove cached stages, executed notebooks and caches; figures stay"

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

figures: setup
	$(BIN)/python -m helpers.reproduce --profile $(PROFILE)

redraw: setup
	$(BIN)/python -m helpers.reproduce --profile $(PROFILE) --figures-only

doctor: setup
	$(BIN)/python -m helpers.doctor --profile $(PROFILE)

test: setup
	$(BIN)/python -m pytest -n 2

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

organism: setup
	$(BIN)/python -m helpers.organism

clean:
	rm -rf runs .pytest_cache .ruff_cache build *.egg-info
	find helpers tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
	find helpers tests notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
