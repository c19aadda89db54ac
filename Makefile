# make demo      set up .venv, walk the whole road on made-up images: runs/demo/report/index.html
# make test      set up, lint, types, fast tests
# make test-all  the same with the slow tests, and the wheel built and tried
# make docs-site the documentation as a site: build/site/index.html
# make services  install the programs some tests run against (Debian, root): a PACS, a cluster, a browser
#
# Set-up happens once, and again when pyproject.toml changes. Variables:
#   PYTHON=python3.12    another interpreter than the first suitable one
#   TORCH='torch==2.13.0 --index-url ...'    another build of PyTorch
#   JOBS=4               test processes

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo services test test-all lint format types docs docs-site build

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= 2
# Bounded: an open range may bring a build that the other packages were not tried with.
TORCH ?= torch==2.13.0
# One thread in each of the test processes; more would fight over the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS)

setup: $(READY)

$(READY): pyproject.toml
	@echo "Setting up $(VENV) (some minutes the first time)"
	@python="$(PYTHON)"; \
	suits() { "$$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' \
		>/dev/null 2>&1; }; \
	if [ -z "$$python" ]; then \
		for each in python3.13 python3.12 python3.11 python3; do \
			if suits "$$each"; then python="$$each"; break; fi; \
		done; \
	fi; \
	if [ -z "$$python" ] || ! suits "$$python"; then \
		echo "$${python:-python3}: Python 3.11 or newer with venv and pip is needed and was not" \
			"found. Install it, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	test -x $(BIN)/python || "$$python" -m venv $(VENV)
	$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/python -m pip install --quiet $(TORCH)
	# pyright runs on Node.js; its extra brings one, so that none need be installed.
	$(BIN)/python -m pip install --quiet -e '.[dev]' 'pyright[nodejs]'
	@touch $(READY)

demo: $(READY)
	$(BIN)/vismae demo --out runs/demo --overwrite
	@echo "Report: runs/demo/report/index.html"

services:
	@.ci/services

test: lint types docs-site
	$(PYTEST)

test-all: lint types docs-site build
	$(PYTEST) -m 'not gpu'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/python -c "from pathlib import Path; \
	from vismae.core.settings_table import settings_page; \
	Path('docs/settings.md').write_text(settings_page(), encoding='utf-8')"
	$(BIN)/python -c "from pathlib import Path; \
	from vismae.workflows.intake.reason_page import reason_page; \
	Path('docs/reason-codes.md').write_text(reason_page(), encoding='utf-8')"
	$(BIN)/python tests/files/dicom_conformance.py

# The theme's maker announces another program at every build; that is no warning about a page.
docs-site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The wheel is tried in an environment of its own that borrows only the other packages: what was
# forgotten in the wheel is missing there.
build: $(READY)
	rm -rf build/wheel build/try
	$(BIN)/python -m build --wheel --outdir build/wheel .
	$(BIN)/python -m venv build/try
	build/try/bin/python -m pip install --quiet --no-deps build/wheel/*.whl
	packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'); \
	cd build/try && export PYTHONPATH="$$packages" && bin/vismae --version && \
	bin/python -c "import pkgutil, vismae; from importlib import import_module; \
	assert 'build/try' in vismae.__file__, vismae.__file__; \
	[import_module(m.name) for m in pkgutil.walk_packages(vismae.__path__, 'vismae.')]"
