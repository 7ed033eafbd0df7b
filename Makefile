# Each target makes .venv and installs into it first, if needed. Another Python: make test PYTHON=python3.12
# Not from PyPI: chromium, without which the tests that open a browser are skipped.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
ARGS ?=

# Where Python is told to keep no compiled modules, every command compiles Nerfstudio and torch anew: 20 seconds each.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test lint format types docs release-check install

help:
	@echo "make demo    learn a semantic video of a dynamic scene, and watch it (minutes)"
	@echo "make test    run all tests; make test ARGS='-m \"not slow\"' for the quick ones"
	@echo "make lint    check style; make format to repair it"
	@echo "make types   check types"
	@echo "make docs    the documentation as a site, in build/site"
	@echo "make release-check   build what would be uploaded, install it, run its commands"

demo: $(INSTALLED)
	$(BIN)/semfield demo $(ARGS)

test: $(INSTALLED)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	$(BIN)/mkdocs build --strict --site-dir build/site

# The wheel is built from the source distribution, and what is tested is what would be uploaded.
release-check: $(INSTALLED)
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	SEMFIELD_WHEEL="$$(echo dist/*.whl)" $(BIN)/python -m pytest tests/test_package.py $(ARGS)

install: $(INSTALLED)

# uv installs in half a minute what takes pip three, and needs no compiler (pyproject.toml, [tool.uv]).
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo 'Python 3.10 or newer is needed: make PYTHON=...'; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv \
		|| echo "uv could not be installed: pip takes some minutes, and needs a C++ compiler"
	if test -x $(BIN)/uv; then \
		$(BIN)/uv pip install --python $(BIN)/python --editable '.[dev]'; \
	else \
		$(BIN)/python -m pip install --editable '.[dev]'; \
	fi
	touch $@
