# PG_CONFIG=… picks another PostgreSQL; without it the scripts find one.
PG_CONFIG ?=
ROWS ?= 1000000

export PG_CONFIG ROWS

.DEFAULT_GOAL := help
.PHONY: help demo test stress test-matrix bench reference lint all install uninstall installcheck deb deb-test pgxn-test docker-test setup clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: install ## migrate three live tables under load and prove it (ROWS=1000000)
	@scripts/demo.sh

test: ## every test: unit, in the server, with several sessions
	@scripts/setup.sh test
	@scripts/test.sh

stress: ## the same tests, the long way: minutes of concurrent load
	@scripts/setup.sh test
	@PARTITION_ROUTER_STRESS=full scripts/test.sh sessions

test-matrix: ## every session test on PostgreSQL 17 and 18, and the package on a bare Debian; in chroots, as root
	@scripts/setup.sh matrix
	@scripts/matrix.sh all
	@$(MAKE) --no-print-directory deb-test

bench: install ## side by side with what one would do instead
	@scripts/setup.sh bench
	@benches/run.sh

reference: install ## write docs/catalog.md anew, from the comments of the catalog
	@PARTITION_ROUTER_WRITE=docs scripts/test.sh reference

lint: ## rustfmt, clippy, rustdoc, cargo-deny, shellcheck, pgspot, other PostgreSQL versions
	@scripts/setup.sh lint
	@scripts/lint.sh

all: setup ## build the extension for the PostgreSQL of PG_CONFIG
	@scripts/install.sh build

install: setup ## build the extension and install it into the PostgreSQL of PG_CONFIG
	@scripts/install.sh

uninstall: ## take the files of the extension away from the PostgreSQL of PG_CONFIG
	@scripts/install.sh uninstall

installcheck: ## the smoke test, on a server of its own with the extension that is installed
	@scripts/test.sh installcheck

deb: setup ## a Debian package for the PostgreSQL of PG_CONFIG, in target/deb
	@scripts/deb.sh

deb-test: deb ## install that package onto a Debian that has nothing yet, migrate a table there, remove it
	@scripts/setup.sh matrix
	@tests/deb.sh

pgxn-test: ## install the sources as PGXN has them, with its client, try them and take them away again
	@scripts/setup.sh packages
	@tests/pgxn.sh

docker-test: ## build the Dockerfile, from stand-ins for its base images, and migrate a table in what it makes; as root
	@scripts/setup.sh packages
	@tests/docker.sh

setup: ## install what the build needs and is not there yet
	@scripts/setup.sh build

clean: ## remove all that was built, and stop clusters left under target/
	@scripts/clean.sh
