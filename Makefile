# make run   set everything up and start the gateway with its demo
# make test  set everything up and run all tests
# make lint  formatting, ruff, types, news fragments
# make docs  write docs/reference, docs/kong-differences.md and the default configuration from the declarations

VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# setuptools' default editable mode hides twisted/plugins from twistd.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat

.PHONY: run test lint docs format clean

run: $(VENV)/installed
	@$(BIN)/twistd --nodaemon --pidfile= kongtwist --demo

test: $(VENV)/installed-test
	PYTHON=$(BIN)/python tests/peers.sh
	$(BIN)/python -m tests.run $(TESTS)

lint: $(VENV)/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy kongtwist twisted/plugins tests examples benchmarks
	$(BIN)/towncrier build --draft --version next > $(VENV)/news.md

docs: $(VENV)/installed
	$(BIN)/python -m kongtwist.commands.reference_pages docs/reference
	$(BIN)/python -m kongtwist.config.default_file > $(VENV)/kongtwist.conf
	mv $(VENV)/kongtwist.conf conf/kongtwist.conf.default
	$(BIN)/python -m tests.differences_document > $(VENV)/differences.md
	mv $(VENV)/differences.md docs/kong-differences.md

format: $(VENV)/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info _trial_temp* .mypy_cache .ruff_cache tests/live/node_modules

TESTS ?= tests

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ...'; exit 1; }
	@echo 'Making a Python environment in $(VENV).'
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo 'the venv module is missing; on Debian: apt-get install python3-venv'; exit 1; }

$(VENV)/installed: $(BIN)/python setup.cfg pyproject.toml
	@echo 'Installing kongtwist and the packages it needs into $(VENV): a minute or two, this once.'
	@$(INSTALL) -e .
	@$(INSTALL) -e '.[demo]' || echo 'The small Kafka broker of the demo is not to be had here; the demo starts without it.'
	@touch $@

$(VENV)/installed-test: $(BIN)/python setup.cfg pyproject.toml
	@echo 'Installing kongtwist and the packages its tests need into $(VENV): some minutes, this once.'
	@$(INSTALL) -e '.[test]'
	@touch $@ $(VENV)/installed
