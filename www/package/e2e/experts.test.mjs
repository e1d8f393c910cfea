// MixLoRA, stretched contexts, mixtures and merged models in headless Chromium: a few steps of each with the embedded model.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

let browser, server, page;

before(async () => {
  server = await serve(fileURLToPath(new URL("..", import.meta.url)));
  browser = await launch();
  page = await open(await browser.newContext(), server.url);
  await page.evaluate(async () => {
    Object.assign(globalThis, await import("/dist/index.js"));
    globalThis.rows = { embedded: "train" };
    globalThis.small = (steps, more) => ({ rank: 2, steps, batch: 2, seq: 32, lr: 5e-3, ...more });
    globalThis.collect = async (training) => {
      const events = [];
      for await (const event of training) events.push(event);
      return events;
    };
    globalThis.failure = (work) => Promise.resolve().then(work).then(() => undefined, ({ code, message }) => ({ code, message }));
    globalThis.write = async (prompt, adapter, maxTokens = 6) => {
      let text = "";
      for await (const piece of trainer.generate(prompt, { adapter, maxTokens })) text += piece;
      return text;
    };
    globalThis.few = { text: '{"prompt":"Anna has a","completion":" red boat."}\n{"prompt":"Ben has","completion":" a lamp."}', name: "few" };
    globalThis.trainer = await Trainer.create();
    await trainer.loadBase({ embedded: true });
  });
});
after(async () => {
  await browser.close();
  server.close();
});

test("MixLoRA: routers are told of, its files come back and write and score what the run does", { timeout: 300_000 }, async () => {
  const found = await page.evaluate(async () => {
    const events = await collect(trainer.train(small(3, { method: "mixlora", experts: 4, topK: 2 }), rows));
    const [current, files] = [await write("Anna has a", "current"), await trainer.exportAdapter()];
    const bin = await trainer.exportAdapter(files, { format: "mixlora-bin" });
    const [again, ofBin] = [await write("Anna has a", files), await write("Anna has a", bin)];
    const scores = [await trainer.evaluate(few, { adapter: "current" }), await trainer.evaluate(few, { adapter: bin }), await trainer.evaluate(few)].map(({ loss }) => loss);
    const gguf = await failure(() => trainer.exportAdapter(files, { format: "gguf" }));
    const merged = await failure(() => trainer.exportModel(files));
    const { report, pictures } = await trainer.analyze(files);
    const ofRun = (await trainer.analyze("current")).report.experts;
    const facts = await trainer.checkAdapter(files);
    const more = await collect(trainer.train(small(1, { method: "mixlora" }), rows, { initAdapter: files }));
    return { events, current, again, ofBin, names: [files, bin].map((all) => all.map(({ name }) => name).sort()), scores, gguf, merged, report, pictures: pictures.map(({ name }) => name), ofRun, facts, more };
  });
  const steps = found.events.filter(({ event }) => event === "step");
  assert.equal(steps.length, 3);
  for (const { loss, ce, balanceLoss, router } of steps) {
    assert.ok(Math.abs(loss - ce - 0.01 * balanceLoss) < 1e-5, `${loss} ${ce} ${balanceLoss}`);
    assert.deepEqual([router.layers, router.load.length, router.entropy.length], [[0, 1, 2, 3, 4], 5, 5]);
    // A token chooses two of four.
    for (const load of router.load) assert.ok(load.length === 4 && Math.abs(load.reduce((a, b) => a + b) - 2) < 1e-5, String(load));
  }
  assert.deepEqual([found.again, found.ofBin], [found.current, found.current]);
  assert.deepEqual(found.names[1], ["README.md", "adapter_config.json", "adapter_model.bin", "weblora.json"].filter((name) => found.names[1].includes(name)));
  assert.ok(found.names[1].includes("adapter_model.bin") && found.names[0].includes("adapter_model.safetensors"));
  const [own, ofBin, none] = found.scores;
  assert.ok(Math.abs(own - ofBin) < 1e-5 && Math.abs(own - none) > 1e-4, String(found.scores));
  for (const refused of [found.gguf, found.merged]) assert.match(refused.message, /routers choose experts for every token/);
  assert.equal(found.report.experts.experts, 4);
  assert.deepEqual(found.ofRun, found.report.experts);
  assert.ok(found.report.experts.blocks.every(({ frobenius, router }) => [...frobenius, ...router].every((norm) => norm > 0)));
  assert.ok(found.report.sites.some(({ site, expert }) => site === "layers.4.mlp.experts.3.down_proj" && expert === 3));
  assert.ok(found.pictures.includes("experts.svg"));
  assert.equal(found.facts.experts, 4);
  assert.equal(found.more[0].config.experts, 4);
});

