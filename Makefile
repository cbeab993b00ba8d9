# Every target makes the environment it needs, in .venv, and updates it when the dependencies change.
#
#   make demo       train on the bundled digits, compute geodesics, write the pictures
#   make test       the tests but the slow ones        make test-all   all of them
#   make lint       ruff, its formatter included       make format     the code as the formatter writes it
#   make types      mypy                               make docs       the site, in site/
#   make bench      the core's speed, now and stored   make clean      remove all that make made
#
# Another Python:          make test PYTHON=python3.13
# Arguments for pytest:    make test PYTEST_ARGS="-n 2 -k sphere"

VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
BENCH_ARGS ?=

# The first Python of the tested versions that starts and can make environments.
PYTHON ?= $(or $(shell for python in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$python -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' 2>/dev/null \
	&& echo $$python && break; done),$(error no Python 3.10-3.13 with venv and pip found; give one: make PYTHON=...))

# OpenMP threads that wait should sleep: spinning, they take the processor from the threads that work.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-all lint format types docs bench clean
.NOTPARALLEL:

demo: $(VENV)/.demo
	$(BIN)/python -m vae.demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -m "" $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

format: $(VENV)/.dev
	$(BIN)/python -m ruff format .

types: $(VENV)/.dev
	$(BIN)/python -m mypy

docs: $(VENV)/.dev
	$(BIN)/python -m mkdocs build --strict

# Without the run-time shape checks of the tests: they would be timed too. Fails where a piece has become slower, over
# its floor, than 1.5 times what bench/results/core.json says. Another limit: make bench BENCH_ARGS="--limit 2";
# a new state to compare with: make bench BENCH_ARGS=--store
bench: $(VENV)/.dev
	@mkdir -p .benchmarks
	$(BIN)/python -m pytest bench/core -o addopts="" --benchmark-json=.benchmarks/core.json $(PYTEST_ARGS)
	$(BIN)/python -m bench.compare .benchmarks/core.json $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist site .benchmarks .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first. Its ordinary Linux build brings several GB of CUDA packages, so a machine without a GPU may keep
# a CPU build of it in a local folder that pip is told of (`find-links` in pip's configuration, PIP_FIND_LINKS).
# With --no-index pip looks there and nowhere else: it installs that build, in the version of constraints.txt, or
# fails at once. Once installed it satisfies every later requirement of torch, so nothing replaces it. Where there
# is no such folder the next step installs the ordinary torch, as a plain `pip install .` does everywhere.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --no-index --no-deps -c constraints.txt torch 2>/dev/null \
		&& echo "torch: the build this machine offers" || echo "torch: the ordinary build"
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	@echo "installing the package and what the demo needs, once"
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[plots]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "installing the package and what the tests need, once"
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.demo
