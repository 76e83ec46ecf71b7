# hpcddl: every target first sets up .venv, unless it is already up to date.
# Choices (remembered in .venv until you give others): PYTHON=python3.12 MPI=system TORCH=cu126 NCCL=1
# ARGS passes options on, e.g. make test ARGS="-k topology"

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup wheelhouse demo test test-quick test-slow lint types clean

export PATH := $(CURDIR)/.venv/bin:$(PATH)
SCRIPTS := $(wildcard jobs/*.sh jobs/*.sbatch jobs/sites/*.sh .ci/run)

# Open MPI refuses to start as root unless told twice.
ifeq ($(shell id -u),0)
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1
endif

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

setup: ## set up .venv: packages, MPI, Horovod; continues, and rebuilds what no longer fits
	@bash jobs/install.sh

wheelhouse: setup ## collect all packages in wheelhouse/, to install without internet
	@bash jobs/wheelhouse.sh

demo: ## the whole workflow on a generated corpus: pack it, train with SSGD and DPSGD, compare
	@bash jobs/install.sh --without-tests
	@bash jobs/demo.sh $(ARGS)

test: setup ## the test suite, without tests that take minutes
	@python -m pytest -n 3 $(ARGS)

test-quick: setup ## after every edit: no Slurm, kills, cold starts, and few numbers of ranks
	@python -m pytest -n 3 -m "not slow and not thorough" $(ARGS)

test-slow: setup ## the tests that take minutes
	@python -m pytest -m slow $(ARGS)

lint: setup ## ruff and shellcheck
	@ruff check .
	@ruff format --check .
	@shellcheck $(SCRIPTS)

types: setup ## mypy
	@mypy

clean: ## remove .venv and caches; results in runs/ stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
