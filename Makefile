# The workflow, top to bottom.  `make reproduce` and `make test` set up all they need.
PYTHON ?= python3
SCALE ?= quick
DEVICE ?= cpu
WORKERS ?= $(shell $(PYTHON) -c "import os; print(min(4, os.cpu_count() or 1))")
BIN := .venv/bin
RESULTS := runs/$(SCALE)
OUTPUT := reports/out/$(SCALE)

.PHONY: help setup reproduce report test test-slow test-fuzz test-browser test-cluster speed gpu gpu-kit docs lint format clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: .venv/.installed  ## a virtual environment with everything pinned

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; try make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

reproduce: report  ## run the experiments of SCALE (quick), untimed ones in WORKERS processes, then figures and report

report: .venv/.installed  ## the same; what is finished is not run again
	$(BIN)/oho-bench run $(wildcard configs/$(SCALE)/*.yaml) --out $(RESULTS) --workers $(WORKERS)
	$(BIN)/oho-bench report $(RESULTS) -o $(OUTPUT)/report.pdf

figure-%: .venv/.installed
	$(BIN)/oho-bench run $(wildcard configs/$(SCALE)/*.yaml) --figure $* --out $(RESULTS) --workers $(WORKERS)
	$(BIN)/oho-bench figure $* $(RESULTS) -o $(OUTPUT)/report/$*.pdf

test: .venv/.installed  ## the test suite, without the tests marked slow
	$(BIN)/python -m pytest

test-slow: .venv/.installed  ## the tests marked slow: real ResNet-18, the published commands, the wheel, the site; some minutes
	$(BIN)/python -m pytest -m slow -n 0

test-fuzz: .venv/.installed  ## the tests marked fuzz: ten thousand damaged or mistaken inputs of each kind, half an hour
	$(BIN)/python -m pytest -m fuzz

test-browser: .venv/.installed  ## the tests marked browser: the report's page in a headless Chromium, with its driver
	$(BIN)/python -m pytest -m browser -n 0

test-cluster: .venv/.installed  ## the tests marked cluster: Ray, Slurm if it is installed, an S3 server; each fault made for real
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cluster,s3]' 'moto[server]>=5'
	$(BIN)/python -m pytest -m cluster -n 0

speed: .venv/.installed  ## what a step, and the suite beside it, cost on DEVICE (cpu): eight minutes of an idle machine, MNIST
	$(BIN)/python -m bench.measure.speed --device $(DEVICE) --out results/speed-$(DEVICE).md
	$(BIN)/python -m bench.measure.larger_steps --device $(DEVICE) --out results/speed-$(DEVICE).md
	$(BIN)/python -m bench.measure.overhead configs/speed/overhead.yaml --device $(DEVICE) --out results/overhead-$(DEVICE).md

gpu-kit: .venv/.installed  ## fill gpu-kit/, at most 60 MiB, with what make gpu needs on a machine without network
	$(BIN)/python -m bench.measure.gpu.kit

gpu:  ## on a GPU: correctness, speed, MNIST and CIFAR-10 in eight minutes, with gpu-kit/ and the packages that results/gpu/README.md names
	$(if $(wildcard .venv/.installed),$(BIN)/python,$(PYTHON)) -m bench.measure.gpu --device cuda --out results/gpu

docs: .venv/.installed  ## the documentation as a site, in site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: .venv/.installed  ## style and types
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.installed  ## format the code
	$(BIN)/ruff check --fix .

clean:  ## remove the environment and everything built, but no results
	rm -rf .venv build site reports/out *.egg-info .mypy_cache .pytest_cache .ruff_cache
