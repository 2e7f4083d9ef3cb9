# PG_CONFIG=… picks another PostgreSQL; without it the scripts find one.
PG_CONFIG ?=
ROWS ?= 1000000

export PG_CONFIG ROWS

.DEFAULT_GOAL := help
.PHONY: help demo test stress bench lint install setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## migrate three live tables under load and prove it (ROWS=1000000)
	@scripts/demo.sh

test: ## every test: unit, in the server, with several sessions
	@scripts/setup.sh test
	@scripts/test.sh

stress: ## the same tests, the long way: minutes of concurrent load
	@scripts/setup.sh test
	@PARTITION_ROUTER_STRESS=full scripts/test.sh sessions

bench: install ## side by side with what one would do instead
	@scripts/setup.sh bench
	@benches/run.sh

lint: ## rustfmt, clippy, rustdoc, cargo-deny, shellcheck, other PostgreSQL versions
	@scripts/setup.sh lint
	@scripts/lint.sh

install: setup ## build the extension and install it into the PostgreSQL of PG_CONFIG
	@scripts/install.sh

setup: ## install what the build needs and is not there yet
	@scripts/setup.sh build

clean: ## remove all that was built, and stop clusters left under target/
	@scripts/clean.sh