test("an adapter for a longer context writes and scores with its own angles, beside others", { timeout: 300_000 }, async () => {
  const found = await page.evaluate(async () => {
    // 150 tokens and more: past the 128 that the embedded model reads.
    const long = "Anna has a black lamp. Ben has a brown boat. ".repeat(14);
    await collect(trainer.train(small(2, { context: 512, seq: 64, lr: 2e-2, warmup: 0 }), rows));
    const [files, current] = [await trainer.exportAdapter(), await write(long, "current")];
    const scores = [await trainer.evaluate(few, { adapter: "current" }), await trainer.evaluate(few, { adapter: files })];
    const ofFiles = await write(long, files);
    // The run made room for one whose angles are the file's own; the adapter's files still know theirs.
    await collect(trainer.train(small(1), rows));
    const plain = await trainer.exportAdapter();
    const later = await write(long, files);
    const short = [await write("Anna has a", plain), await write("Anna has a", "current")];
    const refused = [await failure(() => write(long, plain)), await failure(() => write(long, "none"))];
    const scoresLater = await trainer.evaluate(few, { adapter: files });
    // Without what the note says of its context it is another model.
    const forgotten = files.map(({ name, bytes }) => ({ name, bytes: name === "weblora.json" ? new TextEncoder().encode(new TextDecoder().decode(bytes).replace(/"context": ?512,?/, "")) : bytes }));
    const other = await trainer.evaluate(few, { adapter: forgotten });
    return { current, ofFiles, later, short, refused, scores: [...scores, scoresLater, other].map(({ loss }) => loss) };
  });
  assert.ok(found.current.length > 0);
  assert.deepEqual([found.ofFiles, found.later], [found.current, found.current]);
  assert.equal(found.short[0], found.short[1]);
  for (const refused of found.refused) assert.match(refused?.message ?? "", /exceed the context of 128/);
  const [own, ofFiles, later, other] = found.scores;
  assert.ok(Math.abs(own - ofFiles) < 1e-5 && Math.abs(own - later) < 1e-5, String(found.scores));
  assert.ok(Math.abs(own - other) > 1e-4, `the angles make no difference: ${String(found.scores)}`);
});

test("sets are mixed by their shares, with losses of each", { timeout: 120_000 }, async () => {
  const found = await page.evaluate(async () => {
    const sets = [{ text: '{"prompt":"a","completion":" b"}\n{"prompt":"c","completion":" d"}', name: "letters.jsonl" }, { text: '{"prompt":"1","completion":" 2"}\n{"prompt":"3","completion":" 4"}', name: "digits.jsonl" }];
    const settings = small(2, { dataWeights: [3, 1], batch: 4 });
    const plan = await trainer.plan(settings, sets);
    const events = await collect(trainer.train(settings, sets, { heldOut: sets.map((set) => ({ ...set, name: `held-${set.name}` })), autosave: "mixture" }));
    const saved = await trainer.restore("mixture");
    const listed = (await trainer.autosaves()).find(({ key }) => key === "mixture");
    await trainer.discard("mixture");
    const wrong = await failure(() => trainer.plan(small(1, { dataWeights: [1] }), sets));
    return { plan, events, rows: saved.rows, saved: saved.settings, listed, wrong };
  });
  assert.equal(found.plan.passes.rows, 4);
  const step = found.events.find(({ event }) => event === "step");
  assert.deepEqual(Object.keys(step.tasks).sort(), ["digits", "letters"]);
  const evaluated = found.events.find(({ event }) => event === "eval");
  assert.deepEqual(Object.keys(evaluated.tasks).sort(), ["digits", "letters"]);
  assert.equal(found.rows.length, 2);
  assert.deepEqual(found.saved.dataWeights, [3, 1]);
  assert.equal(found.listed.rows, "letters.jsonl + digits.jsonl");
  assert.match(found.wrong.message, /1 weights for 2 data files/);
});

test("a merged model is written to storage, is a model, and scores as base and adapter do", { timeout: 300_000 }, async () => {
  const found = await page.evaluate(async () => {
    await collect(trainer.train(small(3, { lr: 2e-2, warmup: 0 }), rows));
    const files = await trainer.exportAdapter();
    const want = (await trainer.evaluate(few, { adapter: files })).loss;
    const none = (await trainer.evaluate(few)).loss;
    const seen = [];
    const merged = await trainer.exportModel(files, { format: "f16", onProgress: (progress) => seen.push(progress) });
    const rounded = await trainer.exportModel(files);
    await trainer.loadBase({ file: (await trainer.exportModel(files, { format: "f16" })).file, name: "merged.gguf" });
    const got = (await trainer.evaluate(few)).loss;
    return { want, none, got, bytes: merged.bytes, size: merged.file.size, retention: merged.retention, rounded: rounded.retention, last: seen.at(-1), names: merged.files };
  });
  assert.equal(found.size, found.bytes);
  assert.deepEqual([found.last.phase, found.last.done, found.last.total], ["export", found.bytes, found.bytes]);
  assert.deepEqual(found.names, ["model.gguf"]);
  assert.ok(found.retention > 0.9 && found.rounded < found.retention, `${found.retention} ${found.rounded}`);
  // f16 rounds the weights' own bits a little, too.
  assert.ok(Math.abs(found.got - found.want) < 0.1 * Math.abs(found.none - found.want), `${found.got} ${found.want} ${found.none}`);
});
