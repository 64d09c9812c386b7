# A thin face: each target is one command. `make help` lists them.

CARGO ?= cargo
EVE   := $(CARGO) run -q -p cli --
XTASK := $(CARGO) run -q -p xtask --

.DEFAULT_GOAL := help
.PHONY: help setup demo down test eve live run bench clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10

setup: ## install what the host lacks (says what; quick when nothing is missing)
	@$(XTASK) setup

demo: setup ## build, boot, onboard and run the sample app: http://localhost:8080
	@$(EVE) up

down: ## stop what `make demo` started
	@$(EVE) down

test: setup ## everything that CI runs, the QEMU boot included
	@$(XTASK) setup --for-tests
	@$(XTASK) ci

eve: ## build the `eve` command: target/release/eve
	$(CARGO) build --release -p cli

live: setup ## build the live disk image: dist/<arch>/current
	@$(EVE) build live

run: setup ## boot the newest image on this terminal
	@$(EVE) run

bench: setup ## memory and times of a node in QEMU
	@$(XTASK) bench node

clean: ## remove what was built (the package cache stays)
	$(CARGO) clean
	rm -rf dist
