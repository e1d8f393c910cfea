#!/usr/bin/env bash
# Tests the built npm package in headless Chromium: as it is (www/package/e2e), and from its tarball in an empty Vite project that trains
# ten steps. Set-up: make package.
. "$(dirname "$0")/setup/lib.sh"
cd "$ROOT/www" || exit 1

# Node runs every test file of the folder it is given.
node --test --test-reporter=spec package/e2e/*.test.mjs

say "the reference of all names"
npm run --silent reference --workspace package

project=$(mktemp -d)
trap 'rm -rf "$project"' EXIT
say "the tarball in an empty Vite project"
tarball=$(cd package && npm pack --silent --pack-destination "$project")
cp -r package/e2e/vite/. "$project"
(cd "$project" && npm install --no-fund --no-audit --loglevel=error --no-package-lock "./$tarball" vite && npx vite build --logLevel warn)
node package/e2e/vite-run.mjs "$project/dist"
