// What the model finds in long texts, in headless Chromium.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

let browser, server, page;

before(async () => {
  server = await serve(fileURLToPath(new URL("..", import.meta.url)), {});
  browser = await launch();
  page = await open(await browser.newContext(), server.url);
  await page.evaluate(async () => {
    Object.assign(globalThis, await import("/dist/index.js"));
    globalThis.trainer = await Trainer.create();
    await trainer.loadBase({ embedded: true });
  });
});
after(async () => {
  await browser.close();
  server.close();
});

test("every length and depth is told, a picture is drawn, and texts beyond the context are refused", { timeout: 240_000 }, async () => {
  const found = await page.evaluate(async () => {
    const told = [];
    const retrieval = await trainer.retrieve({ task: "note", lengths: [40, 60], depths: [0, 1], trials: 1, onCell: (cell) => told.push(cell) });
    const code = (options) => trainer.retrieve(options).then(() => "none", (error) => error.code);
    return { retrieval, told, codes: [await code({ task: "passkey", lengths: [400] }), await code({ task: "note", lengths: [9] }), await code({ task: "needle", lengths: [60] })] };
  });
  assert.deepEqual(found.retrieval.cells, found.told);
  assert.deepEqual(found.told.map(({ length, depth, trials }) => [length, depth, trials]), [[40, 0, 1], [60, 0, 1], [40, 1, 1], [60, 1, 1]]);
  assert.match(found.retrieval.picture, /^<svg[^]*note/);
  assert.deepEqual(found.codes, ["config", "config", "config"]);
});
