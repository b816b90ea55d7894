# From a clean clone to captions (`make demo`) and to a tested project (`make test`). All that is installed goes into
# $(VENV), with the versions that constraints.txt pins; system packages are never touched.

PYTHON ?= python3
VENV ?= .venv
# Pictures or folders for `make demo`; empty: the sample photos inside scikit-image.
PHOTOS ?=
# `make test TESTS=tests/metrics` runs a part; TEST_WORKERS processes with one thread each.
TESTS ?= tests
TEST_WORKERS ?= 2
# `make bench BENCH="--tiny --rounds 1"` tries the suite out and writes no page.
BENCH ?=

BIN := $(VENV)/bin
INSTALL := PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install -c constraints.txt
PINS := pyproject.toml constraints.txt scripts/check_environment.py

.PHONY: help demo test bench curves wheel clean

help:
	@echo 'make demo [PHOTOS="a.jpg folder"]   install into $(VENV), then caption photos, offline'
	@echo 'make test [TESTS=tests/metrics]     install, then lint, types and tests'
	@echo 'make bench [BENCH=--tiny]           measure every road against its peer, write docs/benchmarks.md'
	@echo 'make curves                         measure rate and memory against sizes, write docs/scaling.md'
	@echo 'make wheel                          build dist/*.whl'
	@echo 'make clean                          remove build products and caches, keep $(VENV)'
	@echo 'PYTHON=python3.12 names the Python to build $(VENV) with.'

demo: $(VENV)/.installed-demo
	@HF_HUB_OFFLINE=1 $(BIN)/pixtell caption $(or $(PHOTOS),$$($(BIN)/python scripts/sample_photos.py))

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest --hypothesis-profile ci -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)

bench: $(VENV)/.installed-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks $(or $(BENCH),--output docs/benchmarks.md)

curves: $(VENV)/.installed-dev
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.curves --output docs/scaling.md

wheel: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find src tests scripts benchmarks -name __pycache__ -prune -exec rm -rf {} +

# pip is the last thing that venv puts in place: where it is absent, venv did not finish.
$(BIN)/pip:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "There is no program named $(PYTHON): install Python 3.11 or later, or name one, as in 'make demo PYTHON=python3.12'." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(sys.version_info < (3, 11) and \
	  "pixtell needs Python 3.11 or later and $(PYTHON) is %s: name a newer one, as in \"make demo PYTHON=python3.12\"." % v)'
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.installed-demo: $(PINS) | $(BIN)/pip
	$(INSTALL) -e . scikit-image
	$(BIN)/python scripts/check_environment.py
	@touch $@

$(VENV)/.installed-dev: $(PINS) | $(BIN)/pip
	$(INSTALL) -e '.[dev]'
	$(BIN)/python scripts/check_environment.py
	@touch $@ $(VENV)/.installed-demo
