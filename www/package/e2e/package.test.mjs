// The package in headless Chromium, as it is built, without a bundler: training, saving, going on, losing the device, loading. Run by scripts/test-package.sh.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));
const model = await readFile(at("../../../assets/demo/demo.gguf"));
let browser, server, context, page;

before(async () => {
  const few = await readFile(at("../../../assets/demo/heldout.jsonl"));
  server = await serve(at(".."), { "few.jsonl": few, "demo.gguf": model, "large.gguf": Buffer.concat([model, Buffer.alloc(20 << 20)]), "notes.txt": Buffer.from("no model") });
  browser = await launch();
});
after(async () => {
  await browser.close();
  server.close();
});
beforeEach(async () => {
  await context?.close();
  Object.assign(server.state, { requests: [], version: "one", down: false, ends: Infinity });
  context = await browser.newContext();
  page = await fresh();
});

/** A page with the package as `weblora`, a small run's settings, and helpers. */
async function fresh() {
  const opened = await open(context, server.url);
  await opened.evaluate(async () => {
    Object.assign(globalThis, await import("/dist/index.js"));
    globalThis.small = (steps, more) => ({ rank: 2, targets: ["q", "v"], steps, batch: 2, seq: 32, lr: 2e-3, dropout: 0.1, ...more });
    globalThis.rows = { embedded: "train" };
    globalThis.begin = async (options) => {
      globalThis.trainer = await Trainer.create(options);
      await trainer.loadBase({ embedded: true });
      return trainer;
    };
    globalThis.collect = async (training) => {
      const events = [];
      for await (const event of training) events.push(event);
      return events;
    };
    // What a rejected promise says, as plain data.
    globalThis.failure = async (work) => {
      try {
        await work();
        return undefined;
      } catch (error) {
        return { code: error.code, message: error.message, ours: error instanceof WebloraError };
      }
    };
  });
  return opened;
}

const losses = (events) => events.filter((e) => e.event === "step").map((e) => e.loss);

