# make demo: the whole story in minutes.   make test: everything that must hold.
# The environment is made once, in .venv, with the exact versions of constraints.txt.
PYTHON ?= python3.11
VENV   ?= .venv
BIN    := $(VENV)/bin
SHELL  := /bin/bash

.PHONY: demo test models lint check docs notebook dist audit coverage clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/staanet run quick --out runs/quick

PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
# Tests of the modules on which everything stands; those modules' branches are counted in them.
# The longest file comes first, so that no core waits for the other.
GATED := $(addprefix tests/,reliability/test_fuzz.py storage audio core corpora test_config.py)

# make test GATE=1 runs the same tests in two parts, the first under the gate of make coverage
test: $(VENV)/.installed
	$(if $(GATE),$(MAKE) coverage VENV=$(VENV))
	$(PYTEST) $(if $(GATE),$(addprefix --ignore=,$(GATED)))

lint: $(VENV)/.installed
	$(BIN)/ruff check src tests bench examples docs
	$(BIN)/ruff format --check src tests bench examples docs/hooks docs/gallery
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict --quiet --site-dir site

# models of other packages, attacked and audited (their own dependencies are not needed)
models: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt silero-vad pipecat-ai speechmos resemblyzer
	$(PYTEST) tests/victims/test_named_models.py

# the stored notebook: run from top to bottom, without its sounds
notebook: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[notebook]'
	STORY_WITHOUT_SOUND=1 $(BIN)/jupyter execute --inplace docs/story.ipynb

# wheel and sdist in dist/, tried in a clean environment
dist: $(VENV)/.installed
	tests/smoke_wheel.sh $(BIN)/python $(CURDIR)/build/smoke
	mkdir -p dist && cp build/smoke/dist/* dist/
# Known holes in what is installed; skipped with a reason where the registry cannot be reached.
audit: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/frozen.txt
	@if curl --silent --head --max-time 10 https://pypi.org/ > /dev/null; \
	then $(BIN)/pip-audit --requirement $(VENV)/frozen.txt --no-deps --disable-pip; \
	else echo "audit skipped: pypi.org cannot be reached"; fi

# Branches of the modules on which everything stands, in programs that they start too: at least 95 % of them.
coverage: $(VENV)/.installed
	$(PYTEST) --cov-branch --cov-report= $(addprefix --cov=src/staanet/,storage audio config core corpora) $(GATED)
	$(BIN)/coverage report --fail-under=95 --include='*/storage/*,*/audio/*,*/config/*,*/core/metrics.py,*/corpora/*'

clean:
	rm -rf $(VENV) runs site build dist
