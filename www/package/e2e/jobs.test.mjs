// Several jobs in headless Chromium, as the package is built: fused, failing alone, joined by one that is larger, over a lost device and a reload.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

let browser, server, context;

before(async () => {
  server = await serve(fileURLToPath(new URL("..", import.meta.url)), {});
  browser = await launch();
  context = await browser.newContext();
});
after(async () => {
  await browser.close();
  server.close();
});

/** A page with a trainer on the embedded model, and a job of few and short steps. */
async function fresh() {
  const page = await open(context, server.url);
  await page.evaluate(async () => {
    Object.assign(globalThis, await import("/dist/index.js"));
    globalThis.rows = { embedded: "train" };
    globalThis.job = (name, more) => ({ name, rows, settings: { rank: 2, targets: ["q", "v"], steps: 4, batch: 1, seq: 32, lr: 2e-3, ...more } });
    globalThis.trainer = await Trainer.create();
    await trainer.loadBase({ embedded: true });
    globalThis.collect = async (jobs) => {
      const events = [];
      for await (const event of jobs) events.push(event);
      return events;
    };
  });
  return page;
}

const losses = (events, job) => events.filter((e) => e.event === "step" && e.job === job).map((e) => e.loss);

test("jobs train together, one fails alone, a larger one joins, each adapter is at hand", { timeout: 400_000 }, async () => {
  const page = await fresh();
  const found = await page.evaluate(async () => {
    const heldOut = { text: '{"prompt":"a","completion":" b"}' };
    const good = { ...job("good", { steps: 6, evalEvery: 2 }), heldOut };
    const jobs = trainer.jobs([good, job("wild", { lr: 1e30, clip: 0 }), { ...job("broken"), rows: { text: "nothing" } }], { autosave: "first" });
    const busy = await trainer.train({ steps: 1 }, rows).done.catch((error) => error.code);
    const twice = await jobs.add(job("good")).catch((error) => error.code);
    const events = collect(jobs);
    await jobs.add(job("late"));
    await jobs.add({ ...job("large", { rank: 16, targets: ["q", "v", "o"], batch: 4 }), priority: 1 });
    const nobody = await jobs.pause("nobody").catch((error) => error.code);
    const during = (await jobs.exportAdapter("good")).map(({ name }) => name);
    const status = await jobs.done;
    const [gguf] = await jobs.exportAdapter("large", "current", { format: "gguf" });
    const best = (await jobs.exportAdapter("good", "best")).length;
    const kept = (await trainer.autosaves()).filter(({ key }) => key.startsWith("first/")).map(({ key, step, state }) => `${key} ${step} ${state}`);
    // What the job alone learns, as a run.
    const alone = [];
    const none = await jobs.exportAdapter("broken").catch((error) => error.code);
    for await (const event of trainer.train(good.settings, rows, { heldOut })) if (event.event === "step") alone.push(event.loss);
    const trials = await trainer.sweep({ name: "s", keys: { lr: [1e-3, 2e-3], rank: [2, 4] } });
    return { busy, twice, nobody, events: await events, status, during, gguf: gguf.name, best, kept, none, alone, trials, tables: await trainer.jobTables() };
  });
  assert.deepEqual([found.busy, found.twice, found.nobody, found.none], ["busy", "config", "config", "config"]);
  assert.deepEqual(found.status.map(({ job, state }) => `${job} ${state}`), ["good done", "wild failed", "broken failed", "late done", "large done"]);
  assert.deepEqual([losses(found.events, "good").length, losses(found.events, "late").length, losses(found.events, "large").length], [6, 4, 4]);
  assert.ok(found.events.some((e) => e.event === "job_failed" && e.job === "wild" && /lower lr/.test(e.reason)));
  assert.ok(found.kept.includes("first/wild 0 failed") && found.kept.includes("first/good 6 done"), `of a job that diverged what was before that is kept: ${found.kept}`);
  assert.ok(found.status.find(({ job }) => job === "good").best, "the only job with a held-out loss is the best");
  losses(found.events, "good").forEach((loss, i) => assert.ok(Math.abs(loss - found.alone[i]) <= 1e-5 * loss, `step ${i + 1}: ${loss} fused, ${found.alone[i]} alone`));
  assert.ok(found.during.includes("adapter_model.safetensors") && found.gguf === "adapter.gguf" && found.best >= 3);
  assert.deepEqual(found.trials.map(({ name }) => name), ["s-1-lr0.001-rank2", "s-2-lr0.001-rank4", "s-3-lr0.002-rank2", "s-4-lr0.002-rank4"]);
  assert.ok(found.tables.rules.some(({ name }) => name === "asha"));
  await page.close();
});

test("a lost device and a closed page cost jobs nothing but time, and what is over is kept", { timeout: 400_000 }, async () => {
  let page = await fresh();
  const whole = await page.evaluate(async () => {
    const jobs = [job("a", { steps: 6 }), job("b", { steps: 6, seed: 1, dropout: 0.1 }), job("c", { steps: 2 })];
    return collect(trainer.jobs(jobs));
  });
  const before = await page.evaluate(async () => {
    const jobs = trainer.jobs([job("a", { steps: 6 }), job("b", { steps: 6, seed: 1, dropout: 0.1 }), job("c", { steps: 2 })], { autosave: "set" });
    const events = [];
    let lost = false;
    for await (const event of jobs) {
      events.push(event);
      if (event.event === "step" && event.job === "a" && event.step === 2 && !lost) {
        lost = true;
        await trainer.simulateDeviceLoss();
      }
      if (event.event === "step" && event.job === "b" && event.step === 4) break;
    }
    await trainer.free();
    return events;
  });
  assert.ok(before.some((e) => e.event === "warning" && /device was lost/.test(e.message)));
  await page.close();
  page = await fresh();
  const [saved, after, adapters] = await page.evaluate(async () => {
    const saved = (await trainer.autosaves()).filter(({ jobs }) => jobs === "set");
    const jobs = [];
    for (const { key, state } of saved) {
      const { settings, rows, job, checkpoint } = await trainer.restore(key);
      const { curve, ...known } = job;
      if (state === "open") jobs.push({ ...known, settings, rows, resume: { checkpoint, curve } });
    }
    const events = await collect(trainer.jobs(jobs, { autosave: "set" }));
    const adapters = [];
    for (const { key } of saved) adapters.push([key, (await trainer.restore(key)).adapter?.length ?? 0]);
    for (const { key } of saved) await trainer.discard(key);
    return [saved, events, adapters];
  });
  assert.deepEqual(saved.map(({ key, state }) => `${key} ${state}`).sort(), ["set/a open", "set/b open", "set/c done"]);
  assert.ok(saved.every(({ bytes, rows }) => bytes > 1000 && rows === "swap"));
  // Steps after the last save are done again, and one may be done after the page has stopped listening: all that were told are what they would have been.
  for (const job of ["a", "b"]) {
    const told = [...before, ...after].filter((e) => e.event === "step" && e.job === job);
    const expected = losses(whole, job);
    assert.ok(told.some(({ step }) => step === expected.length), `${job} goes to its end`);
    for (const { step, loss } of told) assert.equal(loss, expected[step - 1], `${job}, step ${step}`);
  }
  assert.ok(adapters.every(([, files]) => files >= 3), JSON.stringify(adapters));
  await page.close();
});
