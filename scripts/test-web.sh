#!/usr/bin/env bash
# Runs tests/wasm.rs in headless Chromium and Firefox through wasm-bindgen's test runner. Two independent WebGPU implementations, both in software:
# Dawn (Tint) on SwiftShader and Firefox's own wgpu (naga) on Mesa's lavapipe. Set-up: make setup-web. With a word: only tests with it in their names.
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
# Drivers named in the environment would take over both runs.
unset CHROMEDRIVER GECKODRIVER SAFARIDRIVER CHROMEDRIVER_REMOTE GECKODRIVER_REMOTE

tests=(scripts/with-wasm.sh cargo test --target wasm32-unknown-unknown --no-default-features --test wasm)
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=wasm-bindgen-test-runner
# Tests in a browser, never in Node.
export WASM_BINDGEN_TEST_ONLY_WEB=1
scripts/timed.sh "tests/wasm.rs, compiled" "${tests[@]}" --no-run

# One beside the other: each spends half of its time on one core, compiling shaders.
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
names=() drivers=() running=()
for browser in ${WEBLORA_BROWSERS:-chrome firefox}; do
    case $browser in
    chrome) drivers+=("CHROMEDRIVER=$chromedriver") ;;
    firefox) drivers+=("GECKODRIVER=$geckodriver") ;;
    *) die "a browser called '$browser'" "WEBLORA_BROWSERS=\"chrome firefox\" or one of the two" ;;
    esac
    names+=("$browser")
done
for i in "${!names[@]}"; do
    scripts/timed.sh "tests/wasm.rs in headless ${names[i]}" env "${drivers[i]}" "${tests[@]}" -- "$@" >"$logs/$i" 2>&1 &
    running+=($!)
done
status=0
for i in "${!names[@]}"; do
    wait "${running[i]}" || status=$?
    cat "$logs/$i"
done
exit "$status"