test("trains, answers between steps, exports, evaluates", { timeout: 240_000 }, async () => {
  const found = await page.evaluate(async () => {
    const support = await Trainer.support();
    const trainer = await begin();
    const progress = [];
    const training = trainer.train(small(12, { rank: 8, targets: undefined, batch: 4, lr: 1e-2, dropout: 0, evalEvery: 6 }), rows, { heldOut: { text: '{"prompt":"a","completion":"b"}' }, onProgress: (p) => progress.push(p) });
    const second = await failure(() => trainer.train(small(1), rows).done);
    const base = await failure(() => trainer.loadBase({ embedded: true }));
    const pieces = [];
    let written;
    for await (const piece of trainer.generate("Hello", { adapter: "current", maxTokens: 5, onEnd: (end) => (written = end) })) pieces.push(piece);
    await training.pause();
    const paused = training.state;
    await training.resume();
    const events = await collect(training);
    const done = await training.done;
    const abort = new AbortController();
    const aborted = await failure(async () => {
      for await (const _ of trainer.generate("Hello", { maxTokens: 90, signal: abort.signal })) abort.abort();
    });
    const files = (await trainer.exportAdapter()).map((f) => [f.name, f.bytes.length]);
    const few = { text: (await (await fetch("/plain/few.jsonl")).text()).split("\n").slice(0, 8).join("\n") };
    const own = await trainer.evaluate(few, { adapter: "current" });
    const none = await trainer.evaluate(few);
    const again = await trainer.evaluate(few, { adapter: await trainer.exportAdapter() });
    const best = (await trainer.exportAdapter("best")).length;
    const [gguf, ...more] = await trainer.exportAdapter("current", { format: "gguf" });
    const llamaCpp = { name: gguf.name, magic: new TextDecoder().decode(gguf.bytes.slice(0, 4)), more: more.length };
    const facts = await trainer.checkAdapter(await trainer.exportAdapter());
    // The same adapter as one of another file of the base.
    const elsewhere = (await trainer.exportAdapter()).map(({ name, bytes }) => {
      const text = (change) => new TextEncoder().encode(change(new TextDecoder().decode(bytes)));
      return { name, bytes: name === "weblora.json" ? text((json) => json.replace(/("base_hash": ")[0-9a-f]+/, "$1abcd")) : bytes };
    });
    const warnings = [(await trainer.checkAdapter(elsewhere)).warning, (await trainer.evaluate(few, { adapter: elsewhere })).warning];
    for await (const _ of trainer.generate("Hello", { adapter: elsewhere, maxTokens: 2, onWarning: (message) => warnings.push(message) }));
    const strict = [await failure(() => trainer.checkAdapter(elsewhere, { strictBase: true })), await failure(() => trainer.evaluate(few, { adapter: elsewhere, strictBase: true }))];
    const memory = await trainer.memory();
    const plan = await trainer.plan(events[0].config, rows);
    const preview = await trainer.preview(rows, small(12), 2);
    const settings = await trainer.settings("lora");
    await trainer.free();
    const freed = await failure(() => trainer.memory());
    return { support, second, base, pieces, written, paused, events, done, state: training.state, aborted, files, own, none, again, best, llamaCpp, facts, warnings, strict, memory, plan, preview, settings, progress, freed };
  });
  assert.equal(found.support.webgpu, true);
  assert.deepEqual([found.second.code, found.base.code, found.aborted?.code, found.freed.code], ["busy", "busy", "aborted", "stopped"]);
  assert.equal(found.second.ours, true);
  assert.equal(found.paused, "paused");
  assert.deepEqual(found.llamaCpp, { name: "adapter.gguf", magic: "GGUF", more: 0 });
  assert.deepEqual([found.facts.zero, found.facts.warning, found.facts.steps], [false, null, 12]);
  assert.equal(found.warnings.length, 3);
  for (const warning of found.warnings) assert.match(warning, /abcd.*shapes are the same/);
  assert.deepEqual(found.strict.map((error) => error.code), ["adapter", "adapter"]);
  assert.equal(found.state, "done");
  assert.deepEqual([found.written.text, found.written.stopped], [found.pieces.join(""), found.written.tokens === 5 ? "length" : "end"]);
  assert.equal(found.events[0].event, "start");
  const curve = losses(found.events);
  assert.equal(curve.length, 12);
  assert.ok(curve.every(Number.isFinite), `losses ${curve}`);
  assert.equal(found.events.filter((e) => e.event === "eval").length, 2);
  assert.deepEqual(found.events.at(-1), found.done);
  assert.equal(found.done.step, 12);
  assert.deepEqual(found.files.map(([name]) => name).sort(), ["README.md", "adapter_config.json", "adapter_model.safetensors", "weblora.json"]);
  assert.ok(found.own.loss < 0.9 * found.none.loss, `${found.own.loss} ${found.none.loss}`);
  assert.ok(Math.abs(found.again.loss - found.own.loss) < 1e-5, "the exported adapter is the trained one");
  assert.equal(found.best, 4);
  assert.ok(found.memory.wasm < 256 << 20 && found.memory.gpu > 0, JSON.stringify(found.memory));
  assert.equal(found.plan.fits, true);
  assert.equal(found.plan.totalBytes, Object.values(found.plan.byPurpose).reduce((a, b) => a + b));
  assert.equal(found.plan.totalBytes, found.events[0].plannedBytes);
  assert.equal(found.preview.total, 480);
  assert.equal(found.preview.rows[0].tokens.some((t) => t.trained), true);
  assert.ok(found.settings.some((s) => s.key === "rslora" && s.method === "lora") && found.settings.some((s) => s.key === "rank" && s.max === 4096));
  assert.ok(found.progress.some((p) => p.phase === "pipelines" && p.done === p.total) && found.progress.some((p) => p.phase === "weights" && p.done === p.total));
});

test("a run of MultiLoRA knows its modules, its files do not", { timeout: 240_000 }, async () => {
  const found = await page.evaluate(async () => {
    await begin();
    const none = await failure(() => trainer.analyze("current"));
    await trainer.train(small(3, { method: "multilora", modules: 2, lr: 1e-2 }), rows).done;
    return { none, scales: await trainer.moduleScales(), own: await trainer.analyze("current"), files: await trainer.analyze(await trainer.exportAdapter()) };
  });
  assert.equal(found.none.code, "config");
  assert.equal(found.own.report.modules.length, 2);
  const { sites } = found.own.report;
  const means = found.scales.map((_, i) => sites.reduce((sum, { modules }) => sum + modules.each[i].mean_scale, 0) / sites.length);
  assert.ok(means.length === 2 && found.scales.every((scale, i) => Math.abs(scale - means[i]) < 1e-9), `${found.scales} and ${means}`);
  for (const { spectrum, modules } of found.own.report.sites) {
    assert.ok(Math.abs(modules.frobenius - spectrum.frobenius) < 1e-6 * spectrum.frobenius, "the modules add up to the update");
    assert.ok(modules.each.every((m) => m.mean_scale > 0 && m.max_scale >= m.mean_scale && m.share > 0 && m.share < 1), JSON.stringify(modules));
  }
  assert.ok(found.own.pictures.some(({ name, svg }) => name === "modules.svg" && svg.includes("mean |s|")));
  assert.equal(found.files.report.modules, undefined);
  assert.deepEqual(found.files.report.sites.map((s) => s.spectrum), found.own.report.sites.map((s) => s.spectrum));
});

test("links of a chain are listed, dropped, split and joined, and ranks cut", { timeout: 240_000 }, async () => {
  const found = await page.evaluate(async () => {
    await begin();
    await trainer.train(small(4, { method: "cola", links: [2, 1], knots: [2], rank: 2, lr: 2e-2, knotProbes: 0, dropout: 0 }), rows).done;
    const chain = await trainer.exportAdapter();
    const links = await trainer.links(chain);
    const split = await trainer.splitLinks(chain);
    const joined = await trainer.mergeAdapters(split);
    const halves = await trainer.mergeAdapters([chain, chain], { weights: [0.25, 0.75] });
    const first = await trainer.mergeAdapters([chain], { drop: [1] });
    const cut = await trainer.mergeAdapters([chain], { maxRank: 1 });
    const plain = await trainer.links(split[0].filter(({ name }) => name !== "chain.json"));
    const few = { text: (await (await fetch("/plain/few.jsonl")).text()).split("\n").slice(0, 8).join("\n") };
    const loss = async (adapter) => (await trainer.evaluate(few, { adapter })).loss;
    const losses = { none: await loss("none"), chain: await loss(chain), joined: await loss(joined.files), halves: await loss(halves.files), first: await loss(first.files), link: await loss(split[0]) };
    const refused = [await failure(() => trainer.mergeAdapters([chain], { drop: [2] })), await failure(() => trainer.splitLinks(cut.files)), await failure(() => trainer.mergeAdapters([chain, chain], { weights: [1] })), await failure(() => trainer.mergeAdapters([], {}))];
    const facts = [joined, halves, first, cut].map(({ files, ...rest }) => ({ ...rest, names: files.map(({ name }) => name) }));
    const more = trainer.train(small(1, { method: "cola", links: [1], rank: 1, knotProbes: 0 }), rows, { initAdapter: first.files });
    const events = [];
    for await (const event of more) events.push(event);
    return { links, plain, facts, losses, refused, longer: await trainer.links(await trainer.exportAdapter()), started: events[0] };
  });
  assert.deepEqual(found.links.map(({ rank, steps, sites }) => [rank, steps, sites]), [[2, 2, 10], [1, 2, 10]]);
  assert.deepEqual(found.plain, []);
  assert.deepEqual(found.facts.map(({ links, rank }) => [links, rank]), [[2, 3], [0, 6], [1, 2], [0, 1]]);
  assert.ok(found.facts[3].dropped > 0 && found.facts[3].dropped < 1 && found.facts[0].dropped === null, JSON.stringify(found.facts));
  assert.ok(found.facts[0].names.includes("chain.json") && !found.facts[3].names.includes("chain.json"));
  assert.ok(found.facts.every(({ warning }) => warning === null));
  const { none, chain, joined, halves, first, link } = found.losses;
  for (const same of [joined, halves]) assert.ok(Math.abs(same - chain) < 1e-5, JSON.stringify(found.losses));
  assert.ok(Math.abs(first - link) < 1e-6 && Math.abs(first - chain) > 1e-5 && Math.abs(none - chain) > 1e-3, JSON.stringify(found.losses));
  assert.deepEqual(found.refused.map(({ code }) => code), ["config", "adapter", "config", "config"]);
  assert.match(found.refused[0].message, /no link 2.*0 to 1/);
  assert.deepEqual(found.longer.map(({ rank, steps }) => [rank, steps]), [[2, 2], [1, 1]]);
  assert.equal(found.started.logitJump, undefined);
});

test("a lost device and a closed page cost nothing but time", { timeout: 300_000 }, async () => {
  const whole = await page.evaluate(async () => collect((await begin()).train(small(8), rows)));
  const lost = await page.evaluate(async () => {
    const training = trainer.train(small(8), rows, { autosave: "my run/1" });
    const events = [];
    for await (const event of training) {
      events.push(event);
      if (event.event === "step" && event.step === 3) {
        await training.pause();
        await trainer.simulateDeviceLoss();
        await training.resume();
      }
      if (event.event === "step" && event.step === 5) await training.pause();
      if (event.event === "checkpoint" && event.step >= 5) break;
    }
    return events;
  });
  assert.ok(lost.some((e) => e.event === "warning" && e.message.includes("device was lost")), JSON.stringify(lost));
  assert.deepEqual([...new Map(lost.filter((e) => e.event === "step").map((e) => [e.step, e.loss])).values()], losses(whole).slice(0, lost.at(-1).step));

  // While that tab is open, another may look but not touch.
  const other = await fresh();
  const refused = await other.evaluate(async () => {
    await begin();
    return [await failure(() => trainer.train(small(8), rows, { autosave: "my run/1" }).done), await failure(() => trainer.discard("my run/1"))];
  });
  assert.deepEqual(refused.map((r) => r?.code), ["busy", "busy"]);
  await page.close();
  const [saved, rest, left] = await other.evaluate(async () => {
    const saved = await trainer.autosaves();
    const { settings, rows, checkpoint, base } = await trainer.restore("my run/1");
    await trainer.loadBase(base);
    const events = await collect(trainer.train(settings, rows, { resume: checkpoint, autosave: "my run/1" }));
    await trainer.discard("my run/1");
    return [saved, events, await trainer.autosaves()];
  });
  assert.equal(saved.length, 1);
  assert.deepEqual([saved[0].key, saved[0].step, saved[0].total], ["my run/1", lost.at(-1).step, 8]);
  assert.equal(rest[0].resumedAt, lost.at(-1).step);
  assert.deepEqual(losses(rest), losses(whole).slice(lost.at(-1).step), "the rest of the run is the same, bit for bit");
  assert.equal(left.length, 0);
});

test("a damaged save leaves the one before", { timeout: 240_000 }, async () => {
  const found = await page.evaluate(async () => {
    await begin();
    await collect(trainer.train(small(4, { saveEvery: 1 }), rows, { autosave: "a" }));
    const root = await navigator.storage.getDirectory();
    const at = await (await (await root.getDirectoryHandle("weblora")).getDirectoryHandle("runs")).getDirectoryHandle("run-a");
    const damage = async (name) => {
      const handle = await at.getFileHandle(name);
      const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
      const stream = await handle.createWritable();
      // Cut off in the middle, as by a page closed while it wrote.
      await stream.write(bytes.slice(0, bytes.length - 100));
      await stream.close();
    };
    // Two files take turns, the run's beginning first.
    const steps = [(await trainer.autosaves())[0].step];
    await damage("state.0");
    steps.push((await trainer.autosaves())[0].step);
    const events = await collect(trainer.train({}, rows, { resume: (await trainer.restore("a")).checkpoint }));
    await damage("state.1");
    return { steps, events, none: await trainer.autosaves(), lost: await failure(() => trainer.restore("a")) };
  });
  assert.ok(found.steps[0] === 4 && found.steps[1] >= 3, String(found.steps));
  assert.equal(found.events[0].resumedAt, found.steps[1]);
  assert.deepEqual(found.none, []);
  assert.equal(found.lost.code, "config");
});

test("models stream from servers and are kept by content", { timeout: 120_000 }, async () => {
  const load = (source) => page.evaluate(async (source) => {
    globalThis.trainer ??= await Trainer.create();
    const phases = new Set();
    let info;
    const error = await failure(async () => {
      info = await trainer.loadBase(source, { onProgress: (p) => phases.add(p.phase) });
    });
    return { info, error, phases: [...phases], kept: await trainer.cache.list() };
  }, source);
  const first = await load({ url: "/ranges/demo.gguf" });
  assert.equal(first.error, undefined);
  assert.equal(first.kept.length, 1);
  assert.equal(first.info.cached, first.kept[0].key);
  assert.ok(first.phases.includes("download"));
  server.state.requests = [];
  const second = await load({ url: "/ranges/demo.gguf" });
  assert.deepEqual(server.state.requests, ["ranges bytes=0-0"], "the copy was used");
  assert.ok(second.phases.includes("verify"));
  server.state.down = true;
  assert.equal((await load({ url: "/ranges/demo.gguf" })).error, undefined, "offline it is used too");
  server.state.down = false;
  server.state.version = "two";
  await load({ url: "/ranges/demo.gguf" });
  assert.ok(server.state.requests.some((r) => r.startsWith(`ranges bytes=0-${model.length - 1}`)), "a changed file is fetched again");
  const plain = await load({ url: "/plain/demo.gguf" });
  assert.equal(plain.error, undefined, "without ranges");
  assert.equal(plain.kept.length, 1, "the same content is kept once");
  for (const manner of ["ranges", "plain"]) assert.equal((await load({ url: `/${manner}/demo.gguf`, cache: false })).error, undefined);
  for (const [path, code] of [["/short/demo.gguf", "network"], ["/cut/demo.gguf", "network"], ["/none", "network"], ["/ranges/notes.txt", "format"]]) {
    for (const cache of [true, false]) {
      const { error } = await load({ url: path, cache });
      assert.equal(error?.code, code, `${path} ${JSON.stringify(error)}`);
    }
  }
  assert.match((await load({ url: "/short/demo.gguf" })).error.message, /truncated: \d+ bytes came where \d+/);
  // One byte of the copy turns over.
  const damaged = await page.evaluate(async () => {
    await trainer.loadBase({ embedded: true });
    const models = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("weblora")).getDirectoryHandle("models");
    const [{ key }] = await trainer.cache.list();
    for await (const [name, handle] of models.entries()) {
      if (!name.endsWith(".bin")) continue;
      const stream = await handle.createWritable({ keepExistingData: true });
      await stream.write({ type: "write", position: 5000, data: new Uint8Array([255, 254]) });
      await stream.close();
    }
    const error = await failure(() => trainer.loadBase({ cached: key }));
    return { error, kept: (await trainer.cache.list()).filter((m) => m.key === key) };
  });
  assert.equal(damaged.error.code, "format");
  assert.deepEqual(damaged.kept, []);
});

test("an interrupted download goes on where it stopped", { timeout: 120_000 }, async () => {
  const piece = 8 << 20;
  const load = (most = Infinity) => page.evaluate(async (most) => {
    globalThis.trainer ??= await Trainer.create();
    const begun = [];
    const cancel = new AbortController();
    const onProgress = ({ phase, done }) => {
      if (phase !== "download") return;
      begun.push(done);
      if (done >= most) cancel.abort();
    };
    let info;
    const error = await failure(async () => {
      info = await trainer.loadBase({ url: "/ranges/large.gguf" }, { onProgress, signal: cancel.signal });
    });
    const models = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("weblora")).getDirectoryHandle("models");
    const ends = [];
    for await (const name of models.keys()) ends.push(name.split(".").at(-1));
    return { error, info, begun, ends: ends.sort() };
  }, Math.min(most, Number.MAX_VALUE));
  const interrupted = async () => {
    server.state.ends = 2 * piece;
    const { error, ends } = await load();
    assert.equal(error?.code, "network");
    assert.deepEqual(ends, ["bin", "part"]);
    Object.assign(server.state, { ends: Infinity, requests: [] });
  };
  // Without the question what it is.
  const fetched = () => server.state.requests.filter((request) => !request.endsWith("=0-0"));
  await interrupted();
  const rest = await load();
  assert.equal(rest.error, undefined);
  assert.ok(rest.begun[0] > 2 * piece, `progress begins at ${rest.begun[0]}`);
  assert.deepEqual(fetched(), [`ranges bytes=${2 * piece}-${(20 << 20) + model.length - 1}`]);
  assert.deepEqual(rest.ends, ["bin", "json"]);

  // Of a file that has changed since, nothing is taken.
  await page.evaluate(async () => {
    await trainer.loadBase({ embedded: true });
    for (const { key } of await trainer.cache.list()) await trainer.cache.remove(key);
  });
  await interrupted();
  server.state.version = "two";
  const anew = await load();
  assert.equal(anew.error, undefined);
  assert.equal(fetched()[0], `ranges bytes=0-${piece - 1}`);
  assert.deepEqual(anew.ends, ["bin", "json"]);
  assert.equal(anew.info.contentHash, rest.info.contentHash);

  // A piece that is not as it was written is fetched again, with all after it.
  await page.evaluate(async () => {
    await trainer.loadBase({ embedded: true });
    for (const { key } of await trainer.cache.list()) await trainer.cache.remove(key);
  });
  await interrupted();
  await page.evaluate(async (position) => {
    const models = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("weblora")).getDirectoryHandle("models");
    for await (const [name, handle] of models.entries()) {
      if (!name.endsWith(".bin")) continue;
      const stream = await handle.createWritable({ keepExistingData: true });
      await stream.write({ type: "write", position, data: new Uint8Array([1, 2, 3]) });
      await stream.close();
    }
  }, piece + 5);
  assert.equal((await load()).error, undefined);
  assert.equal(fetched()[0], `ranges bytes=${piece}-${2 * piece - 1}`);

  // So does one that a person cancelled, but not one whose note of how far it came is not ours.
  const cancelled = async () => {
    await page.evaluate(async () => {
      await trainer.loadBase({ embedded: true });
      for (const { key } of await trainer.cache.list()) await trainer.cache.remove(key);
    });
    const { error, ends } = await load(piece);
    assert.equal(error?.code, "aborted");
    assert.deepEqual(ends, ["bin", "part"]);
    server.state.requests = [];
  };
  await cancelled();
  assert.equal((await load()).error, undefined);
  assert.notEqual(fetched()[0], `ranges bytes=0-${piece - 1}`);
  await cancelled();
  await page.evaluate(async () => {
    const models = await (await (await navigator.storage.getDirectory()).getDirectoryHandle("weblora")).getDirectoryHandle("models");
    for await (const [name, handle] of models.entries()) {
      if (!name.endsWith(".part")) continue;
      const stream = await handle.createWritable();
      await stream.write('{"url": 7, "pieces": "none"}');
      await stream.close();
    }
  });
  assert.equal((await load()).error, undefined);
  assert.equal(fetched()[0], `ranges bytes=0-${piece - 1}`);
});

test("the best adapter of a run survives the page", { timeout: 240_000 }, async () => {
  const heldOut = { text: '{"prompt":"a","completion":"b"}' };
  const first = await page.evaluate(async (heldOut) => {
    await begin();
    // Steps so large that they soon spoil what the first ones did.
    const training = trainer.train(small(6, { evalEvery: 2, lr: 0.3, warmup: 0, schedule: "constant" }), rows, { heldOut, autosave: "best" });
    for await (const event of training) if (event.event === "step" && event.step === 4) await training.stop();
    await training.done;
    return (await trainer.exportAdapter("best")).map((f) => [f.name, [...f.bytes]]);
  }, heldOut);
  await page.close();
  page = await fresh();
  const found = await page.evaluate(async () => {
    await begin();
    const { settings, rows, heldOut, checkpoint, best } = await trainer.restore("best");
    const training = trainer.train({ ...settings, steps: 6 }, rows, { heldOut, resume: checkpoint, autosave: "best" });
    await training.stop();
    await training.done;
    const exported = (await trainer.exportAdapter("best")).map((f) => [f.name, [...f.bytes]]);
    // A new run under that name has none.
    await trainer.train(small(1), rows, { autosave: "best" }).done;
    return { best, files: best.files.map((f) => [f.name, [...f.bytes]]), exported, later: (await trainer.restore("best")).best };
  });
  assert.ok(found.best.step > 0 && found.best.step <= 4, `step ${found.best.step}`);
  assert.deepEqual(found.files, first);
  assert.deepEqual(found.exported, first);
  assert.equal(found.later, undefined);
});

test("picked files are checked, and kept when asked to", { timeout: 120_000 }, async () => {
  const found = await page.evaluate(async () => {
    const blob = await (await fetch("/ranges/demo.gguf")).blob();
    globalThis.trainer = await Trainer.create({ maxBytes: 100_000 });
    const info = await trainer.loadBase({ file: new File([blob], "mine.gguf"), cache: true });
    const inUse = await failure(() => trainer.cache.remove(info.cached));
    const again = await trainer.loadBase({ cached: info.cached });
    const cut = await failure(() => trainer.loadBase({ file: blob.slice(0, 300_000) }));
    const text = await failure(() => trainer.loadBase({ file: new Blob(["hello, this is no model"]) }));
    const large = await failure(() => trainer.train(small(1), rows).done);
    const plan = await trainer.plan(small(1));
    await trainer.loadBase({ embedded: true });
    await trainer.cache.remove(info.cached);
    const wrong = await failure(() => trainer.train(small(1, { rank: 0 }), rows).done);
    const bad = await failure(() => trainer.preview({ text: '{"prompt": 1}' }));
    const future = await failure(() => trainer.train(small(1), rows, { resume: new Uint8Array(100) }).done);
    return { info, inUse, again, cut, text, large, plan, wrong, bad, future, kept: await trainer.cache.list(), estimate: await trainer.cache.estimate() };
  });
  assert.equal(found.info.name, "mine.gguf");
  assert.equal(found.again.contentHash, found.info.contentHash);
  assert.deepEqual(
    ["inUse", "cut", "text", "large", "wrong", "bad", "future"].map((key) => found[key]?.code),
    ["busy", "format", "format", "out_of_memory", "config", "data", "format"],
  );
  assert.equal(found.plan.fits, false);
  assert.deepEqual(found.kept, []);
  assert.ok(found.estimate.quota > 0);
});

test("a full or closed storage stops nothing", { timeout: 180_000 }, async () => {
  // The same Worker in a browser that keeps nothing, as in private browsing.
  const denied = 'navigator.storage.getDirectory = () => Promise.reject(new DOMException("no", "SecurityError"));';
  await context.route("**/dist/worker.js", async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `${denied}\n${await response.text()}` });
  });
  const run = (source) => page.evaluate(async (source) => {
    globalThis.trainer = await Trainer.create();
    const info = await trainer.loadBase(source);
    return { info, events: await collect(trainer.train(small(1), rows, { autosave: "b" })), list: await failure(() => trainer.autosaves()) };
  }, source);
  const closed = await run({ url: "/ranges/demo.gguf" });
  assert.match(closed.info.warnings[0], /not kept for later/);
  assert.equal(closed.events.filter((e) => e.event === "warning" && /not saved/.test(e.message)).length, 1);
  assert.equal(closed.events.at(-1).event, "done");
  assert.equal(closed.list.code, "storage_denied");
  await context.unroute("**/dist/worker.js");
  page = await fresh();
  const session = await context.newCDPSession(page);
  await session.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize: 100_000 });
  const full = await run({ url: "/ranges/demo.gguf" });
  assert.match(full.info.warnings[0], /not kept for later: .*(may store|is full)/);
  assert.equal(full.events.at(-1).event, "done");
});
