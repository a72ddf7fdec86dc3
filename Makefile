# `make demo` and `make test` do all the set-up on a fresh machine: both create .venv once and reuse it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# torch first, by its version: Axolotl accepts many, and this one was tested.
TORCH  ?= torch==2.13.0
# Its build looks for torch, so it cannot be among the extras of pyproject.toml. Only tests need it.
DEEPSPEED ?= 'deepspeed>=0.18.9,<0.19'

# Files of tests that run at a time: most of a test is one thread, starting and importing.
JOBS ?= 2

export HF_HUB_OFFLINE ?= 1
export AXOLOTL_DO_NOT_TRACK ?= 1

.PHONY: demo demo-greek test lint clean

$(VENV)/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation $(DEEPSPEED) \
	  || echo 'DeepSpeed was not installed: the tests of ZeRO will skip'
	touch $@

# glibc gives the large buffers of every step back to the system; kept, a step on a CPU takes half the time.
demo demo-greek: export MALLOC_MMAP_MAX_ = 0
demo demo-greek: export MALLOC_TRIM_THRESHOLD_ = 100000000000
demo demo-greek: export CUDA_VISIBLE_DEVICES =
demo: $(VENV)/ready  ## all seven stages through `axolotl train`, on a CPU
	$(BIN)/python examples/demo/prepare.py
	$(BIN)/axolotl eeve run examples/demo/pipeline.yml

demo-greek: $(VENV)/ready  ## the same for another language and another family: Greek, byte-level, tied embeddings
	$(BIN)/python examples/demo/prepare.py --greek
	$(BIN)/axolotl eeve run examples/demo/greek/pipeline.yml

test: $(VENV)/ready  ## every test; those that need ../shared/corpora skip where it is absent
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile

lint: $(VENV)/ready
	$(BIN)/pip install --quiet --disable-pip-version-check 'ruff>=0.12'
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf outputs last_run_prepared
