# Everything happens in a virtual environment of its own; nothing else needs to be set up.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: run test lint wheel bench clean

run: $(VENV)/demo.installed ## the service on a Postgres of its own, with the published example
	$(BIN)/medmitra-cases demo

test: $(VENV)/dev.installed ## the whole suite against a real Postgres, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: $(VENV)/dev.installed ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/dev.installed ## dist/*.whl, built from the source distribution
	rm -rf build dist *.egg-info  # a stale build/ would ship deleted SQL files
	$(BIN)/python -m build

bench: ## the service beside its peers, into benchmarks/results.md; a quarter of an hour, 5 GB of /tmp
	$(MAKE) VENV=.venv-bench .venv-bench/demo.installed
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	.venv-bench/bin/python -m benchmarks $(BENCH_OPTIONS)

clean: ## remove all that the above made
	rm -rf .venv* build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		benchmarks/peers/fastify/node_modules

$(VENV)/%.installed: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	touch $@
