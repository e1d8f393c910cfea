#!/usr/bin/env bash
# Builds wasm-bindgen with its test runner (the exact version in Cargo.lock, or it refuses the module) and geckodriver into .tools/bin.
. "$(dirname "$0")/lib.sh"

geckodriver_version=0.37.1

# These run for seconds and are built on every fresh machine: compile them fast rather than well.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=symbols
export CARGO_TARGET_DIR="$TOOLS/build"

# build CRATE VERSION [CARGO_INSTALL_OPTION...]
build() {
    local crate=$1 version=$2
    shift 2
    say "building $crate $version into $TOOLS/bin"
    cargo install --quiet --root "$TOOLS" "$crate" --version "=$version" "$@" ||
        die "$crate $version" "cargo install $crate --version =$version $*"
}

wasm_bindgen_version=$(locked_version wasm-bindgen)
if [ "$(wasm-bindgen --version 2>/dev/null)" != "wasm-bindgen $wasm_bindgen_version" ] || ! have wasm-bindgen-test-runner; then
    # Not --locked: the lock file of this crate names a version that was withdrawn from the registry.
    build wasm-bindgen-cli "$wasm_bindgen_version"
fi
if [[ " ${WEBLORA_BROWSERS:-chrome firefox} " = *" firefox "* ]] && [ -z "${WEBLORA_GECKODRIVER:-}" ] && ! have geckodriver; then
    # It passes messages on and waits: nothing in it is worth optimising.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=0 build geckodriver "$geckodriver_version" --locked
fi
rm -rf "$TOOLS/build"
