# Everything happens in .venv, which the first command makes. PYTHON: any interpreter >= 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What `make test-torch` tests with. The first goes with the Triton of the demo, and is in $(VENV); each
# other version has an environment of its own.
NEWEST_TORCH := $(shell sed -n 's/^newest-torch = \["torch==\(.*\)"\]$$/\1/p' pyproject.toml)
TORCH ?= 2.13.0 $(NEWEST_TORCH)

.PHONY: demo test test-fast test-ptx test-ray test-torch $(TORCH:%=test-torch-%) lint docs bench bench-more bench-torch clean

demo: $(VENV)/.demo
	$(BIN)/compilepool demo

# Half a minute: what needs no process of ours.
test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest tests/logic

# First what runs side by side, then what needs the machine for itself.
test: $(VENV)/.programs lint
	tools/fetch_executor_tests.sh cpython $(BIN)/python
	$(BIN)/python -m pytest tests/logic tests/processes -m "not alone" -n auto --dist worksteal
	$(BIN)/python -m pytest tests/processes -m alone

# A cluster of three nodes on this machine.
test-ray: $(VENV)/.ray
	$(BIN)/python -m pytest tests/ray

# Needs no GPU. Of one version: make test-torch TORCH=2.15.0
test-torch: $(TORCH:%=test-torch-%)

test-torch-2.13.0: $(VENV)/.torch
	$(BIN)/python -m pytest tests/pytorch

$(filter-out test-torch-2.13.0,$(TORCH:%=test-torch-%)): test-torch-%: $(VENV)-torch-%/.torch
	$(<D)/bin/python -m pytest tests/pytorch

# Needs no GPU, but numba-cuda, which puts code of its own into every start of an interpreter. So it
# has an environment to itself.
test-ptx: $(VENV)/.ptx
	$(VENV)/ptx/bin/python -m pytest tests/processes/test_numba.py -k ptx

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site, in site/. A warning, such as for a link that leads nowhere, is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Other pools beside ours; where there is torch, PyTorch's, too. Some 15 minutes.
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks --out docs/benchmarks.json
	$(BIN)/python -m benchmarks.plot docs/benchmarks.json docs/benchmarks.svg
	$(BIN)/python -m benchmarks.comparison_page docs/benchmarks.json docs/comparison.md

# More of ours alone.
bench-more: $(VENV)/.dev
	$(BIN)/python benchmarks/orphans.py
	$(BIN)/python benchmarks/reports.py
	$(BIN)/python benchmarks/limits.py
	$(BIN)/python benchmarks/warm.py
	$(BIN)/python benchmarks/trace_report.py

# Also `python benchmarks/gpt_gpu.py` and `node_gpu.py`, where there is a GPU.
bench-torch: $(VENV)/.torch
	$(BIN)/python benchmarks/warm.py --torch
	$(BIN)/python benchmarks/node.py
	$(MAKE) bench

clean:
	rm -rf $(VENV) $(VENV)-torch-* .cache site compilepool-demo compilepool-demo-trace.json compilepool-demo-report.html

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "compilepool needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[triton]"
	# As an install that is not editable does: else every process compiles its modules anew.
	$(BIN)/python -m compileall -q src
	touch $@

$(VENV)/.dev: $(VENV)/.demo pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

$(VENV)/.programs: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[programs,compilers]"
	touch $@

$(VENV)/.docs: $(VENV)/.demo pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[docs]"
	touch $@

$(VENV)/.bench: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[bench]"
	touch $@

$(VENV)/.ptx: $(VENV)/.made pyproject.toml
	$(PYTHON) -m venv $(VENV)/ptx
	$(VENV)/ptx/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,numba-cuda]"
	touch $@

$(VENV)/.ray: $(VENV)/.dev pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[ray]"
	touch $@

# This version goes with the Triton of the demo.
$(VENV)/.torch: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "torch==2.13.0" --editable ".[torch-tools,helion]"
	touch $@

.PRECIOUS: $(VENV)-torch-%/.torch
$(VENV)-torch-%/.torch: pyproject.toml
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check "torch==$*" --editable ".[dev,torch-tools]"
	touch $@
