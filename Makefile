# Everything runs in a virtual environment of its own; `make` alone lists the commands.
PYTHON ?= python3
VENV ?= .venv
# On Windows a virtual environment has its programs in another folder.
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PYTEST := $(BIN)/python -m pytest
# Most tests wait for something: three at a time keep two processors busy.
SIDE_BY_SIDE := -n 3 --dist worksteal
# Another build or another Python changes neither what a loop does nor how two front ends meet:
# `make test` has tried uvloop and every pairing, the others try each front end with itself.
# With ALIKE= they run everything.
ALIKE := -k 'not uvloop and not asyncio-sync and not asyncio-trio and not sync-asyncio \
	and not sync-trio and not trio-asyncio and not trio-sync'
# The groups of dependencies that the tests need.
GROUPS := --group test --group adapters --group check
SECONDS ?= 600
SEED ?= 1
TESTS ?= tests
PYTHONS ?= 3.12 3.13

# Some commands also use the compiled core, if there is a C compiler.
COMPILED := $(if $(shell command -v cc),.venv-compiled/installed)

.DEFAULT_GOAL := help
.PHONY: help demo examples test test-pythons test-compiled interop coverage coverage-all soak soak-interrupts fuzz \
	check docs workflows bench instructions trips dist wheels wheels-plan format clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[cli,trio,uvloop]' $(GROUPS)
	@touch $@

demo: $(VENV)/demo ## run requests, transfers and pings on real sockets, and measure them
	$(BIN)/muxado demo

# The demo needs less than the tests, so it starts sooner.
$(VENV)/demo: pyproject.toml
	test -e $(VENV)/installed || { $(PYTHON) -m venv $(VENV) \
		&& $(BIN)/python -m pip install --quiet --upgrade pip \
		&& $(BIN)/python -m pip install --quiet --editable '.[cli,uvloop]'; }
	@touch $@

test: $(VENV)/installed ## run the tests
	$(PYTEST) $(SIDE_BY_SIDE) $(SELECT) $(TESTS)

test-pythons: ## run the front ends' tests on the other installed Pythons (3.12, 3.13)
	@for version in $(PYTHONS); do \
		python=$$(sh tools/find-python $$version) || { echo "Python $$version: not installed"; continue; }; \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory test PYTHON=$$python VENV=.venv-$$version \
			GROUPS='--group test --group adapters' SELECT="$(ALIKE)" \
			TESTS='tests/contract tests/asyncio tests/sync tests/trio tests/reliability/test_closing.py' \
			|| exit 1; \
	done

test-compiled: .venv-compiled/installed ## run the tests against the compiled core
	MUXADO_BUILD=compiled .venv-compiled/bin/python -m pytest $(SIDE_BY_SIDE) $(ALIKE) $(TESTS)

.venv-compiled/installed: pyproject.toml README.md $(wildcard src/muxado/*.py src/muxado/*/*.py)
	$(PYTHON) -m venv --clear .venv-compiled
	.venv-compiled/bin/python -m pip install --quiet --upgrade pip build
	rm -rf .venv-compiled/dist
	# Through the sdist, because compiling in place would leave its files among the sources.
	HATCH_BUILD_HOOK_ENABLE_MYPYC=1 .venv-compiled/bin/python -m build --outdir .venv-compiled/dist .
	.venv-compiled/bin/python -m pip install --quiet --group test \
		--group adapters "$$(ls $(CURDIR)/.venv-compiled/dist/*.whl)[cli,trio,uvloop]"
	@touch $@

