#!/usr/bin/env bash
# Builds the wasm module of the npm package into www/package/wasm, makes it small, prints its size and refuses one beyond the bar.
# Set-up: make setup-web, and npm ci in www (wasm-opt is npm's binaryen).
. "$(dirname "$0")/setup/lib.sh"
cd "$ROOT" || exit 1

# Bytes of the module after gzip -9 that a page may have to load.
bar=2600000
target=wasm32-unknown-unknown
out=www/package/wasm

scripts/with-wasm.sh cargo build --profile wasm --target "$target" --lib --no-default-features
built=$(cargo metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/$target/wasm/weblora.wasm
rm -rf "$out"
wasm-bindgen --target web --out-dir "$out" "$built"
raw=$(wc -c <"$out/weblora_bg.wasm")
www/node_modules/.bin/wasm-opt -Os --enable-bulk-memory --enable-nontrapping-float-to-int --enable-sign-ext --enable-mutable-globals \
    --enable-reference-types --enable-multivalue --output "$out/small.wasm" "$out/weblora_bg.wasm"
mv "$out/small.wasm" "$out/weblora_bg.wasm"
# The folder is built, not kept: git ignores it from outside, and npm must not.
rm -f "$out/.gitignore" "$out/package.json"

size=$(wc -c <"$out/weblora_bg.wasm")
packed=$(gzip -9 -c "$out/weblora_bg.wasm" | wc -c)
say "weblora_bg.wasm: $raw bytes, $size after wasm-opt, $packed gzipped (at most $bar)"
[ "$packed" -le "$bar" ] || die "room: the module is $packed bytes gzipped, more than $bar" "leaving something out"
