#!/usr/bin/env bash
# Makes sure that Rust can build for wasm32-unknown-unknown: rustup's own target where rustup can download it, otherwise
# Debian's Rust with its standard library built from Debian's source. scripts/with-wasm.sh picks whichever is there.
. "$(dirname "$0")/lib.sh"

target=wasm32-unknown-unknown
debian_rust=(rustc-web cargo-web rust-web-src rust-web-clippy)

wasm_toolchain >/dev/null && exit 0

if have rustup; then
    say "adding the target $target with rustup"
    limit=()
    have timeout && limit=(timeout 180)
    if RUSTUP_MAX_RETRIES=1 ${limit[@]+"${limit[@]}"} rustup --quiet target add "$target" 2>/dev/null && builds_wasm; then
        exit 0
    fi
    say "rustup cannot download it; building it from Debian's sources of Rust instead"
fi

if ! can_be_root || ! have apt-get; then
    die "the Rust target $target" "rustup target add $target"
fi
apt_install "${debian_rust[@]}"
if have rustup; then
    rustup toolchain link debian /usr
    export RUSTUP_TOOLCHAIN=debian
    # The same linker that rustup's Rust would use; Debian's package of it where there is none.
    linker=$(find "${RUSTUP_HOME:-$HOME/.rustup}/toolchains" -path '*/bin/rust-lld' 2>/dev/null | sed -n 1p)
fi
[ -n "${linker:-}" ] || apt_install lld-22

# Cargo builds the standard library as a dependency of an empty crate; its libraries then make an installed target.
say "building Rust's standard library for $target (half a minute)"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
printf '[package]\nname = "empty"\nversion = "0.0.0"\nedition = "2021"\n' >"$work/Cargo.toml"
echo '#![no_std]' >"$work/src/lib.rs"
(cd "$work" && CARGO_TARGET_DIR="$work/target" RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Cembed-bitcode=yes cargo build --quiet --release \
    --target "$target" -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test) ||
    die "the standard library for $target" "rustup target add $target"
libraries=$(rustc --print target-libdir --target "$target")
as_root rm -rf "$libraries"
as_root mkdir -p "$libraries"
find "$work/target/$target/release/deps" -name '*.rlib' ! -name 'libempty-*' -print0 | as_root xargs -0 cp -t "$libraries"

wasm_toolchain >/dev/null || die "a Rust that builds for $target" "rustup target add $target"
