PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/cctv.yaml
FUZZ_RUNS ?= 100000
SOAK_MINUTES ?= 30
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup run test lint drill soak fuzz bench bench-quant ui peers clean

help: ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS="$$(printf '\t')" read -r name what; \
		do printf '  make %-11s %s\n' "$$name" "$$what"; done

setup: $(READY) ## create the virtual environment and install everything into it

run: $(READY) ## take CONFIG (configs/cctv.yaml) from data to a bundle, and play it
	$(BIN)/pipeline run $(CONFIG)

test: lint ## lint, then run the tests
	$(BIN)/python -m pytest -q

lint: $(READY) ## check style, types and the direction of imports
	$(BIN)/ruff check pipeline runtime tests
	$(BIN)/ruff format --check pipeline runtime tests
	$(BIN)/mypy
	$(BIN)/lint-imports

drill: $(READY) ## cut streams, restart the broker, fill the disk, kill: what is lost, how soon it recovers
	$(BIN)/python -m pytest -q -m drill tests/drill

soak: $(READY) ## play for SOAK_MINUTES (30), and print the slope of the memory; with the bundle of make run when it is there
	SOAK_MINUTES=$(SOAK_MINUTES) SOAK_BUNDLE=$(wildcard runs/cctv/package/cctv.npub) $(BIN)/python -m pytest -q -m drill tests/drill/test_soak.py

fuzz: $(READY) ## try 20,000 mutated NPU programs; change bundles FUZZ_RUNS (100000) times, guided by coverage
	$(BIN)/python -m pytest -q tests/runtime/npu/test_fuzz.py --fuzz 20000
	$(BIN)/python tests/fuzz/seeds.py .cache/fuzz/seeds
	mkdir -p .cache/fuzz/corpus
	$(BIN)/python tests/fuzz/fuzz_bundle.py .cache/fuzz/corpus .cache/fuzz/seeds -runs=$(FUZZ_RUNS) \
		-timeout=10 -rss_limit_mb=512 -max_len=65536 -verbosity=0 -artifact_prefix=.cache/fuzz/

bench: $(READY) ## print the numbers that the README promises
	$(BIN)/pipeline bench $(CONFIG)

bench-quant: $(READY) ## quantize with this project and with other toolkits, and measure both alike; after make run
	$(BIN)/python -m pip install --quiet --editable '.[dev,toolkits]'
	$(BIN)/pipeline bench-quant $(CONFIG)

ui: $(READY) ## open MLflow on the runs of CONFIG
	$(BIN)/pipeline ui $(CONFIG)

peers: .venv-tosa/.ready ## install TOSA's reference model, whose pins differ, into an environment of its own

clean: ## remove runs, caches and the virtual environment; data and tracked runs stay
	rm -rf runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .venv-tosa $(VENV)
	find pipeline runtime tests -name __pycache__ -type d -exec rm -rf {} +

.venv-tosa/.ready:
	$(PYTHON) -m venv .venv-tosa
	.venv-tosa/bin/python -m pip install --quiet tosa-tools==2026.8.0
	touch $@

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
