#!/usr/bin/env bash
# Makes sure that Node.js 20 or newer is there, and installs the npm packages of www/ as its lock file says.
. "$(dirname "$0")/lib.sh"

{ have node && have npm; } || die "Node.js 20 or newer, with npm" "see https://nodejs.org, or this system's package manager"
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 20 ] || die "Node.js 20 or newer (found $(node --version))" "see https://nodejs.org"

cd "$ROOT/www" || exit 1
# npm's own copy of the lock file is written when everything is installed.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
    say "installing the npm packages of www/"
    npm ci --no-fund --no-audit --loglevel=error || die "the npm packages of www/" "npm ci in www/"
fi
