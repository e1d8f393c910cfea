# shellcheck shell=bash
# What every set-up script shares: saying what happens, failing with the missing piece, Debian packages with or without sudo,
# and which toolchain builds for wasm. Sourced, never run.
# Readers of a pipe read it to its end: with pipefail, a writer that `grep -q` or `head` leaves behind fails the whole pipe, now and then.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Programs that cargo builds for this project only. Point WEBLORA_TOOLS at another folder to share them between clones.
TOOLS=${WEBLORA_TOOLS:-$ROOT/.tools}
export PATH="$TOOLS/bin:$PATH"

say() { printf 'set-up: %s\n' "$*"; }

# die WHAT_IS_MISSING COMMAND_THAT_INSTALLS_IT
die() {
    printf 'set-up: missing: %s\nset-up: install it with: %s\n' "$1" "$2" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

can_be_root() { [ "$(id -u)" = 0 ] || have sudo; }

is_installed() { dpkg-query -W -f='${db:Status-Abbrev}' "$1" 2>/dev/null | grep '^ii' >/dev/null; }

# The package lists, refreshed at most once an hour: an image often has none, or stale ones.
apt_update() {
    mkdir -p "$TOOLS"
    if [ -z "$(find "$TOOLS/apt-updated" -mmin -60 2>/dev/null)" ]; then
        as_root apt-get update -qq -o DPkg::Lock::Timeout=300
        touch "$TOOLS/apt-updated"
    fi
}

# apt_install [-t SUITE] PACKAGE...: installs what is not there yet; asks for root only then.
apt_install() {
    local suite=() missing=() package
    if [ "$1" = -t ]; then
        suite=(-t "$2")
        shift 2
    fi
    if ! have apt-get || ! have dpkg-query; then
        die "$*" "this system's package manager (these are Debian's names)"
    fi
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local command="apt-get install --no-install-recommends ${suite[*]} ${missing[*]}"
    can_be_root || die "${missing[*]}" "$command (as root)"
    say "installing Debian packages: ${missing[*]}"
    apt_update || die "Debian's package lists" "apt-get update (as root)"
    as_root env DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes apt-get install -y -qq --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "${suite[@]}" "${missing[@]}" >/dev/null ||
        die "${missing[*]}" "$command (as root)"
}

# The installed version of crate $1 according to Cargo.lock.
locked_version() {
    awk -v name="$1" '$0 == "name = \"" name "\"" { getline; gsub(/version = |"/, ""); print; exit }' "$ROOT/Cargo.lock"
}

# builds_wasm [TOOLCHAIN]: whether that rustc (or the current one) has a standard library for wasm that it can read.
builds_wasm() {
    local scratch ok=0
    scratch=$(mktemp -d)
    echo 'pub fn probe() -> String { String::new() }' >"$scratch/probe.rs"
    ${1:+env RUSTUP_TOOLCHAIN="$1"} rustc --edition 2024 --crate-type lib --emit metadata --target wasm32-unknown-unknown \
        --out-dir "$scratch" "$scratch/probe.rs" >/dev/null 2>&1 || ok=1
    rm -rf "$scratch"
    return $ok
}

# Prints the rustup toolchain that builds for wasm: an empty line for the current one, "debian" for the fall-back; fails for none.
wasm_toolchain() {
    if builds_wasm; then
        echo
    elif have rustup && builds_wasm debian; then
        echo debian
    else
        return 1
    fi
}
