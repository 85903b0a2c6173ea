# Every target works from a clean clone. `make` alone lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
# Of pytest, at once. Tests of sandboxes wait more than they work.
WORKERS ?= auto

.PHONY: help setup check format test images fuzz soak demo bench compare lock clean

help:                ## this list
	@grep -hE '^[a-z]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(VENV)/.done ## install system packages (as root or through sudo) and the locked Python packages
$(VENV)/.done: requirements-dev.lock pyproject.toml tools/setup.sh
	@tools/setup.sh $(VENV)
	@touch $@

check: setup         ## format, lint, types, import contracts, unit tests, a little fuzzing: needs no root and no network
	$(BIN)/ruff format --check src tests bench compare demo tools
	$(BIN)/ruff check src tests bench compare demo tools
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q -n $(WORKERS) tests/unit
	$(BIN)/pytest -q -n $(WORKERS) tests/fuzz

test: check          ## everything: check, then end-to-end tests as root and as an ordinary user, and those of every runtime
	@tools/setup-tests.sh
	$(BIN)/pytest -n $(WORKERS) --dist loadfile -m "not engine" tests/e2e tests/contract tests/verify tests/soak
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m engine tests/e2e tests/contract tests/verify

images: setup        ## every container image, with Docker and Podman, and what its tools do (CI builds three of them)
	@tools/setup-tests.sh
	CLOISTER_ALL_IMAGES=1 $(BIN)/pytest tests/e2e/test_images.py

fuzz: setup          ## every parser with new inputs, for half an hour or CLOISTER_FUZZ_EXAMPLES (each test; 20000)
	$(BIN)/pytest tests/fuzz --hypothesis-profile=long --timeout=0

soak: setup          ## ten minutes (CLOISTER_SOAK_SECONDS) of traffic through sandboxes that are killed, as root and as an ordinary user; a new SEED each time
	@tools/setup-tests.sh
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED))

format: setup        ## rewrite the sources in the project's format
	$(BIN)/ruff format src tests bench compare demo tools
	$(BIN)/ruff check --fix src tests bench compare demo tools

demo: setup          ## the main job, visibly: a scripted agent in a sandbox
	@PATH="$(abspath $(BIN)):$$PATH" demo/run.sh

bench: setup         ## figures of this machine beside bubblewrap, sandbox-runtime, docker, the devcontainer CLI and mitmproxy, in one run
	@$(BIN)/python bench/run.py

compare: setup       ## the attacks of `cloister verify` against srt, devcontainers, docker and mitmproxy too; needs root (docs/compare.md)
	@tools/setup-tests.sh
	@$(BIN)/python -m compare $(COMPARE)

lock: setup          ## renew the hashed lock files from pyproject.toml
	tools/lock.sh $(VENV)

clean:               ## remove what the targets made
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
