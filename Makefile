# The project's own commands. `make demo` and `make test` bring what they need first; on Debian 13 as root that includes packages.
#
#   make setup    packages, .venv, compiled BPF; quick when nothing is missing
#   make demo     four pods without a cluster, and what they open, for 10 seconds
#   make check    in a minute or two the tests that need no root, no network, no clang and no kernel of their own; on Linux and macOS
#   make test     all tests that this machine can run, beside them those for Debian's kernels 6.12 and 6.1 in virtual machines
#                 (PYTEST="tests/wire -x" some of them; PYTEST="-n 0 --pdb" in one process)
#   make kernels  every gadget on this kernel and on those that Debian has, for the table in docs/gadgets/README.md
#   make release  wheel, source distribution, images, krew manifest, SBOMs, provenance, checksums, in dist/ (TAG=v0.1.0)
#   make digest   the digest of the agents' default image, which its registry has now, into the sources; before a release
#   make screenshots  docs/images anew, of the demo; needs root
#   make lock     requirements.txt and requirements-dev.txt, the fixed versions of the dependencies, anew; needs uv
#   make lint     style, types, layers, C format
#   make image    the agent's image as build/agent-image.tar (VARIANT=bcc, ARCHITECTURE=arm64)
#   make bench    measurements side by side with other tools; tables, and build/bench/*.json
#   make clean    removes what the targets above made, but for packages
#
# The trap: .venv is made by Debian's python3, not the first python3 on PATH, since bcc's Python library is Debian's.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory
# Tests start hundreds of processes, also where an emulator runs them: they compile our modules once.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= /usr/bin/python3
BIN := .venv/bin
VARIANT ?= default
ARCHITECTURE ?= $(shell dpkg --print-architecture)
IMAGE := build/agent-image$(if $(filter-out default,$(VARIANT)),-$(VARIANT)).tar

# What each target needs from Debian. Nothing is asked of the network when all of it is there.
SETUP_PACKAGES := clang-19 bpftool iproute2 libbpf-dev mmdebstrap python3-venv runc busybox-static
LINT_PACKAGES := clang-format-19
TEST_PACKAGES := bpfcc-tools bpftrace chromium-headless-shell containerd dnsmasq-base gcc libc6-dev libpcap0.8t64 mmdebstrap musl nftables python3-bpfcc
ifeq ($(shell uname -m),x86_64)
TEST_PACKAGES += qemu-system-arm qemu-system-x86 virtiofsd
endif
IMAGE_PACKAGES := mmdebstrap
DIGEST_PACKAGES := skopeo
BENCH_PACKAGES := libbpf-tools gcc libc6-dev
BENCHES := open exec tcp programs profile start client attach behavior recording recorders recording_reading idle policies size

C_FILES := $(shell find bpf tests bench -name '*.[ch]')

CHECK_PYTHON ?= python3

.PHONY: help screenshots setup demo check test release digest lock kernels lint image bench clean packages-%

help:
	@sed -n 's/^#   //p' Makefile

setup: packages-SETUP .venv/installed
	@$(BIN)/python -m kubectl_gadget.gadgets.build  # by contents: does nothing when nothing changed
	@$(BIN)/python -m kubectl_gadget.cli.describe

demo: setup
	$(BIN)/kubectl-gadget demo --timeout 10s

check: .venv-check/installed
	.venv-check/bin/python -m pytest -q -n auto --unit --hypothesis-profile=quick --durations=10 $(PYTEST)

test: setup packages-TEST
	@# A test marked bpf, root or vm that fails once and then passes is listed at the end, and is no failure: load on the machine is
	@# not ours. All others run once (tests/needs.py). What hangs is not run again, since then it would have no time limit.
	$(BIN)/pytest -n 3 --reruns 1 --rerun-except pytest-timeout --durations=20 $(PYTEST)

kernels: setup packages-TEST
	$(BIN)/python -m tests.vm.table $(KERNEL)

lint: setup packages-LINT
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy hatch_build.py image/build.py release/*.py bench
	$(BIN)/lint-imports --no-cache
	$(BIN)/vulture
	$(if $(C_FILES),clang-format-19 --dry-run -Werror $(C_FILES))

image: setup packages-IMAGE
	$(PYTHON) image/build.py --variant $(VARIANT) --architecture $(ARCHITECTURE) --output $(IMAGE)

release: setup packages-IMAGE
	$(BIN)/python release/artifacts.py $(if $(TAG),--tag $(TAG)) $(if $(BINARIES),--binaries $(BINARIES)) $(if $(WHEEL_ONLY),--wheel-only)

screenshots: setup packages-TEST
	@mkdir -p build docs/images
	rm -f build/demo.kgr
	$(BIN)/kubectl-gadget demo record --for incident --timeout 15s -o build/demo.kgr
	$(BIN)/kubectl-gadget report build/demo.kgr -o build/demo.html
	$(BIN)/python -m docs.screenshots build/demo.kgr build/demo.html docs/images

digest: packages-DIGEST
	$(PYTHON) release/digest.py

bench: setup packages-BENCH
	@mkdir -p build/bench
	@for name in $(BENCHES); do echo "== $$name"; $(BIN)/python -m bench.$$name --rounds 3 --json build/bench/$$name.json; done

clean:
	rm -rf build dist kubectl_gadget/built .venv .venv-check .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages-%:
	@command -v dpkg-query >/dev/null || { echo "make: this sets up Debian only; elsewhere install the like of: $($*_PACKAGES)" >&2; exit 1; }; \
	missing=$$(comm -23 <(printf '%s\n' $($*_PACKAGES) | sort) \
	  <(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $($*_PACKAGES) 2>/dev/null | sed -n 's/^installed //p' | sort) | tr '\n' ' '); \
	[ -n "$$missing" ] || exit 0; \
	[ "$$(id -u)" = 0 ] || { echo "make: packages are missing. try: sudo apt-get install $$missing" >&2; exit 1; }; \
	echo "apt-get install $$missing"; mkdir -p build; export DEBIAN_FRONTEND=noninteractive; \
	{ apt-get -q update && apt-get -q -y install --no-install-recommends $$missing; } </dev/null >build/apt.log 2>&1 \
	  || { cat build/apt.log >&2; exit 1; }

.venv/installed: requirements-dev.txt pyproject.toml hatch_build.py
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(call install,$(BIN))
	@# Only bcc of Debian's own Python packages: others may run code at each start of Python, which takes long in an emulator.
	ln -sfn /usr/lib/python3/dist-packages/bcc $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/bcc
	touch $@

# Any Python from 3.11 on will do, and neither packages of the system nor a compiler are needed.
.venv-check/installed: requirements-dev.txt pyproject.toml hatch_build.py
	@$(CHECK_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "make: $(CHECK_PYTHON) is not Python 3.11 or newer. try: make check CHECK_PYTHON=python3.13" >&2; exit 1; }
	[ -x .venv-check/bin/python ] || $(CHECK_PYTHON) -m venv .venv-check
	$(call install,.venv-check/bin)
	touch $@

# The exact versions of requirements-dev.txt, each with its hash, and this project as it is.
define install
$(1)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
$(1)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
endef

# Newer versions of all, for Python 3.11 and later on every platform.
lock:
	uv pip compile pyproject.toml --extra dev --extra export --extra query --extra stores --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet -o requirements-dev.txt
	uv pip compile pyproject.toml --constraints requirements-dev.txt --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --quiet -o requirements.txt
