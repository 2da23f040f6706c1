# Two commands set up everything on a fresh machine: `make quickstart` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quickstart test test-slow load-test soak fuzz portability floors gpu format

# saq-qat asks for saq-qat-runtime by name alone, because both are installed from this checkout.
export SAQ_QAT_RUNTIME :=
PYTHON ?= python3
WORKERS ?= 2
KILLS ?= 30
MINUTES ?= 10
EXTRAS := dev,rtx,vit
BIN := .venv/bin
STAMP := .venv/.complete
ON_CPU := $(if $(CPU),$(BIN)/python -m tests.portability.older_cpu $(CPU) )
FLOOR_EXTRAS := vit,openvino,serve
FLOORS := tests/quant/numerics tests/optim tests/train tests/recipe tests/models tests/export/graph tests/export/test_run.py
FLOORS += tests/runtime/serve tests/runtime/test_session.py tests/runtime/test_preprocess.py
# Triton's own client brings newer packages.
FLOORS += --ignore tests/runtime/serve/web/test_triton_client.py
# TensorRT's halves: older versions of ONNX Runtime, which only tests run them on, compute them otherwise.
FLOORS += --deselect tests/export/graph/passes/test_float16.py::test_two_rewrites_are_the_same_bytes_and_answer_alike
COMPILED := tests/quant/numerics/test_compiled.py tests/optim/test_compiled.py
# Each process takes half of the tests as they stand, so that few networks are trained for both.
SPREAD := -n $(WORKERS) --dist worksteal
PYTEST := OMP_NUM_THREADS=1 $(ON_CPU)$(BIN)/python -m pytest $(SPREAD)

# $(call step,what it does,command): says it, runs it, and says how long it took.
define step
@echo; echo "==> $(1)"; echo "    $(2)"; start=$$SECONDS; $(2); echo "    ($$((SECONDS - start)) s)"
endef

help:
	@echo "make quickstart   environment; then train, export, verify, bench and report a 4-bit network on real images"
	@echo "make test         environment; then style, layers, types and all tests but the slow ones"
	@echo "make test-slow    environment; then the tests that take minutes"
	@echo "make load-test    environment; then requests a second and memory of a server: LOAD='--requests 100000', BUNDLE=folder"
	@echo "make soak         environment; then faults for long: KILLS=30 random kills over a whole recipe, full disks, lost ranks, MINUTES=10 of hostile clients"
	@echo "make fuzz         environment; then inputs that are harmed at random, for MINUTES=10, with seeds to try again"
	@echo "make portability  environment; then codes of a CNN and a ViT on older CPUs"
	@echo "make floors       an environment of the oldest versions allowed; then the tests of training, exported codes and serving"
	@echo "make gpu          what a GPU can show, with the torch of PYTHON: GPU='--data ...' (tests/gpu/README.md)"
	@echo "make format       rewrite the code in the house style"
	@echo
	@echo "CPU=avx2 (or avx512, sse4) hides newer instructions from quickstart and test: kernels without VNNI."
	@echo "The environment is .venv in this folder, made once from constraints.txt (PYTHON=$(PYTHON), 3.11 or later)."

$(STAMP): pyproject.toml runtime/pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(f"Python 3.11 or later is needed, $(PYTHON) is {v}; run make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(call step,Make the environment .venv (once; downloads torch if it is not in pip's cache),$(PYTHON) -m venv .venv)
	$(call step,Install saq-qat and the tested versions of what it needs,$(BIN)/python -m pip install --disable-pip-version-check -e ./runtime -e '.[$(EXTRAS)]' -c constraints.txt)
	@touch $@

quickstart: $(STAMP)
	$(call step,Train the quickstart recipe,$(ON_CPU)$(BIN)/saq-qat train configs/quickstart.yaml)
	$(call step,Export the newest run as integers and build its TensorRT engine,$(ON_CPU)$(BIN)/saq-qat export --onnx --trt)
	$(call step,Verify that the exported integers are the trained ones,$(ON_CPU)$(BIN)/saq-qat verify)
	$(call step,Measure latency and throughput,$(ON_CPU)$(BIN)/saq-qat bench)
	$(call step,Classify every validation image,$(ON_CPU)$(BIN)/saq-qat eval)
	$(call step,Write the report and a page for a browser,$(ON_CPU)$(BIN)/saq-qat report --html)

test: $(STAMP)
	$(call step,Lint,$(BIN)/ruff check .)
	$(call step,Check the formatting,$(BIN)/ruff format --check .)
	$(call step,Check which package may import which,$(BIN)/lint-imports)
	$(call step,Check the types,$(BIN)/mypy)
	$(call step,Run the tests,$(PYTEST) -m 'not slow')

test-slow: $(STAMP)
	$(call step,Run the slow tests,$(PYTEST) -m slow)

BUNDLE ?= $(firstword $(shell ls -td runs/*/*/export 2>/dev/null))
load-test: $(STAMP)
	$(call step,Load a server of $(BUNDLE),$(BIN)/python -m saq_qat_runtime.serve.load_test $(BUNDLE) $(LOAD))

soak: $(STAMP)
	$(call step,Run the faults that take long,SOAK_KILLS=$(KILLS) SOAK_MINUTES=$(MINUTES) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/faults)

fuzz: $(STAMP)
	$(call step,Try harmed inputs at every door,OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --minutes $(MINUTES))

portability: $(STAMP)
	$(call step,Compare codes on older CPUs,OMP_NUM_THREADS=1 $(BIN)/python -m tests.portability)

# No environment is made: machines with GPUs bring their own torch, and often no network.
# Types, lint and GPU packages have no floor that matters here; what is old prints deprecations of its own.
.venv-floors/.complete: pyproject.toml runtime/pyproject.toml floors.txt
	@$(PYTHON) -m venv .venv-floors
	$(call step,Install the oldest versions that are allowed,.venv-floors/bin/python -m pip install --disable-pip-version-check -e ./runtime -e '.[$(FLOOR_EXTRAS)]' pytest pytest-timeout pytest-xdist hypothesis jsonschema -c floors.txt)
	@touch $@

floors: .venv-floors/.complete
	$(call step,Test with them,OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest $(SPREAD) -m 'not slow' -W ignore::DeprecationWarning $(FLOORS))
	$(call step,Compile every quantizer and method with them,OMP_NUM_THREADS=1 .venv-floors/bin/python -m pytest $(SPREAD) -m slow -W ignore::DeprecationWarning $(COMPILED))

gpu:
	$(call step,Run the GPU kit,PYTHONPATH=.:export:runtime $(PYTHON) -m tests.gpu $(GPU))

format: $(STAMP)
	$(call step,Format,$(BIN)/ruff format .)
	$(call step,Mend what can be mended,$(BIN)/ruff check --fix .)
