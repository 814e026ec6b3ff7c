# Everything happens in a virtual environment of its own; nothing else needs to be set up.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
LOCK = .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	--custom-compile-command "make lock" setup.cfg

.PHONY: run test fuzz lint wheel lock bench clean

run: $(VENV)/demo.installed ## the service on a Postgres of its own, with the published example
	$(BIN)/medmitra-cases demo

test: $(VENV)/dev.installed ## the whole suite against a real Postgres, with branch coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

fuzz: $(VENV)/dev.installed ## 20,000 requests of all kinds to the running service; two minutes
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/test_fuzz.py

lint: $(VENV)/dev.installed ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(VENV)/dev.installed ## dist/*.whl, built from the source distribution
	rm -rf build dist *.egg-info  # a stale build/ would ship deleted SQL files
	$(BIN)/python -m build --no-isolation

lock: ## the newest versions that setup.cfg allows, with their hashes, into requirements/
	test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv; }
	$(LOCK) --output-file requirements/service.txt
	$(LOCK) --extra build --extra demo --output-file requirements/demo.txt
	$(LOCK) --extra build --extra dev --output-file requirements/dev.txt

bench: ## the service beside its peers, into benchmarks/results.md; a quarter of an hour, 5 GB of /tmp
	$(MAKE) VENV=.venv-bench .venv-bench/demo.installed
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	.venv-bench/bin/python -m benchmarks $(BENCH_OPTIONS)

clean: ## remove all that the above made
	rm -rf .venv* build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		benchmarks/peers/fastify/node_modules

# Nothing is installed whose hash is not known beforehand.
$(VENV)/%.installed: requirements/%.txt setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --require-hashes --requirement requirements/$*.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	touch $@
