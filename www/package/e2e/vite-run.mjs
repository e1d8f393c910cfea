// Opens a built Vite project and waits for its ten steps: node vite-run.mjs DIST

import assert from "node:assert/strict";

import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

const server = await serve(process.argv[2]);
const browser = await launch();
try {
  const page = await open(browser, `${server.url}index.html`);
  await page.waitForFunction(() => document.title === "finished", undefined, { timeout: 180_000 });
  const events = (await page.textContent("#log")).trim().split("\n").map((line) => JSON.parse(line));
  const steps = events.filter((event) => event.event === "step");
  assert.equal(events.at(-1).event, "done", JSON.stringify(events.at(-1)));
  assert.equal(steps.length, 10);
  // Single steps see few rows each.
  const mean = (some) => some.reduce((sum, step) => sum + step.loss, 0) / some.length;
  const [first, last] = [mean(steps.slice(0, 3)), mean(steps.slice(-3))];
  assert.ok(last < first, `the loss falls: ${steps.map((step) => step.loss)}`);
  console.log(`ten steps from the tarball: mean loss of three ${first.toFixed(3)} to ${last.toFixed(3)}`);
} finally {
  await browser.close();
  server.close();
}
