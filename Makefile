# Every target creates the virtual environment that it needs. No other set-up is necessary.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
NODE_MODULES = tests/support/typescript/node_modules tests/support/openapi_client/node_modules
LOCK = .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes \
	--custom-compile-command "make lock" setup.cfg

# For each command:package installs the Debian package if the command is missing, and if make runs as root.
debian = @missing=; for pair in $(1); do command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair\#\#*:}"; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends $$missing; fi

.PHONY: help run test coverage test-faults soak check-deploy fuzz lint wheel lock screenshot bench clean

help: ## print this list
	@sed -En 's/^([a-z-]+):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

run: $(VENV)/demo.installed ## run the service on an embedded Postgres, with the published example
	$(BIN)/medmitra-cases demo

# Three test files run in parallel, because they wait half of their time, each on its own embedded Postgres. A server of
# MEDMITRA_TEST_DATABASE_URL has only one role medmitra_cases, so there the files run one by one.
SUITE = -m pytest $(if $(MEDMITRA_TEST_DATABASE_URL),,-n 3 --dist loadfile --no-loadscope-reorder)
test coverage: $(VENV)/dev.installed $(NODE_MODULES:%=%/.package-lock.json)

test: ## run all tests on a real Postgres
	$(call debian,chromium:chromium firefox-esr:firefox-esr curl:curl)
	$(BIN)/python $(SUITE)

coverage: ## run all tests, more slowly, and list the lines and branches that they do not reach
	$(call debian,chromium:chromium firefox-esr:firefox-esr curl:curl)
	$(BIN)/coverage erase
	$(BIN)/coverage run $(SUITE)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-faults: $(VENV)/dev.installed ## test failures of databases, links and processes, with the real programs; as root
	$(call debian,nginx:nginx-light pgbouncer:pgbouncer ip:iproute2)
	$(BIN)/python -m pytest -m faults -rs -n 2 --dist loadfile tests/faults

soak: $(VENV)/dev.installed ## run ten minutes of mixed traffic and faults, then check for leaks
	$(BIN)/python -m pytest -m soak tests/test_soak.py

check-deploy: $(VENV)/dev.installed $(VENV)/deploy.installed ## test each file of deploy/ with the real program; as root
	$(call debian,nginx:nginx-light pgbouncer:pgbouncer buildah:buildah debootstrap:debootstrap openssl:openssl \
		prometheus:prometheus)
	$(BIN)/python -m pytest -m deploy -rs tests/deploy

fuzz: $(VENV)/dev.installed ## send 20,000 random requests to a running service; two minutes
	$(BIN)/python -m pytest --hypothesis-profile=fuzz tests/server/test_fuzz.py

lint: $(VENV)/dev.installed ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: ## build dist/*.whl from the source distribution
	$(PYTHON) -m venv --clear .venv-build
	.venv-build/bin/python -m pip --disable-pip-version-check install --quiet \
		--require-hashes --requirement requirements/build.txt
	rm -rf build dist *.egg-info  # a stale build/ would ship deleted SQL files
	.venv-build/bin/python -m build --no-isolation

lock: ## write the newest versions that setup.cfg allows, with hashes, to requirements/
	test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/bin/python -m pip install --quiet uv; }
	$(LOCK) --output-file requirements/service.txt
	$(LOCK) --extra build --extra demo --output-file requirements/demo.txt
	$(LOCK) --extra build --extra dev --output-file requirements/dev.txt
	printf '%s\n' build setuptools | \
		$(LOCK:setup.cfg=-) --constraint requirements/dev.txt --output-file requirements/build.txt
	printf '%s\n' kubernetes-validate | \
		$(LOCK:setup.cfg=-) --constraint requirements/dev.txt --output-file requirements/deploy.txt

screenshot: $(VENV)/dev.installed ## update the picture of /docs in docs/api.md
	$(call debian,chromium:chromium)
	$(BIN)/python -m tests.support.screenshot

bench: ## compare the service with others, in benchmarks/results.md; 15 minutes, 5 GB of /tmp
	$(call debian,wrk:wrk node:nodejs npm:npm taskset:util-linux)
	$(MAKE) VENV=.venv-bench .venv-bench/demo.installed
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --requirement benchmarks/requirements.txt
	.venv-bench/bin/python -m benchmarks $(BENCH_OPTIONS)

clean: ## remove the files that the other targets created
	rm -rf .venv* build dist *.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		benchmarks/peers/fastify/node_modules $(NODE_MODULES)

# An environment without pip is incomplete: its creation was interrupted, or Debian's package python3-venv is missing.
# pip installs only packages whose hash is in requirements/.
$(VENV)/%.installed: requirements/%.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "This needs Python 3.10 or newer. Name it: make PYTHON=python3.12"; exit 1; }
	@$(BIN)/python -c 'import pip._internal, sys; sys.exit(sys.prefix == sys.base_prefix)' 2>/dev/null || \
		$(PYTHON) -m venv --clear $(VENV) >/dev/null || { \
		echo "$(PYTHON) cannot create the environment $(VENV): install python3-venv"; exit 1; }
	$(PIP) install --quiet --require-hashes --requirement requirements/$*.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	touch $@

# The TypeScript compiler for the code in docs/clients.md and axe-core for the page /docs; a generator of clients, which
# needs an older compiler. Without npm, the tests that need them are skipped.
$(NODE_MODULES:%=%/.package-lock.json): %/node_modules/.package-lock.json: %/package-lock.json
	$(call debian,node:nodejs npm:npm)
	if command -v npm >/dev/null; then npm ci --loglevel=error --prefix $* && touch $@; fi
