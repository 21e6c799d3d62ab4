# SPDX-License-Identifier: Apache-2.0
# The front door. In a fresh clone, as root: `make demo`, `make test`.

BIN     := .venv/bin
PYTHON  := $(BIN)/python
export PATH := $(CURDIR)/$(BIN):$(PATH)

PYTHON_FILES := kubeproxy_ebpf tests tools bench demo build_bpf.py
C_FILES      := $(wildcard bpf_src/*.[ch])
SHELL_FILES  := .ci/run tools/install-packages tools/find-python tools/build-libbpf tools/make-environment tools/kernels/init tools/kernels/node
SPELLED      := Makefile $(wildcard $(PYTHON_FILES) docs bpf_src)
PYTEST       := $(PYTHON) -m pytest
# Each command that touches the kernel must leave it as it found it.
LEAVES_NOTHING := $(PYTHON) tools/leaves_nothing.py

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: ## install what is missing: Debian packages (as root) and a virtual environment, .venv
	@tools/install-packages build
	@tools/make-environment

.PHONY: build
build: install ## compile the eBPF objects, the libbpf binding and, as an installation does, the package, in place
	@$(PYTHON) build_bpf.py
	@$(PYTHON) -m compileall -q kubeproxy_ebpf

.PHONY: kubernetes
kubernetes: install ## build Kubernetes' control plane and kube-proxy from Go modules: minutes, once
	@tools/install-packages kubernetes
	@$(PYTHON) -m tools.kubernetes.build

.PHONY: demo
demo: root build ## see Services work without kube-proxy (root)
	@$(LEAVES_NOTHING) demo/run

.PHONY: demo-cluster
demo-cluster: root build kubernetes ## see Services follow a Deployment, with all of Kubernetes but the kubelet (root)
	@$(LEAVES_NOTHING) demo/run cluster

.PHONY: lint
lint: lint-python lint-c lint-rest ## check style: Python, C, shell, spelling, the lock file

.PHONY: lint-python
lint-python: install
	@ruff check --quiet --output-format concise $(wildcard $(PYTHON_FILES))
	@ruff format --quiet --check $(wildcard $(PYTHON_FILES))

.PHONY: lint-c
lint-c: install
	@clang-format --dry-run -Werror $(C_FILES)

.PHONY: lint-rest
lint-rest: install
	@shellcheck $(SHELL_FILES)
	@$(PYTHON) -m codespell_lib $(wildcard *.md) $(SPELLED)
	@$(PYTHON) tools/lock_requirements.py --check

.PHONY: types
types: install ## check types
	@$(PYTHON) -m mypy --no-error-summary

.PHONY: imports
imports: install ## check who may know whom
	@report=$$(lint-imports 2>&1) || { echo "$$report"; exit 1; }

.PHONY: unit
unit: build ## test what needs neither root nor the kernel; takes seconds
	@$(PYTEST) -q -m "not kernel and not cluster" $(or $(TESTS),tests/unit)

.PHONY: kernel
kernel: root build ## test with real programs and sockets, in namespaces of their own (root)
	@$(LEAVES_NOTHING) $(PYTEST) -m kernel $(or $(TESTS),tests/kernel)

.PHONY: cluster
cluster: root build kubernetes ## test with a real API server in front (root)
	@$(LEAVES_NOTHING) $(PYTEST) -m cluster $(or $(TESTS),tests/cluster)

.PHONY: test
test: root build kubernetes ## check and test everything (root)
	@$(MAKE) --no-print-directory --keep-going --jobs=2 machine-tests checks

# Beside the tests of the machine, which wait most of the time. What each has to say comes in one piece.
.PHONY: checks
checks: build
	@$(MAKE) --no-print-directory --keep-going --output-sync=target lint types imports unit

.PHONY: machine-tests
machine-tests: root build kubernetes
	@$(LEAVES_NOTHING) $(PYTEST) -m "kernel or cluster"

.PHONY: test-kernels
test-kernels: root build ## run the kernel tests on older and newer kernels in QEMU; slow (root; KERNELS="5.10 6.1")
	@tools/install-packages kernels
	@$(PYTHON) -m tools.kernels $(KERNELS)

.PHONY: bench
bench: root build kubernetes ## measure against kube-proxy; writes docs/benchmarks.md (root)
	@tools/install-packages bench
	@$(LEAVES_NOTHING) bench/run

.PHONY: lock
lock: install ## choose the newest versions that pyproject.toml allows; writes requirements.lock
	@$(PYTHON) tools/lock_requirements.py

.PHONY: format
format: install ## put Python and C into shape
	@ruff check --quiet --fix $(wildcard $(PYTHON_FILES))
	@ruff format --quiet $(wildcard $(PYTHON_FILES))
	@clang-format -i $(C_FILES)

.PHONY: clean
clean: ## remove what was built; the caches in ~/.cache/kubeproxy-ebpf stay
	rm -rf .venv .kernels .bench build dist kubeproxy_ebpf/bpf kubeproxy_ebpf/datapath/libbpf/*.so .hypothesis .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: root
root:
	@[ "$$(id -u)" = 0 ] || { echo "make: this needs root; try: sudo make $(MAKECMDGOALS)" >&2; exit 1; }
