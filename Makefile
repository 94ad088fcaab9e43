# `make` prints the targets. All packages are installed into .venv, with the versions of the lock. Nothing outside this
# folder changes.
PYTHON ?= python3.11
PIP = .venv/bin/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test test-system test-pythons faults fuzz bench bench-submit bench-recovery bench-quality bench-variants docs house lint fmt lock clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/for-demo  ## install, start the service, train on a real table, score, generate and augment rows, stop the service
	.venv/bin/nelbo demo

# Tests mostly wait for other processes, so two at a time take half of the time.
test: .venv/for-development  ## run the test suite, on SQLite and PostgreSQL with a real broker; under 15 minutes
	.venv/bin/python -m pytest -m "not system" -n 2 --dist worksteal

test-system: .venv/for-development  ## run the slow tests: one fault of each kind, killed processes, requests from the OpenAPI description, the demo, containers
	.venv/bin/python -m pytest -m system

test-pythons:  ## run all tests except those of training with Python 3.12 and 3.13, where installed
	for version in 3.12 3.13; do \
	  python$$version -c '' 2>/dev/null || { echo "no python$$version here"; continue; }; \
	  python$$version -m venv build/python$$version \
	    && build/python$$version/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt --editable '.[local,dev]' \
	    && build/python$$version/bin/python -m pytest -m "not system" -n 2 --dist worksteal tests/api tests/nelbo tests/worker || exit 1; \
	done

faults: .venv/for-development  ## inject 620 faults of all kinds into a running service and count lost, doubled and late rows; twenty minutes
	.venv/bin/python -m tests.system.faults

fuzz: .venv/for-development  ## send 100,000 strange tables, zips, manifests and graphs to the readers; report faults and code that was not reached
	$(PIP) install --quiet 'atheris>=3,<4' 'coverage>=7.10,<8'
	.venv/bin/python -m tests.fuzz

bench: .venv/for-development  ## measure jobs, requests, graphs, fits, starts and uploads beside the bare work; print a table, keep build/speed.json; half an hour
	.venv/bin/python -m tests.benchmarks.speed --json build/speed.json

bench-submit: .venv/for-development  ## measure p50 and p99 of a submission with the broker up, frozen and absent
	.venv/bin/python -m tests.benchmarks.submission

bench-recovery: .venv/for-development  ## measure the seconds until another worker has finished the rows of a killed one
	.venv/bin/python -m tests.benchmarks.recovery

bench-quality: .venv/for-development  ## compare scores, planted errors and synthetic rows with other packages; DATA=folder with anomaly/, odd/, planted/, dirty/, tables/
	.venv/bin/python -m tests.benchmarks.anomaly --data $(DATA)/anomaly
	.venv/bin/python -m tests.benchmarks.anomaly --data $(DATA)/anomaly --polluted 0.05
	.venv/bin/python -m tests.benchmarks.anomaly --data $(DATA)/anomaly --polluted 0.05 --contaminated 0.05
	.venv/bin/python -m tests.benchmarks.odd --data $(DATA)/odd
	.venv/bin/python -m tests.benchmarks.planted --data $(DATA)/planted
	.venv/bin/python -m tests.benchmarks.dirty --data $(DATA)/dirty --with clean
	.venv/bin/python -m tests.benchmarks.synthetic --train $(DATA)/tables/adult-train.csv --test $(DATA)/tables/adult-test.csv --target income
	.venv/bin/python -m tests.benchmarks.synthetic --train $(DATA)/tables/magic-train.parquet --test $(DATA)/tables/magic-test.parquet --target cls
	.venv/bin/python -m tests.benchmarks.synthetic --train $(DATA)/tables/shoppers-train.parquet --test $(DATA)/tables/shoppers-test.parquet --target Revenue
	.venv/bin/python -m tests.benchmarks.conditional --train $(DATA)/tables/adult-train.csv --test $(DATA)/tables/adult-test.csv --target income
	.venv/bin/python -m tests.benchmarks.conditional --train $(DATA)/tables/magic-train.parquet --test $(DATA)/tables/magic-test.parquet --target cls
	.venv/bin/python -m tests.benchmarks.conditional --train $(DATA)/tables/shoppers-train.parquet --test $(DATA)/tables/shoppers-test.parquet --target Revenue

bench-variants: .venv/for-development  ## measure the model without each of its parts, on Magic; DATA=folder with tables/
	.venv/bin/python -m tests.benchmarks.variants --train $(DATA)/tables/magic-train.parquet --test $(DATA)/tables/magic-test.parquet --target cls --out build/variants.csv

house: .venv/for-development  ## print the density of the code: tokens per function, long lines, tuple assignments
	.venv/bin/python -m tests.benchmarks.house

lint: .venv/for-development  ## check style and format (ruff), types (mypy) and imports (import-linter)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict
	.venv/bin/lint-imports --no-logo

docs: .venv/for-development  ## build the site of docs/ in build/site; it needs no network
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "build/site/index.html"

fmt: .venv/for-development  ## format code and sort imports
	.venv/bin/ruff check --select I,UP,RUF100 --fix
	.venv/bin/ruff format

lock: .venv/for-development  ## write constraints.txt from the packages in .venv
	{ head -1 constraints.txt; $(PIP) freeze --all --exclude pip --exclude-editable \
	  | sed 's/+cpu$$//' | tr 'A-Z_' 'a-z-' | LC_ALL=C sort; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove .venv and all caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# On Debian, venv needs the package python3-venv to install pip. Without it, the system's pip is used.
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
