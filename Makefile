# gapbench: every target makes the environment it needs (.venv) on a bare machine. `make help` lists them.
EXPERIMENT ?= size_sweep
NAME := $(basename $(notdir $(EXPERIMENT)))
PUBLISHED := $(sort $(dir $(wildcard results/published/*/experiment.json results/published/*/rivals.json)))
BIN := .venv/bin
STAMP := .venv/installed
RIVALS := .venv-rivals/installed
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help reproduce test rehearse report plots check notebooks bench bench-rivals accelerator lint lock clean

# The first of these versions of Python that starts, on PATH and then among pyenv's. PYTHON=... overrides.
find_python = for v in $(1); do \
  for p in python$$v $$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$v.*/bin/python 2>/dev/null | sort -rV); do \
    $$p -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != tuple(map(int, '$$v'.split('.'))))" \
      >/dev/null 2>&1 && { command -v $$p; exit 0; }; done; done; exit 1

help: ## list the targets and what each costs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@python="$${PYTHON:-$$($(call find_python,3.13 3.12 3.11))}" && [ -n "$$python" ] || { \
	  echo "no Python from 3.11 to 3.13 found on PATH or in pyenv: install one, or make PYTHON=/path/to/python" >&2; exit 1; }; \
	  echo "installing into .venv with $$($$python --version)"; \
	  rm -rf .venv && $$python -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

reproduce: $(STAMP) ## train EXPERIMENT=size_sweep and compare with the published results: 10 to 30 min on two cores, seconds when done
	$(BIN)/gapbench run $(EXPERIMENT) || [ $$? -eq 1 ]  # 1: some runs failed, which the report says
	$(BIN)/gapbench time $(EXPERIMENT) --once
	$(BIN)/gapbench report results/reproduced/$(NAME)
	@if [ -d results/published/$(NAME) ]; then $(BIN)/gapbench compare results/reproduced/$(NAME); \
	  else echo "nothing is published under this name to compare with"; fi

test: $(STAMP) ## all tests, notebooks included: 4 to 5 min on two cores
	$(BIN)/python -m pytest -n auto --dist worksteal --nbmake notebooks tests

rehearse: $(STAMP) ## the tests that race and time in processes of their own, make accelerator at its smallest among them: 2 min
	$(BIN)/python -m pytest -n auto --dist worksteal -m rehearsal tests

report: $(STAMP) ## tables, figures, claims, page and README blocks from the published records: 1 to 2 min, trains nothing
	$(BIN)/gapbench report $(PUBLISHED) --readme README.md

plots: $(STAMP) ## the figures alone: 1 min
	$(BIN)/gapbench report $(PUBLISHED) --plots

check: $(STAMP) ## fail if anything derived from the published records differs by a byte from what stands here: 1 to 2 min
	$(BIN)/gapbench report $(PUBLISHED) --readme README.md --check

notebooks: $(STAMP) ## execute the six notebooks, five on the published records: about 2 min
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py  # the text files are the source
	$(BIN)/jupyter-execute --inplace notebooks/*.ipynb

bench: $(STAMP) ## throughput of the pair on this machine's devices, by input size and batch: about 5 min on a CPU core
	$(BIN)/gapbench time --px 14 28 56 --batch 16 32 64 128 256 512 --out results/reproduced/bench

# PyTorch in an environment of its own: it and JAX need not agree on versions, and the lock stays without it.
$(RIVALS): $(STAMP)
	@python="$$($(call find_python,3.11 3.12 3.13))" && [ -n "$$python" ] && \
	  echo "installing PyTorch into .venv-rivals with $$($$python --version)" && \
	  rm -rf .venv-rivals && $$python -m venv .venv-rivals && \
	  .venv-rivals/bin/python -m pip install --quiet --disable-pip-version-check numpy $$($(BIN)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['rivals'])") || \
	  { rm -rf .venv-rivals; exit 1; }
	@touch $@

bench-rivals: $(STAMP) ## the same sweep trained by Flax's and PyTorch's users, interleaved: about 20 min on two cores, into OUT=results/reproduced/speed
	@$(MAKE) --no-print-directory $(RIVALS) || echo "PyTorch could not be installed: its rows will say so" >&2
	$(BIN)/python rivals/bench.py --out $(or $(OUT),results/reproduced/speed)
	$(BIN)/gapbench report $(or $(OUT),results/reproduced/speed)

# The lock has JAX for CPUs, so this runs in an environment of the user's: PYTHON=..., whose JAX drives the accelerator.
accelerator: ## timing grid, convolution table, two sweeps and the race on one accelerator: at most 8 min with PYTHON=python3, into OUT=results/reproduced/accelerator
	@$(or $(PYTHON),python3) rivals/accelerator.py --out $(or $(OUT),results/reproduced/accelerator)

lint: $(STAMP) ## ruff and mypy: 20 s
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: ## resolve requirements.lock anew (needs uv)
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  --extra notebooks --extra dev pyproject.toml --output-file requirements.lock

clean: ## remove what was reproduced here, the environment and caches
	rm -rf .venv .venv-rivals results/reproduced .pytest_cache .mypy_cache .ruff_cache
