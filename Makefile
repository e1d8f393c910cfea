# Set-up and the everyday commands. Every target sets up what it needs and skips what is there; `make` lists them.
# Debian 12 is the platform where set-up installs what is missing; elsewhere it names it. See scripts/setup/.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.PHONY: help demo interop test fuzz times test-native test-web test-page lint-native lint-web package serve bench kill setup setup-native setup-web clean

TOOLS := $(or $(WEBLORA_TOOLS),$(CURDIR)/.tools)
export PATH := $(TOOLS)/bin:$(PATH)
# Vulkan's loader and the browsers want a run-time folder; a machine without a login session has none.
export XDG_RUNTIME_DIR ?= $(TOOLS)/run
# Says how long a part took; `make test` lists them all at its end.
timed := scripts/timed.sh
# Times a run is killed by `make kill`, and the seed of the moments.
KILLS ?= 100
KILL_SEED ?= 1

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: setup-native ## train the embedded adapter: loss, and a sample before and after
	cargo run --release

test: times test-native test-web ## everything: format, lints, docs, native tests, both browsers
	@$(timed) --list

times:
	@$(timed) --begin

# A test that finds no adapter fails: this target sets up an adapter. No doc tests: there are no examples in the docs to run.
test-native: setup-native lint-native ## the native tests, on whatever Vulkan adapter answers
	@$(timed) "native tests, compiled" cargo test --all-targets --no-run
	@if [ -z "$${WEBLORA_SMOLLM2:-}" ]; then \
	    WEBLORA_SMOLLM2=$$(scripts/fetch-smollm2.sh) && export WEBLORA_SMOLLM2 || echo "SmolLM2: the tests of the real model are skipped"; \
	fi; \
	WEBLORA_REQUIRE_ADAPTER=1 $(timed) "native tests, run" cargo test --all-targets

kill: setup-native ## by hand: kill runs at random moments, KILLS times, and compare what they end with
	WEBLORA_REQUIRE_ADAPTER=1 WEBLORA_KILLS=$(KILLS) WEBLORA_KILL_SEED=$(KILL_SEED) cargo test --test native kill:: -- --nocapture

# Inputs a parser, minutes a parser, and one input to run again (FUZZ_CASE=gguf:1234).
CASES ?= 200000
MINUTES ?= 30
FUZZ_CASE ?=

fuzz: setup-native ## damaged files for every parser: CASES=200000 MINUTES=30 of each, or FUZZ_CASE=gguf:1234
	WEBLORA_FUZZ_CASES=$(CASES) WEBLORA_FUZZ_MINUTES=$(MINUTES) FUZZ_CASE=$(FUZZ_CASE) cargo test --test fuzz -- --nocapture

test-web: setup-web lint-web package ## the web API in headless Chromium and Firefox, the npm package and the page in Chromium
	@scripts/test-web.sh
	@$(timed) "npm package in Chromium" scripts/test-package.sh
	@$(timed) "page in Chromium" scripts/test-page.sh

test-page: package ## the page in headless Chromium
	scripts/test-page.sh

lint-native: setup-native
	@scripts/setup/rust.sh --with-linters
	cargo fmt --check
	@$(timed) "clippy" cargo clippy --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(timed) "docs" cargo doc --no-deps --quiet

lint-web: setup-web
	node scripts/check-dependencies.mjs
	@$(timed) "clippy for wasm" scripts/with-wasm.sh cargo clippy --target wasm32-unknown-unknown --lib --no-default-features -- -D warnings

package: setup-web ## build the npm package: www/package
	@$(timed) "wasm module" scripts/build-wasm.sh
	@$(timed) "npm package" npm --prefix www run build --workspace package

serve: package ## build the page and serve it on localhost
	cd www && npm run build --workspace page && npm run serve --workspace page

interop: setup-native ## an exported adapter in llama.cpp: the same losses there as here (compiles llama-cpp-python)
	cargo build --release
	scripts/interop/run.sh

bench: setup-native ## kernels and training steps as fractions of the adapter's measured peak
	cargo run --release -- bench

setup: setup-native setup-web ## all of the set-up and nothing else

setup-native:
	@mkdir -p -m 700 "$$XDG_RUNTIME_DIR"
	@scripts/setup/rust.sh
	@$(timed) "set-up: Vulkan" scripts/setup/vulkan.sh

setup-web: setup-native
	@$(timed) "set-up: Rust for wasm" scripts/setup/wasm-target.sh
	@$(timed) "set-up: browsers" scripts/setup/browsers.sh
	@$(timed) "set-up: tools" scripts/setup/wasm-tools.sh
	@$(timed) "set-up: npm packages" scripts/setup/node.sh

clean: ## remove what was built, the tools included
	cargo clean
	rm -rf "$(TOOLS)"
