# make repro: environment, then every table from videos up.  make test: environment, then the tests.
.DEFAULT_GOAL := help
.PHONY: help env repro test test-all lint same mlflow bench clean-env

PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

help:        ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(BIN)/.ready ## the environment in .venv, pinned by constraints.txt

$(BIN)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

repro: env   ## dvc repro of the suite in params.yaml, then its tables
	actionbench repro

test: env    ## the tests but the long ones, two files at a time
	pytest -n 2 --dist loadfile

test-all: env ## all tests
	pytest -m 'slow or not slow'

lint: env    ## ruff, mypy, import contracts
	ruff check . && ruff format --check . && mypy && lint-imports

same: env    ## the bytes that the code makes, beside those of BASE (a commit; HEAD by default)
	actionbench same $(or $(BASE),HEAD)

mlflow: env  ## the MLflow UI on loopback
	actionbench mlflow

bench: env   ## the side-by-side measurements of bench/
	for name in aggregate cores damage ddp decoding flow loading million models overhead noop scaling; do python -m bench.$$name || exit; done
