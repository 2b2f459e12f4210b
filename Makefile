# make repro: environment, then every table from videos up.  make test: environment, then the tests.
.DEFAULT_GOAL := help
.PHONY: help env repro test test-all test-registry lint docs same mlflow bench clean-env

PYTHON ?= python3
EXTRAS ?= test
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := 1
# uv compiles nothing. Without a cache, each of a run's many processes would compile torch, Ray and MLflow: 5 to 13 s.
unexport PYTHONDONTWRITEBYTECODE

help:        ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15

env: $(BIN)/.ready-$(EXTRAS) ## the environment in .venv, pinned by constraints.txt; EXTRAS=test-all for more

# One stamp for each set of extras of pyproject.toml. uv installs where it is on PATH, else pip.
$(BIN)/.ready-%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@if command -v uv >/dev/null; then \
	    echo "uv pip install -c constraints.txt -e '.[$*]'"; \
	    PYTHON=$(PYTHON) .ci/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$*]'; \
	else \
	    $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[$*]'; \
	fi
	@touch $@

repro: env   ## dvc repro of the suite in params.yaml, then its tables
	actionbench repro

test: env    ## the tests except the slow ones, two files at a time
	pytest -n 2 --dist loadfile

test-all: $(BIN)/.ready-test-all ## all tests except those that ask a package registry
	pytest -m 'not registry'

test-registry: env ## check constraints.txt on every platform by the package registry; needs uv
	pytest -m registry

lint: $(BIN)/.ready-lint ## ruff, mypy, import contracts, and the documentation
	ruff check . && ruff format --check . && mypy && lint-imports && mkdocs build --strict --quiet

docs: $(BIN)/.ready-docs ## the documentation on loopback, rebuilt as it is edited
	mkdocs serve

same: env    ## compare the bytes of results with those of BASE (a commit; default: HEAD)
	actionbench same $(or $(BASE),HEAD)

mlflow: env  ## the MLflow UI on loopback
	actionbench mlflow

bench: $(BIN)/.ready-bench ## the side-by-side measurements of bench/
	for name in aggregate cores damage ddp decoding flow loading million models overhead noop scaling; do python -m bench.$$name || exit; done

clean-env:   ## remove the environment
	rm -rf .venv
