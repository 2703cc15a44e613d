# Needs python3 (3.11 or later, with venv and pip) and make; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LAKE ?= lake
SAMPLES ?= data/samples/captures
WORKERS ?= 2

# Real captures for the corpus tests; they are skipped, and counted, where the folder is missing.
SEKISHO_CORPUS ?= ../shared/corpus
export SEKISHO_CORPUS := $(abspath $(SEKISHO_CORPUS))

.PHONY: run test lint bench bench-large peers fuzz notebook readme lock clean
.DEFAULT_GOAL := run

# Everything is installed by hash from a lock file; the package index is the only thing reached.
define install
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing what $(1) names into $(VENV) (once)…"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --require-hashes -r $(1)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --no-build-isolation -e .
	@touch $@
endef

$(VENV)/.run: requirements.lock pyproject.toml
	$(call install,requirements.lock)

$(VENV)/.test: requirements-dev.lock pyproject.toml
	$(call install,requirements-dev.lock)
	@touch $(VENV)/.run

$(VENV)/.notebook: requirements-notebook.lock pyproject.toml
	$(call install,requirements-notebook.lock)
	@touch $(VENV)/.run $(VENV)/.test

run: $(VENV)/.run  ## ingest the samples, score, list, report
	@$(BIN)/python -m flows.daily $(SAMPLES) --lake $(LAKE)

test: $(VENV)/.test  ## all tests
	@$(BIN)/python -m pytest -n $(WORKERS) -q

lint: $(VENV)/.test  ## style, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.test  ## speed, beside the tools of the field
	@$(BIN)/python -m benchmarks

bench-large: $(VENV)/.test  ## one capture of 50 million packets, on one core and on all
	@$(BIN)/python -m benchmarks --large 50000000 --rounds 2

peers: requirements-peers.lock  ## other Python packages for `make bench`, apart from ours
	@$(PYTHON) -m venv benchmarks/.peers
	@benchmarks/.peers/bin/python -m pip install --quiet --disable-pip-version-check \
		--no-deps --require-hashes -r requirements-peers.lock

# Coverage of compiled code is taken from kernels run as Python; then they are tried as they are.
FAMILIES ?= captures exports texts objects mapped containers
MINUTES ?= 10
FUZZ := tests/fuzz/.search
CAMPAIGN := PYTHONPATH=.:$(FUZZ)/atheris $(BIN)/python tests/fuzz/campaign.py --folder $(FUZZ) \
	--seconds $$(($(MINUTES) * 30))

$(FUZZ)/atheris: requirements-fuzz.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --target $@ \
		--no-deps --require-hashes -r requirements-fuzz.lock
	@touch $@

fuzz: $(VENV)/.test $(FUZZ)/atheris  ## search for bytes that break a reader, MINUTES each
	@set -e; for family in $(FAMILIES); do \
		$(CAMPAIGN) explore $$family; \
		NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(FUZZ)/compiled $(CAMPAIGN) check $$family; \
	done

notebook: $(VENV)/.notebook  ## JupyterLab on the lake that `make run` made
	@SEKISHO_LAKE=$(abspath $(LAKE)) $(BIN)/jupyter lab notebooks/first_look.ipynb

readme: $(VENV)/.run  ## write the README's table of what is read anew
	@$(BIN)/python -m telemetry.readers.formats README.md

lock:  ## resolve the dependencies anew (needs uv)
	uv pip compile $(LOCK) --extra build -o requirements.lock
	uv pip compile $(LOCK) --extra build --extra dev -c requirements.lock \
		-o requirements-dev.lock
	uv pip compile $(LOCK) --extra build --extra dev --extra notebook \
		-c requirements-dev.lock -o requirements-notebook.lock
LOCK := --upgrade --quiet --python-version 3.11 --universal --generate-hashes \
	--no-strip-extras --no-annotate --no-header pyproject.toml

clean:  ## remove what the commands above made
	rm -rf $(VENV) lake lake.key lake.prefect .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
