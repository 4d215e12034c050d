# kubelet-py: what a person or CI types. `make` alone lists it.
# Everything slow to make (virtual environment, built tools, images) is kept in $KUBELET_PY_CACHE, outside the tree.

CACHE := $(or $(KUBELET_PY_CACHE),$(HOME)/.cache/kubelet-py)
PYTHON := $(CACHE)/venv/bin/python
BIN := $(CACHE)/venv/bin
# docker or containerd; where it is not given, each target has its own default
RUNTIME ?=
WORKERS ?= 2
ENGINE ?= 20.10
PYTEST_ARGS ?=
KUBELET ?= kubelet-py
FOCUS ?=
SPECS ?= conformance
PROCESSES ?= 2
MODULE ?=
IN_MACHINE := /opt/kubelet-py/bin/python -m pytest -p no:cacheprovider -q --timeout=3600

# the checkout, not an installed copy, is what runs and what is tested
export PYTHONPATH := $(CURDIR)

.DEFAULT_GOAL := help
.PHONY: help up down check lint unit cover mutants test tests shim lab long critest conformance bench bench-cri fresh boot venv lock format
.NOTPARALLEL:

help: ## list what can be made
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: venv ## run one pod on this machine: Docker and dockershim (or RUNTIME=containerd) under kubelet-py
	@$(PYTHON) -m deploy.standalone up --runtime $(or $(RUNTIME),docker)

down: venv ## remove everything that `make up` started
	@$(PYTHON) -m deploy.standalone down

check: lint cover unit ## formatting, lint, types, import rules, generated files, unit tests: no root, no engines

lint: venv ## all of `make check` but the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTHON) -m cri_proto.regen --check

unit: venv ## unit tests alone
	$(PYTHON) -m pytest -q -n $(WORKERS) tests/unit $(PYTEST_ARGS)

cover: venv ## the decisions in kubelet_py/core: their own tests must run every branch
	$(PYTHON) -m coverage run --source=kubelet_py/core -m pytest -q -p no:cacheprovider tests/unit/kubelet_py/core
	$(PYTHON) -m coverage report --fail-under=100 --skip-covered --show-missing

mutants: venv ## change each rule in kubelet_py/core and see whether a test notices (MODULE=pod_actions for one module); half an hour or more
	@$(PYTHON) -m tests.mutation $(MODULE)

test: lint cover tests ## everything: checks, then all tests, on real engines too (needs root; installs what it needs)

tests: venv
	$(PYTHON) -m tests.lab prepare
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

shim: venv ## the tests of dockershim on the other Docker: ENGINE=29, or 20.10 as in `make test` (needs root)
	$(PYTHON) -m tests.lab prepare
	KUBELET_PY_DOCKER=$(ENGINE) $(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile $(PYTEST_ARGS) \
		tests/integration/dockershim tests/integration/dockershim_faults

long: venv ## a million log lines across kills of dockershim and Docker, memory over ten thousand pods (needs root)
	KUBELET_PY_LOG_LINES=1000000 $(PYTHON) -m pytest -q -s --timeout=1200 $(PYTEST_ARGS) \
		tests/integration/dockershim_logs/test_kill.py tests/integration/dockershim_logs/test_whole_node.py \
		tests/integration/dockershim_logs/test_spool.py tests/integration/dockershim_logs/test_terminals.py
	$(PYTHON) -m tests.bench.cycles

lab: venv ## a running cluster with our node in it, and a kubeconfig (needs root)
	@$(PYTHON) -m tests.lab

critest: venv ## critest on dockershim with Docker 20.10 (ENGINE=29, containerd-1.6, containerd-2.4), held against its list (needs root)
	@$(PYTHON) -m tests.conformance.critest $(ENGINE)

conformance: venv ## Kubernetes' e2e suite on a cluster of our node (RUNTIME, KUBELET=go, SPECS, FOCUS, PROCESSES), held against its list (needs root)
	@$(PYTHON) -m tests.conformance.e2e $(or $(RUNTIME),docker) --kubelet $(KUBELET) --specs $(SPECS) --focus '$(FOCUS)' --processes $(PROCESSES)

bench: venv ## measure against the Go kubelet on containerd, or with RUNTIME=docker against it and cri-dockerd, in one run; writes bench/out (needs root)
	@$(PYTHON) -m tests.bench $(or $(RUNTIME),containerd)

bench-cri: venv ## measure dockershim against Docker itself, containerd and cri-dockerd in one run; writes bench/out/cri.md (needs root)
	@$(PYTHON) -m tests.bench.cri

fresh: venv ## make up and make down in a clone on a fresh Debian 12: what a newcomer sees (needs root and a registry)
	@$(PYTHON) -m tests.lab.fresh -- sh -c 'make up && make down && make down'

boot: venv ## units and cgroups on a virtual machine that boots Debian 12, labels on one with SELinux, make up on a bare one (needs root and a registry)
	@$(PYTHON) -m tests.lab.machine --cluster --timeout 5400 -- $(IN_MACHINE) tests/machine/runtime.py tests/machine/checkpoints.py \
		tests/machine/units.py tests/machine/resources.py
	@$(PYTHON) -m tests.lab.machine --selinux -- $(IN_MACHINE) tests/machine/selinux.py
	@$(PYTHON) -m tests.lab.machine --bare -- sh -c 'make up && make down && make up RUNTIME=containerd && make down'

venv: ## the virtual environment, from requirements.lock
	@sh deploy/venv.sh >/dev/null

lock: venv ## rewrite requirements.lock from pyproject.toml
	@$(PYTHON) -m pip install --quiet uv
	@$(PYTHON) -m uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements.lock

format: venv ## format the code and sort its imports
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
