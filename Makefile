# Two commands on a bare machine: `make quickstart` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-cluster image lint types contracts lock install clean

quickstart: install
	$(BIN)/holdfast quickstart

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# The tests of k8s/ on a Kubernetes control plane of their own, built once by Go (five minutes).
test-cluster: install
	tests/k8s/controlplane/build
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/k8s

image:
	infra/images/build

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

install: $(VENV)/.installed

$(VENV)/.installed: constraints.txt pyproject.toml
	@echo "setting up $(VENV): about a minute, 6 GB, once"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.5'
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -r constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@

# Versions only, no index addresses: the lock works with any mirror.
lock: install
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate \
	  --extra train --extra submit --extra server --extra dev pyproject.toml -o constraints.txt

clean:
	rm -rf $(VENV)
