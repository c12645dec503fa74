# make demo         the main job: ce, focal and tce on text-bytes-micro, three seeds, about five minutes on two cores
# make baselines    all seeds of the baselines on the micro tasks, to be submitted; hours, resumes
# make leaderboard  the site over the committed submissions
# make processor-test TASK=text-bytes-micro   the baselines again with the instructions of an old processor (rule 7)
# make test         the tests
# make test-gpu     the tests of a GPU, with the Python of .venv or python3; COLLAPSEBENCH_TEST_DEVICE=cpu puts the CPU in its place
# make cheats       losses that cheat, on every ranked micro task; hours, resumes; writes docs/cheats.md
# make check        format, lint, imports, types, tests
#
# Each target makes a virtual environment when there is none. VENV= says where, PYTHON= with which Python. What only runs
# tasks (demo, baselines, cheats, processor-test) installs the package and the data of the micro tasks; the others install
# what the tests, the checks and the site need, too.
VENV ?= .venv
PYTHON ?= python3
OUT ?= runs
TEXT := text-bytes-micro
TASKS ?= markov-micro $(TEXT) $(addprefix $(TEXT)-,sharp mix accumulate fresh) vae-mnist-micro vae-mnist-micro-accumulate \
         diffusion-mnist-micro
TASK ?= text-bytes-micro
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PACKAGE := $(VENV)/.installed-package

.PHONY: demo baselines leaderboard cheats processor-test test test-slow test-gpu test-browser check format environment
.PHONY: package

demo: package
	$(BIN)/collapsebench compare text-bytes-micro --methods ce,focal,tce --seeds 0,1,2 --out $(OUT)

# With a clean checkout, so that the entries name the commit that they were run with.
baselines: package
	for task in $(TASKS); do \
		case $$task in *-sharp) methods=ce,focal,tce,ce-compensated;; *) methods=ce,focal,tce;; esac; \
		$(BIN)/collapsebench compare $$task --methods $$methods --out $(OUT)/baselines || exit 1; \
	done

leaderboard: environment
	$(BIN)/collapsebench leaderboard

cheats: package
	$(BIN)/python tests/cheats/run.py --out runs/cheats --write docs/cheats.md

processor-test: package
	$(BIN)/python -m collapsebench.authoring.processor_test $(TASK) --out $(OUT)/old-processor

test: environment
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: environment
	$(BIN)/python -m pytest -m slow

# No environment is made: a machine with a GPU has the torch that fits its driver. Few packages are needed, see
# tests/gpu/conftest.py; the end of the output says what was skipped for want of one.
test-gpu:
	$(or $(wildcard $(BIN)/python),$(PYTHON)) -m pytest -m gpu --confcutdir tests/gpu tests/gpu -rs

test-browser: environment
	$(BIN)/python -m pytest -m browser tests/leaderboard

check: environment
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy
	cd leaderboard && MYPYPATH=.. $(abspath $(BIN))/mypy --config-file ../pyproject.toml *.py views/*.py
	$(BIN)/python -m pytest -n 2 --dist loadfile

format: environment
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The stamp holds the checkout that the environment serves: one environment may outlive a checkout.
environment: $(STAMP)
	@if [ "$$(cat $(STAMP))" != "$(CURDIR)" ]; then \
		$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable . && echo "$(CURDIR)" > $(STAMP); \
	fi

# Whoever has the environment of the tests has the package in it.
package: $(if $(wildcard $(STAMP)),environment,$(PACKAGE))
	@if [ ! -e $(STAMP) ] && [ "$$(cat $(PACKAGE))" != "$(CURDIR)" ]; then \
		$(BIN)/pip install --quiet --no-deps --editable . && echo "$(CURDIR)" > $(PACKAGE); \
	fi

$(PACKAGE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --constraint constraints.txt --editable '.[micro]'
	@echo "$(CURDIR)" > $(PACKAGE)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --constraint constraints.txt --editable '.[micro,dev]'
	@echo "$(CURDIR)" > $(STAMP)
