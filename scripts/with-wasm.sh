#!/usr/bin/env bash
# Runs a command with the Rust toolchain that builds for wasm: scripts/with-wasm.sh cargo check --target wasm32-unknown-unknown
. "$(dirname "$0")/setup/lib.sh"

toolchain=$(wasm_toolchain) || die "the Rust target wasm32-unknown-unknown" "scripts/setup/wasm-target.sh"
if [ -n "$toolchain" ]; then
    export RUSTUP_TOOLCHAIN=$toolchain
fi
# Debian's Rust comes without a linker for wasm: lend it rustup's, or Debian's lld.
host=$(rustc -vV | sed -n 's/^host: //p')
if [ ! -x "$(rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld" ]; then
    linker=$(find "${RUSTUP_HOME:-$HOME/.rustup}/toolchains" -path '*/bin/rust-lld' 2>/dev/null | sed -n 1p)
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=${linker:-wasm-ld-22}
fi
exec "$@"