examples: $(VENV)/installed ## run every example
	@for example in examples/*.py; do \
		echo "== $$example"; $(BIN)/python $$example || exit 1; \
	done

interop: $(VENV)/installed ## run the tests against live Go peers (needs the Go toolchain)
	MUXADO_REQUIRE_GO=1 $(PYTEST) $(SIDE_BY_SIDE) interop

# Without what counts bytecodes or memory, which the measuring itself adds to, without what tries
# random input, so that the same branches are reached each time, and without what takes long.
MEASURED := -k 'not is_given_back and not garbage and not anywhere and not never_taken \
	and not tiny_reads and not stores_a_field and not of_the_ledger'
coverage: $(VENV)/installed ## every branch of the core and the wires must be reached by their own tests
	$(PYTEST) $(SIDE_BY_SIDE) --cov=src/muxado/core --cov=src/muxado/wire --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=100 tests/core tests/wire \
		--ignore tests/core/test_hot_path.py --ignore tests/core/test_model.py \
		--ignore tests/core/test_long_links.py $(MEASURED)

# What runs in processes of its own is not measured: most of the commands, and the engines' part.
coverage-all: $(VENV)/installed ## the branches of the whole package that all others' tests reach (minutes)
	$(PYTEST) $(SIDE_BY_SIDE) $(ALIKE) --cov=src/muxado --cov-branch \
		--cov-report=term-missing:skip-covered --cov-fail-under=87 tests \
		--ignore tests/core --ignore tests/wire --ignore tests/fuzz --ignore tests/hostile \
		--ignore tests/reliability --ignore tests/docs --ignore tests/adapters/test_examples.py

soak: $(VENV)/installed ## mixed traffic over a bad line, half of the time on each loop (SECONDS=600, SEED=1)
	$(PYTEST) -m slow tests/hostile
	for loop in asyncio uvloop; do \
		$(BIN)/python -m tests.reliability.soak --seconds $$(($(SECONDS) / 2)) \
			--seed $(SEED) --loop $$loop || exit 1; \
		$(BIN)/python -m tests.reliability.soak --streams 1000000 --loop $$loop || exit 1; \
	done

soak-interrupts: $(VENV)/installed $(COMPILED) ## threads interrupted by a timer, half of the time compiled (SECONDS=600)
	$(BIN)/python -m tests.reliability.interrupted --seconds $$(($(SECONDS) / 2))
	$(if $(COMPILED),.venv-compiled/bin/python -m tests.reliability.interrupted \
		--seconds $$(($(SECONDS) / 2)))

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

bench: .venv-bench/installed $(if $(ARGS),,.venv-bench/tools/tried) $(COMPILED) ## compare muxado with other multiplexers (ARGS=--quick, ARGS='--only REGEX' ...)
	.venv-bench/bin/python -m benchmarks \
		$(if $(COMPILED),--compiled-python .venv-compiled/bin/python) $(ARGS)
	$(if $(ARGS),,.venv-bench/bin/python -m benchmarks.tunnel_commands \
		$(if $(COMPILED),--python .venv-compiled/bin/python))

# A separate environment, because the contenders bring type stubs that would mislead `make check`.
.venv-bench/installed: pyproject.toml
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --upgrade pip
	.venv-bench/bin/python -m pip install --quiet --editable '.[cli,trio,tunnel,uvloop]' --group bench
	@touch $@

# Tunnels in Rust, where there is cargo. The benchmark names those that are not there.
.venv-bench/tools/tried: | .venv-bench/installed
	@mkdir -p $(@D)
	-command -v cargo >/dev/null && for each in bore-cli \
			'rathole --no-default-features --features server,client,noise'; do \
		cargo install --quiet --root .venv-bench/tools $$each; \
	done
	@touch $@

instructions: $(VENV)/installed $(COMPILED) ## count machine instructions a request (needs valgrind)
	$(BIN)/python -m benchmarks.instructions $(ARGS)
	$(if $(COMPILED),$(BIN)/python -m benchmarks.instructions \
		--python $(CURDIR)/.venv-compiled/bin/python $(ARGS))

trips: $(VENV)/installed ## count the calls and the changes of file of everyday trips through the core
	$(BIN)/python tools/trips.py $(ARGS)

dist: .venv-compiled/installed ## build the sdist, the pure and the compiled wheel, and test each as installed (TESTS=...)
	PYTHON=$(PYTHON) TESTS='$(TESTS)' sh tools/dist

wheels: ## build and test the compiled wheels of this machine's system (Linux: needs docker)
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/python -m pip install --quiet --upgrade pip
	.venv-wheels/bin/python -m pip install --quiet --group wheels
	.venv-wheels/bin/cibuildwheel --output-dir wheelhouse

wheels-plan: ## list the wheels that a release builds
	$(PYTHON) -m venv .venv-wheels
	.venv-wheels/bin/python -m pip install --quiet --upgrade pip
	.venv-wheels/bin/python -m pip install --quiet --group wheels
	@for system in linux macos windows; do \
		.venv-wheels/bin/cibuildwheel --print-build-identifiers --platform $$system \
			--archs $$(case $$system in linux) echo x86_64,aarch64;; macos) echo x86_64,arm64;; *) echo AMD64;; esac) \
			|| exit 1; \
	done

check: $(VENV)/installed ## check lint, types, spelling, workflows, public names, instructions, coverage, and the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	@$(MAKE) --no-print-directory workflows
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" basedpyright --ignoreexternal --verifytypes muxado
	$(BIN)/python -m benchmarks.instructions --check --only core --requests 64
	@$(MAKE) --no-print-directory coverage
	@$(MAKE) --no-print-directory docs

docs: $(VENV)/docs ## build the documentation site (every warning is an error)
	rm -rf build/site
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env \
		-d build/doctrees docs build/site
	@echo "the site: build/site/index.html"

$(VENV)/docs: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --group docs
	@touch $@

# actionlint's Python package downloads a program; its Go module is built here.
workflows: ## check the workflow files (needs the Go toolchain)
	@if command -v go >/dev/null; then \
		echo "go run actionlint"; \
		go run github.com/rhysd/actionlint/cmd/actionlint@v1.7.12 -shellcheck= -pyflakes=; \
	elif [ -n "$(MUXADO_REQUIRE_GO)" ]; then echo "no Go: the workflows can't be checked"; exit 1; \
	else echo "the workflow files are not checked: there is no Go toolchain"; fi

format: $(VENV)/installed ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove the files that the other commands made
	rm -rf $(VENV) .venv-* build dist wheelhouse .mypy_cache .pytest_cache .ruff_cache .hypothesis
