// Measures the built package in headless Chromium: node measure.mjs [MODEL.gguf]. Without a model the embedded demo, to its end; with one, an
// answer and a training step. STEPS in the environment makes the demo shorter. Prints one JSON object.

import { basename } from "node:path";
import { fileURLToPath } from "node:url";

import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

const model = process.argv[2];
const server = await serve(fileURLToPath(new URL("..", import.meta.url)));
const browser = await launch();
try {
  const page = await open(browser, server.url);
  // Progress to people, the result to whoever reads it.
  page.on("console", (message) => message.type() === "log" && console.error(message.text()));
  await page.evaluate(() => {
    // Tasks of the page's own thread that are longer than a person should notice.
    globalThis.long = [];
    new PerformanceObserver((list) => long.push(...list.getEntries().map((e) => Math.round(e.duration)))).observe({ type: "longtask" });
    document.body.innerHTML = '<input type="file" />';
  });
  if (model) await page.setInputFiles("input", model);
  const figures = await page.evaluate(async ({ demo, most }) => {
    const { Trainer } = await import("/dist/index.js");
    const clock = () => (performance.now() - begun) / 1000;
    const begun = performance.now();
    const [marks, figures] = [{}, {}];
    const trainer = await Trainer.create();
    marks.created = clock();
    const file = document.querySelector("input").files[0];
    const info = await trainer.loadBase(demo ? { embedded: true } : { file });
    marks.loaded = clock();
    let text;
    if (!demo) {
      text = "";
      const prompt = [{ role: "user", content: "What is the capital of France?" }];
      for await (const piece of trainer.generate(prompt, { maxTokens: 12 })) {
        marks.firstToken ??= clock();
        text += piece;
      }
      marks.answered = clock();
    }
    const steps = [];
    const settings = demo ? { ...(await trainer.demoSettings()), ...(most ? { steps: most } : {}) } : { rank: 8, steps: 1, batch: 1, seq: 64 };
    const rows = { text: '{"messages":[{"role":"user","content":"Who are you?"},{"role":"assistant","content":"I am a small model in a tab."}]}' };
    // Where the time before the first step goes: the last word of each phase.
    const onProgress = ({ phase, done, total }) => {
      marks[`${phase}Begun`] ??= clock();
      if (done === total) [marks[`${phase}Done`], figures[phase]] = [clock(), total];
    };
    const training = trainer.train(settings, demo ? { embedded: "train" } : rows, { onProgress });
    for await (const event of training) {
      if (event.event === "start") marks.started = clock();
      if (event.event !== "step") continue;
      marks.firstStep ??= clock();
      console.log(`step ${event.step}: loss ${event.loss.toFixed(4)} after ${clock().toFixed(1)} s`);
      steps.push([event.loss, event.tokensPerS]);
    }
    marks.trained = clock();
    const memory = await trainer.memory();
    const middle = steps.map((s) => s[1]).sort((a, b) => a - b)[steps.length >> 1];
    return { adapter: trainer.adapter.name, model: info.name, marks, pipelines: figures.pipelines, text, steps: steps.length, firstLoss: steps[0][0], lastLoss: steps.at(-1)[0], tokensPerSecond: middle, memory, longTasks: long };
  }, { demo: !model, most: Number(process.env.STEPS ?? 0) });
  if (model) figures.model = basename(model);
  console.log(JSON.stringify(figures, null, 1));
} finally {
  await browser.close();
  server.close();
}
