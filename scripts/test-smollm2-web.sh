#!/usr/bin/env bash
# On request, minutes long: SmolLM2-135M from a local file in headless Chromium answers a question and trains a step, with the wasm module's
# memory below 256 MiB. Set-up: make package.
. "$(dirname "$0")/setup/lib.sh"
cd "$ROOT/www" || exit 1

model=${WEBLORA_SMOLLM2:-$("$ROOT/scripts/fetch-smollm2.sh")}
node package/e2e/measure.mjs "$model" | tee "$TOOLS/smollm2-web.json"
# shellcheck disable=SC2016  # JavaScript's own templates
node --input-type=module --eval '
    import assert from "node:assert/strict";
    import { readFileSync } from "node:fs";
    const { text, steps, firstLoss, memory } = JSON.parse(readFileSync(process.argv[1]));
    assert.match(text, /Paris/, "the answer");
    assert.ok(steps === 1 && firstLoss > 0 && firstLoss < 8, `one step, loss ${firstLoss}`);
    assert.ok(memory.wasm < 256 * 2 ** 20, `${memory.wasm} bytes of wasm memory`);
' "$TOOLS/smollm2-web.json"
