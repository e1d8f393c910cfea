// Settings and names without a browser: types made from the crate's table, what TypeScript refuses, and the names of before.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { eventFromCrate, fromCrate, schedulerToCrate, settingFromCrate, sweepToCrate, toCrate } from "../dist/names.js";

const run = promisify(execFile);
const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const check = (...more) => run(process.execPath, [at("../scripts/settings.mjs"), "--check", ...more]).then(() => 0, (error) => error.code);

test("types of settings are those of the crate's table", async () => {
  assert.equal(await check(), 0);
  const changed = join(await mkdtemp(join(tmpdir(), "settings-")), "settings.ts");
  await writeFile(changed, (await readFile(at("../src/settings.ts"), "utf8")).replace("rank?: number", "rank?: string"));
  assert.equal(await check(changed), 1);
});

test("TypeScript refuses typing errors, and settings of other methods", { timeout: 120_000 }, async () => {
  await run(at("../../node_modules/.bin/tsc"), ["-p", at("types")]);
});

/** What is warned of while `work` runs. */
function warned(work) {
  const [said, warn] = [[], console.warn];
  console.warn = (text) => said.push(text);
  try {
    work();
  } finally {
    console.warn = warn;
  }
  return said;
}

test("names are translated in one place, and those of before are warned of once", () => {
  let made;
  assert.deepEqual(warned(() => (made = toCrate({ evalEvery: 20, rankPattern: { q_proj: 4 }, topK: 2, beta1: 0.9 }))), []);
  assert.deepEqual(made, { "eval-every": 20, "rank-pattern": { q_proj: 4 }, "top-k": 2, beta1: 0.9 });
  const said = warned(() => {
    for (let again = 0; again < 2; again += 1) assert.deepEqual(toCrate({ "save-every": 5 }), { "save-every": 5 });
  });
  assert.equal(said.length, 1);
  assert.match(said[0], /save-every is called saveEvery now/);
  assert.deepEqual(schedulerToCrate({ stepTokens: 4096, earlyStop: { rules: ["asha"], firstRung: 5 } }), { "step-tokens": 4096, "early-stop": { rules: ["asha"], "first-rung": 5 } });
  assert.deepEqual(sweepToCrate({ keys: { expertRank: [4, 8] }, list: [{ lr: 1, gradAccum: 2 }] }), { keys: { "expert-rank": [4, 8] }, list: [{ lr: 1, "grad-accum": 2 }] });
  assert.deepEqual(settingFromCrate({ key: "eval-split", kind: "number", default: 0, help: "" }), { key: "evalSplit", name: "eval-split", kind: "number", default: 0, help: "" });
  assert.deepEqual(Object.keys(fromCrate({ "lora-plus": 16, rank: 8 })), ["loraPlus", "rank"]);
});

test("events have JavaScript's names; names that users gave stay", () => {
  const raw = { event: "step", job: "a-b", step: 1, grad_norm: 0.5, tokens_per_s: 10, tasks: { "my-task": 1 }, router: { grad_norm: 0.1, load: [[1]], entropy: [0], layers: [0] } };
  const event = eventFromCrate(raw);
  assert.deepEqual({ ...event, router: { ...event.router } }, { event: "step", job: "a-b", step: 1, gradNorm: 0.5, tokensPerS: 10, tasks: { "my-task": 1 }, router: { gradNorm: 0.1, load: [[1]], entropy: [0], layers: [0] } });
  const start = eventFromCrate({ event: "start", job: "a", config: { "eval-every": 3 }, planned_bytes: 9 });
  assert.deepEqual([start.plannedBytes, start.config.evalEvery], [9, 3]);
  const said = warned(() => assert.deepEqual([event.grad_norm, event.grad_norm, start.config["eval-every"]], [0.5, 0.5, 3]));
  assert.match(said[0], /grad_norm is called gradNorm now/);
  assert.equal(said.length, 2);
});
