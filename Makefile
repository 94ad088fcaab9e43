# `make` prints the targets. Everything is installed into .venv, from the lock, and nothing outside this folder changes.
PYTHON ?= python3.11
PIP = .venv/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-pythons faults fuzz bench bench-submit bench-recovery bench-quality bench-variants lint fmt lock clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/for-demo  ## install, start everything, train on a real table, score, generate, augment; then stop it again
	.venv/bin/nelbo demo

# A test waits for other processes more than it computes, so that two at once take half of the time.
test: .venv/for-development  ## the test suite: minutes, on SQLite and on PostgreSQL, with a real broker
	.venv/bin/python -m pytest -m "not system" -n 2 --dist worksteal

test-system: .venv/for-development  ## the slow proofs: one fault of each kind, killed processes, requests made from OpenAPI, the demo, containers
	.venv/bin/python -m pytest -m system

test-pythons:  ## the tests of all but training under each other Python that is here: 3.12, 3.13
	for version in 3.12 3.13; do \
	  python$$version -c '' 2>/dev/null || { echo "no python$$version here"; continue; }; \
	  python$$version -m venv build/python$$version \
	    && build/python$$version/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[local,dev]' \
	    && build/python$$version/bin/python -m pytest -m "not system" -n 2 --dist worksteal tests/api tests/nelbo tests/worker || exit 1; \
	done

faults: .venv/for-development  ## 620 faults of all kinds on a running service: what is lost, doubled or late; twenty minutes
	.venv/bin/python -m tests.system.faults

fuzz: .venv/for-development  ## 100,000 strange tables, zips, manifests and graphs: what is not read or refused, and what is not reached
	$(PIP) install --quiet 'atheris>=3,<4' 'coverage>=7.10,<8'
	.venv/bin/python -m tests.fuzz

bench: .venv/for-development  ## a million rows through the embedded stack, beside a bare loop of the same engine
	.venv/bin/python -m tests.benchmarks.million

bench-submit: .venv/for-development  ## p50 and p99 of a submission with the broker up, frozen and absent
	.venv/bin/python -m tests.benchmarks.submission

bench-recovery: .venv/for-development  ## seconds until the rows of a killed worker are done by another one
	.venv/bin/python -m tests.benchmarks.recovery

bench-quality: .venv/for-development  ## scores and synthetic rows beside peers and floors; DATA=folder with anomaly/ and tables/
	$(PIP) install --quiet 'sdmetrics>=0.32,<1'
	.venv/bin/python -m tests.benchmarks.anomaly --data $(DATA)/anomaly
	.venv/bin/python -m tests.benchmarks.anomaly --data $(DATA)/anomaly --polluted 0.05 --contaminated 0.05
	.venv/bin/python -m tests.benchmarks.synthetic --train $(DATA)/tables/adult-train.csv --test $(DATA)/tables/adult-test.csv --target income
	.venv/bin/python -m tests.benchmarks.synthetic --train $(DATA)/tables/magic-train.parquet --test $(DATA)/tables/magic-test.parquet --target cls
	.venv/bin/python -m tests.benchmarks.synthetic --train $(DATA)/tables/shoppers-train.parquet --test $(DATA)/tables/shoppers-test.parquet --target Revenue

bench-variants: .venv/for-development  ## what each part of the model is worth, on Magic; DATA=folder with tables/
	$(PIP) install --quiet 'sdmetrics>=0.32,<1'
	.venv/bin/python -m tests.benchmarks.variants --train $(DATA)/tables/magic-train.parquet --test $(DATA)/tables/magic-test.parquet --target cls --out build/variants.csv

lint: .venv/for-development  ## ruff (lint, format), strict types, import contracts
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict
	.venv/bin/lint-imports --no-logo

fmt: .venv/for-development  ## put imports and code into the one format
	.venv/bin/ruff check --select I,UP,RUF100 --fix
	.venv/bin/ruff format

lock: .venv/for-development  ## write constraints.txt anew from what .venv holds
	{ head -1 constraints.txt; $(PIP) freeze --all --exclude pip --exclude-editable \
	  | sed 's/+cpu$$//' | tr 'A-Z_' 'a-z-' | LC_ALL=C sort; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove .venv and all caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Debian packs venv's own pip apart (python3-venv); where that is missing, the pip that is there fills the folder.
.venv/bin/pip:
	$(PYTHON) -m venv --clear .venv || { $(PYTHON) -m venv --clear --without-pip .venv && $(PYTHON) -m pip --python .venv/bin/python install --quiet pip; }

.venv/for-demo: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing into .venv (about two minutes) ..."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[local,training]'
	@touch $@

.venv/for-development: pyproject.toml constraints.txt | .venv/bin/pip
	@echo "installing into .venv (about two minutes) ..."
	$(PIP) install --quiet --constraint constraints.txt --editable '.[local,training,dev]'
	@touch $@ .venv/for-demo
