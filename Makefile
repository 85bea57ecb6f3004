# podrt. `make help` lists the targets; the work is in packaging/, bench/ and tests/.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down run check docs lint unit test test-vm bench bench-vm images install uninstall lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Debian packages, virtual environment, Python packages (nothing if done)
	@packaging/setup

demo: ## start the daemon and a Pod of two containers, show both (sudo)
	@packaging/demo

demo-down: ## remove what demo made (sudo)
	@packaging/demo-down

run: ## the daemon in the foreground (sudo)
	@packaging/setup
	@exec $(BIN)/podrtd

check: ## format, lint, types, layering, unit tests: no root, under a minute
	@packaging/setup dev
	@packaging/check

docs: ## write docs/pod-api.md anew from the code and the tests
	@packaging/setup
	@$(BIN)/python docs/generate

test: ## check, then the root tier and the CRI tier on the real kernel (sudo)
	@packaging/setup dev
	@packaging/check --no-unit
	@packaging/test

test-vm: ## the same on a real VM: systemd, cgroup v2, AppArmor, a reboot (sudo; SUITE=trixie for another guest)
	@vagrant/test $(if $(SUITE),--suite $(SUITE))

bench: ## measure on this machine; results and pictures go to docs/ (sudo)
	@packaging/setup dev bench
	@bench/run

bench-vm: ## create latency on cgroup v2 against the floor in the same VM (sudo)
	@vagrant/test --bench $(if $(SUITE),--suite $(SUITE))

images: ## build the images of the examples and tests
	@packaging/setup
	@images/build --out build/images

install: ## install to /opt/podrt with a systemd unit (sudo)
	@packaging/install

uninstall: ## remove what install made; Pods' data stays (sudo)
	@packaging/install --remove

lock: ## write the lock files anew
	@packaging/lock

clean: ## remove built files, caches and the virtual environment
	rm -rf build dist $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
