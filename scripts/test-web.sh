#!/usr/bin/env bash
# Runs tests/wasm.rs in headless Chromium and Firefox through wasm-pack. Two independent WebGPU implementations, both in software:
# Dawn (Tint) on SwiftShader and Firefox's own wgpu (naga) on Mesa's lavapipe. Set-up: make setup-web.
. "$(dirname "$0")/setup/lib.sh"
cd "$ROOT" || exit 1

chromedriver=${WEBLORA_CHROMEDRIVER:-/usr/bin/chromedriver}
geckodriver=${WEBLORA_GECKODRIVER:-$(command -v geckodriver || true)}

# webdriver.json with this machine's browsers in place of Debian's. Chromium refuses its sandbox to root.
capabilities=$TOOLS/webdriver.json
mkdir -p "$TOOLS"
no_sandbox=
[ "$(id -u)" != 0 ] || no_sandbox='"--no-sandbox", '
sed -e "s|/usr/bin/chromium|${WEBLORA_CHROME:-/usr/bin/chromium}|" -e "s|/usr/bin/firefox-esr|${WEBLORA_FIREFOX:-/usr/bin/firefox-esr}|" \
    -e "s|\"--disable-quic\"|$no_sandbox&|" webdriver.json >"$capabilities"
export WASM_BINDGEN_TEST_WEBDRIVER_JSON=$capabilities

# A first pipeline on a software adapter can take long; the runner's own limit is 20 seconds for all tests.
export WASM_BINDGEN_TEST_TIMEOUT=${WASM_BINDGEN_TEST_TIMEOUT:-600}
# wasm-pack builds with the dev profile and tests with the test profile: made equal, everything compiles once. Full debug
# information would only make a module of many megabytes for wasm-bindgen to rewrite.
export CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_PROFILE_DEV_DEBUG=line-tables-only
# Drivers named in the environment would take over both runs.
unset CHROMEDRIVER GECKODRIVER SAFARIDRIVER CHROMEDRIVER_REMOTE GECKODRIVER_REMOTE

for browser in ${WEBLORA_BROWSERS:-chrome firefox}; do
    case $browser in
    chrome) driver=(--chrome --chromedriver "$chromedriver") ;;
    firefox) driver=(--firefox --geckodriver "$geckodriver") ;;
    *) die "a browser called '$browser'" "WEBLORA_BROWSERS=\"chrome firefox\" or one of the two" ;;
    esac
    say "tests/wasm.rs in headless $browser"
    scripts/with-wasm.sh wasm-pack test --headless --mode no-install "${driver[@]}" . --no-default-features --test wasm
done
