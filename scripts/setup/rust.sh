#!/usr/bin/env bash
# Checks that cargo, rustfmt and clippy are there and new enough. Installs nothing: how one gets Rust is the user's choice.
. "$(dirname "$0")/lib.sh"

have cargo || die "cargo (Rust)" "see https://rustup.rs, or apt-get install cargo-web rustc-web rustfmt-web rust-web-clippy"

wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
found=$(rustc --version | cut -d' ' -f2 | cut -d- -f1)
oldest=$(printf '%s\n%s\n' "$wanted" "$found" | sort -V | sed -n 1p)
[ "$oldest" = "$wanted" ] || die "Rust $wanted or newer (found $found)" "rustup update stable"

if [ "${1:-}" = --with-linters ]; then
    cargo fmt --version >/dev/null 2>&1 || die "rustfmt" "rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || die "clippy" "rustup component add clippy"
fi

# Build scripts and the final link need a C compiler driver.
have cc || apt_install gcc libc6-dev
