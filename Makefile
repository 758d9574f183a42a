# Needs only Python 3.11 or newer and make. Everything else is installed into .venv by the lock file.
# (The examples in JavaScript need Node 20 with npm, and their tests Chromium: without them these are skipped.)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REACT := examples/react
# Some images forbid bytecode files. Then each of the processes that the tests start compiles everything again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: install demo check quick test test-all examples browser chaos calm bench lint openapi env lock clean

install: $(VENV)/installed  ## Everything that the commands and the tests need, into .venv

demo: $(VENV)/installed  ## Start everything and tell the story of five withdrawals
	@$(BIN)/payouts demo $(ARGS)

check: $(VENV)/installed  ## A minute: style, types, layers, and one withdrawal's life
	@$(MAKE) --no-print-directory -j2 lint quick

quick: $(VENV)/installed  # the tests of `make check`; the plugin takes as long to load as the tests of a room
	@$(BIN)/python -m pytest -p no:schemathesis --numprocesses 2 --tier check $(ARGS)

test: $(VENV)/installed browser  ## Every truth once, and a share of the exhaustive tests; all tests of the files in ARGS
	@$(BIN)/python -m pytest $(ARGS)

test-all: $(VENV)/installed browser  ## Everything: each line killed, each scenario, each page, chaos
	@$(BIN)/python -m pytest --tier all $(ARGS)

examples: $(REACT)/dist/main.js  ## Build the React form

browser:  ## Chromium, for the tests of the panel and the React form: Debian's, where there is none and we are root
	@tests/examples/browser.sh

chaos: $(VENV)/installed  ## Break everything under load, then prove that nothing was paid twice or lost
	@$(BIN)/python -m tests.chaos $(ARGS)

calm: $(VENV)/installed  ## Thousands of healthy withdrawals, and no alarm about any (needs promtool)
	@$(BIN)/python -m tests.chaos.calm $(ARGS)

bench: $(VENV)/bench-installed  ## Measure against rivals in turns, write docs/performance.md (--help: rows)
	@$(BIN)/python -m bench $(ARGS)

lint: $(VENV)/installed  ## Style, types, layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --strict examples/python/*.py examples/receiver/*.py
	@$(BIN)/lint-imports

openapi: $(VENV)/installed  ## Write docs/openapi.json and docs/api.md anew
	@$(BIN)/python -m api.reference docs

env:  ## Write .env with fresh secrets, for docker compose
	@$(PYTHON) -m sandbox.dotenv

lock: $(VENV)/installed  ## Choose versions anew (needs uv)
	uv pip compile pyproject.toml --no-strip-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --upgrade --custom-compile-command 'make lock' --output-file requirements.lock
	uv pip compile pyproject.toml --extra simulator --no-strip-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --upgrade --custom-compile-command 'make lock' --constraint requirements.lock --output-file requirements-simulator.lock
	uv pip compile pyproject.toml --extra tracing --extra sentry --no-strip-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --upgrade --custom-compile-command 'make lock' --constraint requirements.lock --output-file requirements-observed.lock
	uv pip compile pyproject.toml --extra test --no-strip-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --upgrade --custom-compile-command 'make lock' --constraint requirements-observed.lock --output-file requirements-dev.lock
	uv pip compile pyproject.toml --extra bench --no-strip-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --upgrade --custom-compile-command 'make lock' --constraint requirements-dev.lock --output-file requirements-bench.lock

clean:  ## Forget the virtual environment
	rm -rf $(VENV)

# The lock names everything, so pip need not look for more: an older one that does takes a newer pydantic for
# `pydantic[email]` than the lock's, as soon as there is one, and then refuses it for its hash.
$(VENV)/installed: requirements-dev.lock pyproject.toml
	@echo "Installing into $(VENV) (once, about a minute) …"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# The rival of `make bench` is a Django project; nothing else needs these.
$(VENV)/bench-installed: requirements-bench.lock $(VENV)/installed
	@echo "Installing the rival's packages into $(VENV) (once) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements-bench.lock
	@touch $@

$(REACT)/dist/main.js: $(REACT)/node_modules/.package-lock.json $(wildcard $(REACT)/src/*) examples/js/coin-payouts.mjs
	@cd $(REACT) && npm run --silent build

$(REACT)/node_modules/.package-lock.json: $(REACT)/package-lock.json $(REACT)/package.json $(REACT)/.npmrc
	@cd $(REACT) && npm ci --silent
