# make demo: the whole story in minutes.   make test: everything that must hold.
# The environment is made once, in .venv, with the exact versions of constraints.txt.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
SHELL  := /bin/bash

.PHONY: demo test lint check docs notebook dist clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/staanet run quick --out runs/quick

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests bench examples
	$(BIN)/ruff format --check src tests bench examples
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir site

# the stored notebook: run from top to bottom, without its sounds
notebook: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebook]'
	STORY_WITHOUT_SOUND=1 $(BIN)/jupyter execute --inplace docs/story.ipynb

# wheel and sdist in dist/, tried in a clean environment
dist: $(VENV)/.installed
	tests/smoke_wheel.sh $(BIN)/python $(CURDIR)/build/smoke
	mkdir -p dist && cp build/smoke/dist/* dist/

clean:
	rm -rf $(VENV) runs site build dist
