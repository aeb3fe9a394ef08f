# Everything runs in a virtual environment of its own; `make` alone says what there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# Most tests wait for something: two at a time take half as long.
SIDE_BY_SIDE := -n 2 --dist worksteal
SECONDS ?= 600
SEED ?= 1
TESTS ?= tests
PYTHONS ?= 3.12 3.13

.DEFAULT_GOAL := help
.PHONY: help demo examples test test-pythons test-compiled interop soak fuzz \
	check docs bench dist format clean

help: ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cli,trio,uvloop]' --group test --group adapters --group check
	@touch $@

demo: $(VENV)/demo ## run the main job on real sockets, with figures
	$(BIN)/muxado demo

# The demo needs less than the tests, so it starts sooner.
$(VENV)/demo: pyproject.toml
	test -e $(VENV)/installed || { $(PYTHON) -m venv $(VENV) \
		&& $(BIN)/python -m pip install --quiet --upgrade pip \
		&& $(BIN)/python -m pip install --quiet --editable '.[cli,uvloop]'; }
	@touch $@

test: $(VENV)/installed ## run the tests
	$(PYTEST) $(SIDE_BY_SIDE) $(TESTS)

test-pythons: ## run the front ends' contract on the other Pythons that are here (3.12, 3.13)
	@for version in $(PYTHONS); do \
		python=$$(sh tools/find-python $$version) || { echo "Python $$version: not here"; continue; }; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv-$$version \
			TESTS='tests/asyncio tests/contract tests/reliability/test_closing.py' || exit 1; \
	done

test-compiled: .venv-compiled/installed ## run the tests against the compiled core
	MUXADO_BUILD=compiled .venv-compiled/bin/python -m pytest $(SIDE_BY_SIDE) tests

.venv-compiled/installed: pyproject.toml $(wildcard src/muxado/*.py src/muxado/*/*.py)
	$(PYTHON) -m venv --clear .venv-compiled
	.venv-compiled/bin/python -m pip install --quiet --upgrade pip build
	rm -rf .venv-compiled/dist
	# By way of the sdist: compiling in place would leave its files among the sources.
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 .venv-compiled/bin/python -m build --outdir .venv-compiled/dist .
	.venv-compiled/bin/python -m pip install --quiet --group test \
		--group adapters "$$(ls $(CURDIR)/.venv-compiled/dist/*.whl)[cli,trio,uvloop]"
	@touch $@

examples: $(VENV)/installed ## run every example
	@for example in examples/*.py; do \
		echo "== $$example"; $(BIN)/python $$example || exit 1; \
	done

interop: $(VENV)/installed ## run the tests against live Go peers (needs the Go toolchain)
	MUXADO_REQUIRE_GO=1 $(PYTEST) interop

soak: $(VENV)/installed ## mixed traffic over a bad line, half of the time on each loop (SECONDS=600, SEED=1)
	$(PYTEST) -m slow tests/hostile
	for loop in asyncio uvloop; do \
		$(BIN)/python -m tests.reliability.soak --seconds $$(($(SECONDS) / 2)) \
			--seed $(SEED) --loop $$loop || exit 1; \
		$(BIN)/python -m tests.reliability.soak --streams 1000000 --loop $$loop || exit 1; \
	done

fuzz: .venv-fuzz/installed ## coverage-guided fuzzing, half of the time each (SECONDS=600)
	.venv-fuzz/bin/python tests/fuzz/seeds.py .venv-fuzz/corpus
	.venv-fuzz/bin/python tests/fuzz/atheris_parser.py -max_total_time=$$(($(SECONDS) / 2)) \
		-max_len=4096 -artifact_prefix=.venv-fuzz/ .venv-fuzz/corpus
	.venv-fuzz/bin/python tests/fuzz/atheris_session.py -max_total_time=$$(($(SECONDS) / 2)) \
		-max_len=4096 -artifact_prefix=.venv-fuzz/ .venv-fuzz/corpus

.venv-fuzz/installed: pyproject.toml
	$(PYTHON) -m venv .venv-fuzz
	.venv-fuzz/bin/python -m pip install --quiet --upgrade pip
	.venv-fuzz/bin/python -m pip install --quiet --editable . --group test atheris
	@touch $@

# The compiled core takes part where there is a compiler.
COMPILED := $(if $(shell command -v cc),.venv-compiled/installed)

bench: .venv-bench/installed $(COMPILED) ## measure muxado beside its peers (ARGS=--quick, ARGS='--only REGEX' ...)
	.venv-bench/bin/python -m benchmarks \
		$(if $(COMPILED),--compiled-python .venv-compiled/bin/python) $(ARGS)

# Apart, because the contenders bring type stubs that would mislead `make check`.
.venv-bench/installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet --editable '.[cli,uvloop]' --group bench
	@touch $@

dist: ## build the sdist, the pure and the compiled wheel, and test each as installed
	PYTHON=$(PYTHON) sh tools/dist

check: $(VENV)/installed ## lint, types, what the public names promise, and the documentation site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --ignoreexternal --verifytypes muxado
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/docs ## build the documentation site (every warning is an error)
	rm -rf build/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env \
		-d build/doctrees docs build/site
	@echo "the site: build/site/index.html"

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

format: $(VENV)/installed ## put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what the other commands made
	rm -rf $(VENV) .venv-* build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
