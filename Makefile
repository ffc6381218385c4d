# Two commands do everything on a machine with Python 3.11 or newer: `make demo` and `make test`.
# Each makes the virtual environment it needs, in .venv.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	command -v $$python > /dev/null && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	&& echo $$python && break; done)
# Twice the cores of a small machine: three of them have tests that run one after the other, and mostly wait.
WORKERS ?= 4
BIN := .venv/bin
# Tests start hundreds of processes, which need not compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test tests lint faults bench lock clean

help:
	@echo "make demo    replay a real purchase history, and open the dashboard"
	@echo "make test    check and test everything"
	@echo "make lint    check style and types only"
	@echo "make faults  kill, freeze and cut off everything there is, and count what was lost (25 minutes; LONG=1: hours)"
	@echo "make bench   measure everything on this machine, beside peers; PARTS=\"engine sink\" some of it"
	@echo "make lock    pin the newest versions that fit pyproject.toml"
	@echo "make clean   remove the environment and the caches"

demo: .venv/demo
	$(BIN)/tidewire demo

test: .venv/dev
	@$(MAKE) --no-print-directory --jobs 2 lint tests

tests: .venv/dev
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/mypy

# ROW=3 runs one row, SEED=7 throws the dice of an earlier run, TIMES=5 repeats with other seeds, JOBS=1 is for slow machines.
faults: .venv/dev
	$(BIN)/python -m tests.faults --jobs $(or $(JOBS),2) $(if $(LONG),--long --times $(or $(TIMES),3),$(if $(TIMES),--times $(TIMES))) \
		$(if $(SEED),--seed $(SEED)) $(foreach row,$(ROW),--row $(row))

bench: .venv/dev
	$(BIN)/python -m bench --out .cache/bench/latest.json $(PARTS)

.venv/demo: pyproject.toml requirements.lock | .venv
	@echo "Installing Tidewire into .venv; the first time this takes a minute or two."
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[demo]'
	@touch $@

.venv/dev: pyproject.toml requirements.lock | .venv
	@echo "Installing Tidewire and its tools into .venv; the first time this takes a minute or two."
	$(BIN)/pip install --quiet --constraint requirements.lock --editable '.[dev,demo]'
	@touch $@ .venv/demo

.venv:
	@test -n "$(PYTHON)" || { echo "Tidewire needs Python 3.11 or newer; install it, or name it: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv .venv

# In a new environment, so that the lock holds what the project needs and nothing else.
lock:
	rm -rf .cache/lock && $(PYTHON) -m venv .cache/lock
	.cache/lock/bin/pip install --quiet --editable '.[dev,demo]'
	{ echo "# What the tests ran with; made by \`make lock\`."; .cache/lock/bin/pip freeze --exclude-editable; } > requirements.lock
	rm -rf .cache/lock

clean:
	rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
