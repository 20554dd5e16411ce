# The project's commands; `make help` lists them.

TARGET := $(or $(CARGO_TARGET_DIR),target)
TOOLS  := $(TARGET)/tools
PAGE   := clients/try-it
KILLS  ?= 1000
FLOOD_SECONDS ?= 5
FAULTS := backup full_disk storage_faults worker_faults clock_steps neighbours_down init_and_publish_faults flood damage
CRATES ?= engine store atproto
HEAD   ?= HEAD
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help dev page build check fmt clippy deny sbom test test-kill test-faults fuzz mutants bench bench-compare \
	tools conformance-packages conformance-pds-packages
# A half-built page is no page.
.DELETE_ON_ERROR:
# Two cargos would only wait for each other's lock.
.NOTPARALLEL:

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

dev: build ## Build and start a server to try and to develop against; ARGS="--port 4000" and so on
	@exec $(TARGET)/release/groundmist-sync dev $(ARGS)

page: $(PAGE)/dist/app.js ## Build the try-it page, if its sources have changed

build: page ## Build the release binary, the try-it page in it
	cargo build --release --locked -p groundmist-sync

check: fmt clippy deny ## The fast part of the tests: formatting, lints, dependencies

fmt:
	cargo fmt --all --check

clippy:
	cargo clippy --workspace --exclude sim --all-targets --locked -- -D warnings
	cargo clippy -p sim --all-targets --locked -- -D warnings

deny: $(TOOLS)/installed
	@tools/deny $(TOOLS)/bin/cargo-deny

sbom: ## Write what the release binary is made of, as CycloneDX, into target/sbom
	@tools/sbom $(TOOLS) $(TARGET)/sbom

test: ## Run everything, and install what it needs; ends with "N passed, N failed"
	@tools/test

test-kill: ## Kill the server (kill -9) under load KILLS=1000 times and look for anything lost
	KILLS=$(KILLS) cargo test --release --locked -p groundmist-sync --test kill_9 -- --nocapture

test-faults: ## Put every fault of docs/proof/faults.md to the server, and flood it for FLOOD_SECONDS=5 a route
	FLOOD_SECONDS=$(FLOOD_SECONDS) cargo test --release --locked --no-fail-fast -p groundmist-sync \
		$(FAULTS:%=--test %) -- --nocapture

fuzz: ## Fuzz for FUZZ_SECONDS=60 a target, TARGETS="wire engine" to choose; what broke is in fuzz/artifacts
	@FUZZ_SECONDS="$(FUZZ_SECONDS)" tools/fuzz $(TOOLS) $(TARGETS)

mutants: ## Look for code that no test notices a change of; ARGS go to cargo-mutants, CRATES="engine store atproto"
	@CRATES="$(CRATES)" tools/mutants $(TOOLS) $(ARGS)

bench: ## Measure: the project's own benchmark; ARGS are its arguments
	cargo run --release --locked -p groundmist-sync-bench -- $(ARGS)

bench-compare: ## Compare two commits by instruction counts: BASE=commit [HEAD=commit]
	@tools/bench-compare $(BASE) $(HEAD)

# What `make test` needs, each by the files it comes from.

tools: $(TOOLS)/installed

$(TOOLS)/installed: tools/install tools/pinned.txt
	@tools/install $(TOOLS)

$(PAGE)/dist/app.js: $(PAGE)/node_modules/.package-lock.json $(PAGE)/build.js $(wildcard $(PAGE)/src/*)
	cd $(PAGE) && npm run build

$(PAGE)/node_modules/.package-lock.json: $(PAGE)/package.json $(PAGE)/package-lock.json $(PAGE)/.npmrc
	cd $(PAGE) && npm ci

conformance-packages: conformance/node_modules/.package-lock.json

conformance/node_modules/.package-lock.json: conformance/package.json conformance/package-lock.json \
		conformance/.npmrc $(wildcard conformance/clients/*/package.json)
	cd conformance && npm ci

conformance-pds-packages: conformance-packages conformance/pds/node_modules/.installed

conformance/pds/node_modules/.installed: conformance/pds/package.json conformance/pds/package-lock.json \
		conformance/pds/.npmrc conformance/pds/install
	conformance/pds/install
