# Each target is a script or one command; what they need, they set up.

.DEFAULT_GOAL := help
.PHONY: help setup build install demo stop clean-demo test test-versions test-asserts test-valgrind campaign bench picture profile fmt lint deb test-deb test-reproducible image test-image test-pg-upgrade bom dist deny msrv

include_env := . scripts/env.sh &&

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing: PostgreSQL, clang, cargo-pgrx
	@scripts/setup.sh

build: setup ## compile everything, without installing
	@$(include_env) cargo build --release --workspace --no-default-features --features fhir_bulk/pg$$PG_MAJOR

install: setup ## build the release extension and install it into PostgreSQL
	@scripts/install.sh

demo: ## see it work: load a sample into a private cluster and dump it again
	@scripts/demo.sh

stop: ## stop the demo's cluster
	@scripts/stop.sh

clean-demo: ## stop the demo's cluster and delete its folder
	@scripts/stop.sh --remove

test: ## all tests; with PG_MAJOR=18 those from outside, as `make setup` and `make install` are for that version
	@scripts/test.sh

test-versions: ## the same on PostgreSQL 16, 17 and 18, and on 15 with assertions
	@scripts/test-versions.sh

test-asserts: ## tests from outside and inside, on a PostgreSQL built with assertions (ARGS go to cargo test)
	@scripts/asserts.sh $(ARGS)

test-valgrind: ## some tests from outside, on a PostgreSQL under valgrind (ARGS go to cargo test)
	@scripts/valgrind.sh $(ARGS)

campaign: install ## try to break it for MINUTES (10), by machines that think of cases; ARGS name parts and a seed
	@scripts/campaign.sh --minutes $(or $(MINUTES),10) $(ARGS)

bench: install ## measure dump and load against plain COPY and SQL
	@$(include_env) cargo run --release -p fhir_bulk_bench --bin bench -- $(ARGS)

picture: ## draw the figures of docs/speed.md for the README
	@cargo run --quiet -p fhir_bulk_bench --bin bench -- --draw docs/speed.md --out docs/images

profile: ## count and show the instructions of the codec's hot loops
	@scripts/profile.sh

fmt: ## format the sources
	@cargo fmt --all

lint: setup ## formatting and clippy, warnings denied
	@cargo fmt --all --check
	@$(include_env) cargo clippy --workspace --all-targets --no-default-features \
	  --features fhir_bulk/pg$$PG_MAJOR,fhir_bulk_pg_tests/pg$$PG_MAJOR,fhir_bulk_pg_tests/pg_test -- -D warnings

deb: ## Debian packages of the extension, for each PostgreSQL that is here, and of the proxy, in target/deb/
	@scripts/deb.sh

test-deb: ## install them into a new Debian 12 and 13, use them, and remove them again
	@scripts/test-deb.sh

test-reproducible: ## make packages of this commit in two folders, and compare their bytes (two release builds)
	@scripts/test-reproducible.sh

image: ## an OCI image of Debian's PostgreSQL 17 with these packages, in target/image/
	@scripts/image.sh

test-image: ## the same, and run it
	@scripts/image.sh --test

bom: ## the bills of materials of the extension and the proxy, in target/
	@mkdir -p target && python3 scripts/bom.py fhir_bulk pg15 >target/fhir_bulk.cdx.json
	@python3 scripts/bom.py fhir_bulk_proxy >target/fhir_bulk_proxy.cdx.json

test-pg-upgrade: ## pg_upgrade from PostgreSQL 16 to 18, with jobs, files and rejected lines (make install both first)
	@scripts/test-pg-upgrade.sh

dist: ## the sources as PGXN takes them, in target/
	@scripts/dist.sh

deny: ## hold the dependencies to deny.toml (OFFLINE=1: without their known flaws)
	@scripts/deny.sh

msrv: ## check the sources with the oldest Rust that is supported
	@scripts/msrv.sh
