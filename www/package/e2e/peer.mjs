// Times a training step of the package and one of jax-js in one headless Chromium, in turns: node peer.mjs FOLDER, where FOLDER has jax-js'
// `step.mjs` (peers/jax-js of the peer suite). Both train step S of that suite: 2 layers of 256, 4 heads, 768, vocabulary 1024, 128 tokens, f32,
// LoRA of rank 8 on all seven projections, AdamW, from the same weights; their first losses must be equal. Prints one JSON object.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

import { launch, open } from "./browser.mjs";
import { SHAPE, adapter, gguf, row } from "./peer/model.mjs";
import { serve } from "./server.mjs";

const ROWS = 128;
const ROUNDS = 5;
/** Steps of a round before those that are timed, and those. */
const [WARM, TIMED] = [2, 6];
/** Steps whose losses are compared, and how far apart they may be: both are f32, and AdamW amplifies its rounding. */
const [COMPARED, SAME_LOSS] = [4, 1e-3];

const peer = process.argv[2];
assert.ok(peer, "give the folder of jax-js' step.mjs");
const { dependencies } = JSON.parse(await readFile(join(peer, "package.json"), "utf8"));
const wanted = `@jax-js/jax@${dependencies["@jax-js/jax"]}`;
const installed = await mkdtemp(join(tmpdir(), "weblora-peer-"));
execFileSync("npm", ["install", "--prefix", installed, "--no-fund", "--no-audit", "--loglevel=error", wanted]);

const server = await serve(
  fileURLToPath(new URL("..", import.meta.url)), { "step-s.gguf": gguf(ROWS), ...adapter() }, { peer: resolve(peer), jax: join(installed, "node_modules/@jax-js/jax") },
);
const browser = await launch();
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

/** Runs the peer's script for some steps of `rows` tokens in a page of its own; milliseconds and losses, as it prints them. */
async function theirs(steps, rows) {
  const page = await open(browser, server.url);
  const lines = [];
  page.on("console", (message) => lines.push(/^step \d+ loss ([\d.]+) ([\d.]+) ms/.exec(message.text())));
  await page.evaluate(async ({ steps, rows, warm }) => {
    const map = document.createElement("script");
    map.type = "importmap";
    map.textContent = JSON.stringify({ imports: { "@jax-js/jax": "/jax/dist/index.js", "/peer/setup.mjs": "/e2e/peer/setup.mjs" } });
    document.head.append(map);
    globalThis.process = { argv: ["", "", "S"], env: { STEPS: steps, WARM: warm, T: rows }, exit() {} };
    await import("/peer/step.mjs");
  }, { steps, rows, warm: Math.min(WARM, steps - 1) });
  await page.close();
  const told = lines.filter(Boolean).map(([, loss, ms]) => ({ loss: Number(loss), ms: Number(ms) }));
  assert.equal(told.length, steps, "steps of the peer");
  return told;
}

/** Our page: a run that waits after every round. */
async function ourPage() {
  const page = await open(browser, server.url);
  const adapter = await page.evaluate(async ({ text, shape, rows, steps }) => {
    const { Trainer } = await import("/dist/index.js");
    const bytes = async (name) => new Uint8Array(await (await fetch(`/plain/${name}`)).arrayBuffer());
    const trainer = await Trainer.create();
    await trainer.loadBase({ file: new Blob([await bytes("step-s.gguf")]), name: "step-s.gguf" });
    const initAdapter = await Promise.all(["adapter_config.json", "adapter_model.safetensors"].map(async (name) => ({ name, bytes: await bytes(name) })));
    const settings = {
      method: "lora", rank: shape.rank, alpha: shape.alpha, batch: 1, seq: rows, steps, lr: shape.lr, schedule: "constant", warmup: 0, clip: 0,
      weightDecay: shape.decay, recompute: false, saveEvery: 0,
    };
    const training = trainer.train(settings, { text }, { initAdapter });
    const events = training[Symbol.asyncIterator]();
    const next = async () => {
      for (;;) {
        const { value, done } = await events.next();
        if (done) await training.done;
        if (value.event === "step") return value;
      }
    };
    // From the end of a step to the end of the next one, so that the Worker's messages count as ours.
    globalThis.round = async (steps) => {
      await training.resume();
      const told = [];
      let before = performance.now();
      for (let i = 0; i < steps; i += 1) {
        const { loss } = await next();
        const now = performance.now();
        told.push({ loss, ms: now - before });
        before = now;
      }
      await training.pause();
      return told;
    };
    await training.pause();
    return trainer.adapter.name;
  }, { text: row(ROWS), shape: SHAPE, rows: ROWS, steps: 10_000 });
  return { adapter, round: (steps) => page.evaluate((steps) => round(steps), steps) };
}

try {
  const ours = await ourPage();
  // Our row ends with a token that has no target, so the same losses are those of one token fewer.
  const [own, other] = [await ours.round(COMPARED), await theirs(COMPARED, ROWS - 1)];
  const losses = { ours: own.map((s) => s.loss), peer: other.map((s) => s.loss) };
  const apart = Math.max(...losses.ours.map((loss, i) => Math.abs(loss - losses.peer[i])));
  assert.ok(apart <= SAME_LOSS, `the losses differ by ${apart}: ${JSON.stringify(losses)}`);

  const rounds = [];
  for (let i = 0; i < ROUNDS; i += 1) {
    const timed = async (run) => (await run).slice(WARM).map((step) => step.ms);
    rounds.push({ ours: await timed(ours.round(WARM + TIMED)), peer: await timed(theirs(WARM + TIMED, ROWS)) });
    console.error(`round ${i + 1}: ours ${median(rounds[i].ours).toFixed(0)} ms, jax-js ${median(rounds[i].peer).toFixed(0)} ms`);
  }
  const ms = { ours: median(rounds.flatMap((r) => r.ours)), peer: median(rounds.flatMap((r) => r.peer)) };
  const ratios = rounds.map((r) => median(r.peer) / median(r.ours));
  const speed = (ms) => Math.round(ROWS / ms * 1000);
  console.log(JSON.stringify({
    adapter: ours.adapter, peer: wanted, stepMs: ms, tokensPerSecond: { ours: speed(ms.ours), peer: speed(ms.peer) }, ratio: ms.peer / ms.ours,
    ratioByRound: { least: Math.min(...ratios), most: Math.max(...ratios) }, lossesApart: apart, losses,
  }, null, 1));
} finally {
  await browser.close();
  server.close();
  await rm(installed, { recursive: true });
}
