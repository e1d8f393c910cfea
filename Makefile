# Set-up and the everyday commands. Every target sets up what it needs and skips what is there; `make` lists them.
# Debian 12 is the platform where set-up installs what is missing; elsewhere it names it. See scripts/setup/.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.PHONY: help demo test test-native test-web test-page lint-native lint-web package serve bench setup setup-native setup-web clean

TOOLS := $(or $(WEBLORA_TOOLS),$(CURDIR)/.tools)
export PATH := $(TOOLS)/bin:$(PATH)
# Vulkan's loader and the browsers want a run-time folder; a machine without a login session has none.
export XDG_RUNTIME_DIR ?= $(TOOLS)/run

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: setup-native ## train the embedded adapter: loss, and a sample before and after
	cargo run --release

test: test-native test-web ## everything: format, lints, docs, native tests, both browsers

test-native: setup-native lint-native ## the native tests, on whatever Vulkan adapter answers
	@if [ -z "$${WEBLORA_SMOLLM2:-}" ]; then \
	    WEBLORA_SMOLLM2=$$(scripts/fetch-smollm2.sh) && export WEBLORA_SMOLLM2 || echo "SmolLM2: the tests of the real model are skipped"; \
	fi; \
	cargo test

test-web: setup-web lint-web package ## the web API in headless Chromium and Firefox, the npm package and the page in Chromium
	scripts/test-web.sh
	scripts/test-package.sh
	scripts/test-page.sh

test-page: package ## the page in headless Chromium
	scripts/test-page.sh

lint-native: setup-native
	@scripts/setup/rust.sh --with-linters
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --quiet

lint-web: setup-web
	scripts/with-wasm.sh cargo clippy --target wasm32-unknown-unknown --lib --no-default-features -- -D warnings

package: setup-web ## build the npm package: www/package
	scripts/build-wasm.sh
	cd www && npm run build --workspace package

serve: package ## build the page and serve it on localhost
	cd www && npm run build --workspace page && npm run serve --workspace page

bench: setup-native ## kernels and training steps as fractions of the adapter's measured peak
	cargo run --release -- bench

setup: setup-native setup-web ## all of the set-up and nothing else

setup-native:
	@mkdir -p -m 700 "$$XDG_RUNTIME_DIR"
	@scripts/setup/rust.sh
	@scripts/setup/vulkan.sh

setup-web: setup-native
	@scripts/setup/wasm-target.sh
	@scripts/setup/browsers.sh
	@scripts/setup/wasm-tools.sh
	@scripts/setup/node.sh

clean: ## remove what was built, the tools included
	cargo clean
	rm -rf "$(TOOLS)"
