// Runs that went wrong, in headless Chromium: of one that diverges what is saved is from before that, and an adapter that changes nothing is told.

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
    globalThis.rows = { embedded: "train" };
    globalThis.trainer = await Trainer.create();
    await trainer.loadBase({ embedded: true });
    globalThis.collect = async (training) => {
      const events = [];
      for await (const event of training) events.push(event);
      return events;
    };
  });
});
after(async () => {
  await browser.close();
  server.close();
});

test("of a run that diverges, the last sound save stays", { timeout: 240_000 }, async () => {
  const found = await page.evaluate(async () => {
    const wild = (steps, lr) => ({ rank: 2, targets: ["q", "v"], steps, batch: 2, seq: 32, schedule: "constant", warmup: 0, clip: 0, lr });
    const outcome = async (key, settings) => {
      const events = [];
      try {
        for await (const event of trainer.train(settings, rows, { autosave: key })) events.push(event);
      } catch (error) {
        if (error.code !== "not_finite") throw error;
      }
      const [save] = (await trainer.autosaves()).filter((each) => each.key === key);
      return { step: save.step, state: save.state, told: events.filter((e) => e.event === "warning").map((e) => e.message), losses: events.filter((e) => e.event === "step").map((e) => e.loss) };
    };
    // The very first update destroys the adapter: what is left is the beginning. The first step's save is of the destroyed one.
    const first = await outcome("first", wild(6, 1e3));
    const sound = await outcome("second", wild(4, 1e-3));
    const { checkpoint, settings } = await trainer.restore("first");
    const again = await collect(trainer.train({ ...settings, lr: 1e-3 }, rows, { resume: checkpoint, autosave: "first" }));
    const [ended] = (await trainer.autosaves()).filter((each) => each.key === "first");
    return { first, sound, again: again.filter((e) => e.event === "step").map((e) => e.loss), ended };
  });
  const { first, sound, again, ended } = found;
  assert.ok(first.losses.length > 1 && first.losses.at(-1) > first.losses[0] + 1, JSON.stringify(first));
  assert.deepEqual([first.step, first.state], [0, "open"], JSON.stringify(first));
  assert.ok(first.told.some((text) => text.includes("from step 0") && text.includes("smaller lr")), JSON.stringify(first.told));
  assert.deepEqual([sound.step, sound.state, sound.told.some((text) => text.includes("smaller lr"))], [4, "done", false]);
  assert.equal(again.length, 6);
  assert.ok(again[0] === first.losses[0] && again.every((loss) => loss < first.losses[0] + 1), `it goes on from the beginning at a usual rate: ${again}`);
  assert.deepEqual([ended.step, ended.state], [6, "done"]);
});

test("an adapter that changes nothing is no file for another program", { timeout: 120_000 }, async () => {
  const found = await page.evaluate(async () => {
    await trainer.train({ rank: 2, targets: ["q"], steps: 1, batch: 1, seq: 32 }, rows).done;
    const files = await trainer.exportAdapter();
    const whole = (await trainer.exportAdapter(files, { format: "gguf" })).length;
    const { bytes } = files.find(({ name }) => name.endsWith(".safetensors"));
    const end = 8 + Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, end)));
    for (const [key, value] of Object.entries(header)) if (key.includes("lora_B")) bytes.fill(0, ...value.data_offsets.map((offset) => end + offset));
    const refused = await trainer.exportAdapter(files, { format: "gguf" }).catch(({ code, message }) => ({ code, message }));
    return { whole, zero: (await trainer.checkAdapter(files)).zero, refused };
  });
  assert.deepEqual([found.whole, found.zero, found.refused.code], [1, true, "adapter"]);
  assert.match(found.refused.message, /B is all zero after 1 step/);
});
