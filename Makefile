# A thin face: each target is one command. `make help` lists them.

CARGO ?= cargo
EVE   := $(CARGO) run -q -p cli --
XTASK := $(CARGO) run -q -p xtask --

# Before any program of ours can be linked.
SUDO    = $(if $(filter-out 0,$(shell id -u)),sudo)
APT     = $(SUDO) apt-get install -y --no-install-recommends gcc libc6-dev
LINKER  = { echo "gcc and libc6-dev are missing and will be installed: Rust links with them."; \
            $(APT) || { $(SUDO) apt-get update && $(APT); }; }

.DEFAULT_GOAL := help
.PHONY: help setup tool demo down test eve live run bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## install what the host lacks (says what; quick when nothing is missing)
	@command -v cc >/dev/null || $(LINKER)
	@$(CARGO) build -p xtask
	@$(XTASK) setup

# Built where one can see it: the first time takes minutes.
tool: setup
	@$(CARGO) build -p cli

demo: tool ## build, boot, onboard and run the sample app: http://localhost:8080
	@$(EVE) up

down: ## stop what `make demo` started
	@$(EVE) down

test: setup ## everything that CI runs, the QEMU boot included
	@$(XTASK) setup --for-tests
	@$(XTASK) ci

eve: ## build the `eve` command: target/release/eve
	$(CARGO) build --release -p cli

live: tool ## build the live disk image: dist/<arch>/current
	@$(EVE) build live

run: tool ## boot the newest image on this terminal
	@$(EVE) run

bench: setup ## memory and times of a node in QEMU
	@$(XTASK) bench node

clean: ## remove what was built (the package cache stays)
	$(CARGO) clean
	rm -rf dist
