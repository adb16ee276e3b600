# `make demo` and `make test` need only Python 3.11+, pip, make and git: everything goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
DEV := .venv/.ready-dev
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test check lint types bench lock clean

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fairway needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps -e .
	touch $@

$(DEV): $(READY) requirements-dev.lock  ## all extras and the tools: real servers, learners, lint
	$(PIP) install --require-hashes -r requirements-dev.lock
	touch $@

demo: $(READY)  ## the whole loop on real flights, in about a minute (KEEP=1 stays up, FAULT=labels_shuffled breaks it)
	@$(BIN)/python examples/late-flights/demo.py $(if $(KEEP),--keep)

test: $(DEV)  ## every test, fast ones first
	$(BIN)/python -m pytest tests/unit tests/backends tests/servers tests/journeys $(ARGS)

check: lint types $(DEV)  ## before each commit: lint, types, layers, unit tests
	$(BIN)/python -m pytest tests/unit

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

bench: $(DEV)  ## every benchmark; one alone: .venv/bin/python bench/NAME.py
	for file in bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

lock: $(DEV)  ## exact versions and hashes for 3.11 to 3.13, without addresses
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --output-file requirements-dev.lock

clean:
	rm -rf .venv build dist src/*.egg-info
