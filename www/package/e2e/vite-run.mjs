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
  assert.ok(steps.at(-1).loss < steps[0].loss, "the loss falls");
  console.log(`ten steps from the tarball: loss ${steps[0].loss.toFixed(3)} to ${steps.at(-1).loss.toFixed(3)}`);
} finally {
  await browser.close();
  server.close();
}
