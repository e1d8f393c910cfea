#!/usr/bin/env bash
# Drives the page in headless Chromium (Playwright): the built page with the real package, and its rarer states against the stand-in of
# www/tests/fake. Pictures of every state are left in www/tests/.results. Set-up: make package.
. "$(dirname "$0")/setup/lib.sh"
cd "$ROOT/www" || exit 1

[ -e package/dist/index.js ] && [ -e package/wasm/weblora_bg.wasm ] || die "the built package in www/package" "make package"
npm run build --workspace page
npm run build:fake --workspace page
node_modules/.bin/tsc --noEmit -p tests
cd tests
npx playwright test "$@"
