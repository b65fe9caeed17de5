# Every target that needs the environment depends on $(STAMP), so `make test` on a fresh clone sets up first.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
WORKERS ?= 2
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

# -qq: pip's WARNING lines say nothing a reader of this output could act on; errors are still printed.
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

ROUNDS ?= 1000
SERVERS ?=

.PHONY: help setup quickstart check test test-servers faults fuzz bench results serve lock

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with the condu command in it (does nothing when it is up to date)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "condu needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3 setup"; exit 1; }
	@if [ ! -x $(BIN)/python ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
		echo "Making $(VENV)"; \
		$(PYTHON) -m venv --clear $(VENV) \
			|| { echo "python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv"; exit 1; }; \
	fi
	@echo "Installing requirements.lock into $(VENV) (the first time some 6 GB, most of it PyTorch: a few minutes)"
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@echo "Compiling the kernels for this processor"
	@$(BIN)/python -c 'import store.checkpoints'
	@touch $@
	@echo "Ready: $(BIN)/condu --help"

quickstart: $(STAMP) ## run the main job on real images, all of it over HTTP
	@$(BIN)/condu quickstart $(ARGS)

check: $(STAMP) ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet --diff .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

# One thread per worker: two workers with torch's default of a thread a core run slower than one worker alone.
# The report is made after the tests, so that pytest's summary is the last thing a green run prints.
test: $(STAMP) ## run the tests with coverage; make test ARGS="tests/store -k unify" narrows them
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --durations 15 \
		$(if $(ARGS),$(ARGS),--cov --cov-report=)
	@$(if $(ARGS),:,$(call covered,--include 'store/*',100) && $(call covered,--omit 'store/*',95))

# One thread a process: the rounds fork, which only a process without threads may do.
faults: $(STAMP) ## kill and freeze workers in ROUNDS=1000 randomised rounds; SERVERS=1: on PostgreSQL and S3
	@OMP_NUM_THREADS=1 CONDU_TEST_SERVERS=$(SERVERS) $(BIN)/python -m tests.faults.rounds --rounds $(ROUNDS) $(ARGS)

EXAMPLES ?= 20000

fuzz: $(STAMP) ## change bytes of sound uploads in EXAMPLES=20000 ways each, other ones every time
	@CONDU_FUZZ_EXAMPLES=$(EXAMPLES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --timeout 0 \
		tests/attacks/test_fuzzed_uploads.py $(ARGS)

test-servers: $(STAMP) ## run the same tests on PostgreSQL and S3, both started by the tests
	@CONDU_TEST_SERVERS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# $(call covered,WHICH,PERCENT): silent when met, the table of what is missing when not.
covered = { $(BIN)/coverage report $(1) --fail-under $(2) --skip-covered --show-missing >$(VENV)/coverage.txt \
	|| { cat $(VENV)/coverage.txt; exit 1; }; }

# The peers are no dependencies: what cannot be installed here is reported as "not installed".
bench: $(STAMP) ## measure the store against its peers and write docs/benchmarks.md (a quarter of an hour)
	@$(PIP) install --require-hashes --no-deps -r requirements-peers.lock \
		|| echo "The peers could not be installed (zipnn needs a C compiler); going on without them"
	@for name in rebuild fusion storage; do \
		$(BIN)/condu bench $$name --json docs/benchmarks/$$name.json $(ARGS); \
	done
	@$(BIN)/python -m bench.page docs/benchmarks docs/benchmarks.md

# Seeds and orders share their fine-tunes through the cache; each command goes on where it was stopped.
PROTOCOL := $(BIN)/condu bench continual --suite mini $(ARGS)
REPEATED := --methods zero-shot,individual,sequential,emr,condu

results: $(STAMP) ## rerun the papers' protocol on the suite mini and write docs/benchmarks.md (hours on two cores)
	@$(PROTOCOL) --json docs/results/continual-mini.json
	@$(PROTOCOL) $(REPEATED) --order II --json docs/results/continual-mini-order2.json
	@for seed in 1 2; do \
		$(PROTOCOL) $(REPEATED) --seed $$seed --json docs/results/continual-mini-seed$$seed.json; \
		$(PROTOCOL) $(REPEATED) --seed $$seed --order II --json docs/results/continual-mini-order2-seed$$seed.json; \
	done
	@$(BIN)/python -m bench.continual.page docs/results docs/benchmarks.md

serve: $(STAMP) ## start the service (api and worker) on 127.0.0.1:8000
	@$(BIN)/condu serve $(ARGS)

lock: $(STAMP) ## resolve pyproject.toml again into the three lock files
	@$(PIP) install uv
	@$(BIN)/uv pip compile --quiet pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS) -o requirements.lock
	@$(BIN)/uv pip compile --quiet pyproject.toml --group build --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -c requirements.lock $(ARGS) \
		-o requirements-service.lock
	@$(BIN)/uv pip compile --quiet --group peers --no-deps --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(ARGS) -o requirements-peers.lock
