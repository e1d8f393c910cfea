/** MixLoRA, mixtures of sets, merged models and links with settings, against the stand-in of `fake/`. */

import AxeBuilder from "@axe-core/playwright";
import { expect, test, type Page } from "@playwright/test";
import { readFileSync } from "node:fs";
import { unzipSync } from "fflate";
import { choose, expectNoOverflow, figure, pick, picture, runState, section, setSetting, textFile, watchPage } from "./helpers";

async function open(page: Page, flags = "", hash = ""): Promise<ReturnType<typeof watchPage>> {
  const seen = watchPage(page);
  await page.goto(`/fake/?fake=${flags}${hash}`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  return seen;
}

const done = (page: Page) => expect(runState(page)).toHaveText(/^done/);
const loadBuiltIn = (page: Page) => page.getByRole("button", { name: "Load the built-in model" }).click();

/** Trains with experts; the rows are there. */
async function trainExperts(page: Page, steps = "60"): Promise<void> {
  await page.getByLabel("Method", { exact: true }).selectOption({ label: "MixLoRA" });
  await setSetting(page, "experts", "4");
  await setSetting(page, "steps", steps);
  await expect(page.locator('.plan[aria-busy="false"]')).toContainText("tokens");
  await page.getByRole("button", { name: "Start training" }).click();
}

async function rows(page: Page): Promise<void> {
  await loadBuiltIn(page);
  await section(page, "Rows").getByLabel("Set of rows").selectOption("swap");
}

for (const scheme of ["light", "dark"] as const) {
  test(`experts are watched while they train, ${scheme}`, async ({ page }, info) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    const seen = await open(page);
    await rows(page);
    await trainExperts(page);
    const experts = page.getByRole("region", { name: "Experts", exact: true });
    await expect(experts).toContainText(/Fewest in use: 3\.\d of 4, in layer \d/);
    await done(page);
    const map = page.getByRole("region", { name: "Load of the experts" });
    await expect(map.locator("tbody tr")).toHaveCount(5);
    const shares = (await map.locator("tbody tr").first().locator(".heat").allTextContents()).map(Number);
    expect(shares.reduce((sum, share) => sum + share, 0)).toBeGreaterThan(190);
    await expect(experts).toContainText("every expert gets 50 %");
    await expect(page.getByRole("figure").filter({ hasText: "Cross-entropy" })).toBeVisible();
    await expect(page.getByRole("figure").filter({ hasText: "Balance loss" })).toContainText("Balance loss: 2");
    const [loss, ce, balance] = await Promise.all(["Loss", "Cross-entropy", "Balance loss"].map(async (name) => Number(await figure(page, name).textContent())));
    expect(loss).toBeCloseTo((ce ?? 0) + 0.01 * (balance ?? 0), 3);
    // The page's own tests of colour look at every cell.
    const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]).analyze();
    expect(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`)).toEqual([]);
    await experts.scrollIntoViewIfNeeded();
    await picture(page, info, `experts-${scheme}`);
    expect(seen.problems).toEqual([]);
  });
}

test("a collapse is told, and is seen in the map", async ({ page }, info) => {
  await open(page, "collapse");
  await rows(page);
  await trainExperts(page);
  await expect(page.locator(".notice")).toContainText("sends nearly all rows to the same experts");
  await done(page);
  await expect(page.getByRole("region", { name: "Experts", exact: true })).toContainText("Fewest in use: 2.0 of 4, in layer 4");
  const last = page.getByRole("region", { name: "Load of the experts" }).locator("tbody tr").last();
  expect(await last.locator(".heat").allTextContents()).toEqual(["100", "100", "0", "0"]);
  await page.setViewportSize({ width: 360, height: 800 });
  await expectNoOverflow(page);
  await picture(page, info, "collapsed-phone");
});

test("of experts are offered the exports that apply, and they are looked into", async ({ page }) => {
  await open(page);
  await rows(page);
  await trainExperts(page, "12");
  await done(page);
  const home = section(page, "Take it home");
  await expect(home.getByRole("button", { name: "Adapter for llama.cpp and Ollama (.gguf)" })).toBeHidden();
  await expect(home.getByRole("button", { name: "PEFT adapter (.zip)" })).toBeHidden();
  await expect(home.getByRole("button", { name: "Merged model (.gguf, f16)" })).toBeHidden();
  const started = page.waitForEvent("download");
  await home.getByRole("button", { name: "MixLoRA for PyTorch (.zip)" }).click();
  const files = unzipSync(readFileSync(await (await started).path()));
  expect(Object.keys(files).sort()).toEqual(["adapter_config.json", "adapter_model.bin"]);
  await home.getByText("How to load it there").click();
  await expect(home.getByLabel("Commands that load the adapter")).toHaveText(/^weblora generate --model/);
  await page.getByRole("button", { name: "Analyse the adapter" }).click();
  await expect(page.getByRole("region", { name: "Medians by expert" }).locator("tbody tr")).toHaveCount(4);
  await page.getByText("Change the adapter").click();
  await expect(section(page, "Look inside")).toContainText("it can be neither joined nor cut");
  // Brought back, it brings its routing.
  const again = page.waitForEvent("download");
  await home.getByRole("button", { name: "MixLoRA adapter (.zip)" }).click();
  const zip = readFileSync(await (await again).path());
  await page.getByLabel("Method", { exact: true }).selectOption({ label: "LoRA" });
  await pick(page, "Import…", { name: "experts.zip", mimeType: "application/zip", buffer: zip });
  await home.getByLabel("Start the next run from experts.zip").check();
  await expect(page.getByLabel("Method", { exact: true })).toHaveValue("mixlora");
  await expect(page.locator('[data-key="experts"] input')).toHaveValue("4");
  await home.getByLabel("Start the next run from experts.zip").uncheck();
  // Plain LoRA has the others.
  await page.getByLabel("Method", { exact: true }).selectOption({ label: "LoRA" });
  await expect(page.locator('[data-key="experts"]')).toHaveCount(0);
  await expect(page.locator('.plan[aria-busy="false"]')).toContainText("tokens");
  await page.getByRole("button", { name: "Start another run" }).click();
  await expect(page.getByRole("region", { name: "Runs" }).locator("tbody tr")).toHaveCount(2);
  await expect(runState(page)).toHaveText(/^done, 12 steps/);
  await expect(home.getByRole("button", { name: "MixLoRA for PyTorch (.zip)" })).toBeHidden();
  await expect(home.getByRole("button", { name: "Adapter for llama.cpp and Ollama (.gguf)" })).toBeVisible();
});

test("a merged model is written and saved", async ({ page }) => {
  await open(page);
  await page.getByRole("button", { name: "Run the demo" }).click();
  await done(page);
  const started = page.waitForEvent("download");
  await section(page, "Take it home").getByRole("button", { name: "Merged model (.gguf, f16)" }).click();
  const saved = await started;
  expect(saved.suggestedFilename()).toMatch(/-merged-f16\.gguf$/);
  expect(readFileSync(await saved.path(), "utf8")).toBe("GGUF merged");
  await expect(page.locator(".notice")).toContainText("99.9 % of the adapter's change is in it");
});

test("several sets are mixed, with shares, and come back from an archive", async ({ page }, info) => {
  await open(page);
  await loadBuiltIn(page);
  const part = section(page, "Rows");
  await choose(page, "Where the rows come from", "Paste");
  await page.getByLabel(/^One JSON object a line/).fill('{"prompt": "Goodbye", "completion": " Farewell."}');
  await expect(part).toContainText("pasted rows · 1 row");
  await part.getByRole("button", { name: "Mix with another set" }).click();
  await pick(page, "Choose a file of rows…", textFile("greet.jsonl", '{"prompt": "Hello", "completion": " Hello, traveller."}\n'));
  const list = part.getByRole("list", { name: "Sets of the mixture" });
  await expect(list.getByRole("listitem")).toHaveText([/^pasted rows/, /^greet\.jsonl/]);
  await list.getByLabel("Share").last().fill("3");
  await expect(page.locator('[data-key="dataWeights"] input')).toHaveValue("1, 3");
  await picture(page, info, "mixture");
  await setSetting(page, "steps", "12");
  await page.getByRole("button", { name: "Start training" }).click();
  await expect(runState(page)).toHaveText(/^done, 12 steps/);
  const started = page.waitForEvent("download");
  await page.getByRole("button", { name: "Everything (.zip)" }).click();
  const zip = readFileSync(await (await started).path());
  const files = unzipSync(zip);
  expect(Object.keys(files).filter((name) => name.startsWith("rows"))).toEqual(["rows-1.jsonl", "rows-2.jsonl"]);
  expect(Buffer.from(files["run.toml"] ?? []).toString()).toContain("data-weights = [ 1, 3 ]");
  await list.getByRole("button", { name: "Take pasted rows out of the mixture" }).click();
  await expect(list).toBeHidden();
  await expect(page.locator('[data-key="dataWeights"] input')).toHaveValue("");
  await page.reload();
  await loadBuiltIn(page);
  await pick(page, "Import…", { name: "all.zip", mimeType: "application/zip", buffer: zip });
  await expect(list.getByRole("listitem")).toHaveCount(2);
  await expect(page.locator('[data-key="dataWeights"] input')).toHaveValue("1, 3");
});

test("a link brings settings and nothing else; what cannot be read is said", async ({ page, context }) => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  await open(page);
  await rows(page);
  await page.getByLabel("Method", { exact: true }).selectOption({ label: "MixLoRA" });
  await setSetting(page, "experts", "4");
  await setSetting(page, "lr", "0.002");
  await page.getByRole("button", { name: "Copy a link to these settings" }).click();
  await expect(page.getByText("Copied.")).toBeVisible();
  const link = await page.evaluate(() => navigator.clipboard.readText());
  expect(link).not.toContain("Anna");
  const { hash } = new URL(link);
  expect(JSON.parse(decodeURIComponent(hash.slice("#settings=".length)))).toMatchObject({ method: "mixlora", experts: 4, lr: 0.002, steps: 60 });
  await page.goto("about:blank");
  await open(page, "", hash);
  await expect(page.locator(".notice")).toContainText("This link brings settings");
  await loadBuiltIn(page);
  await expect(page.getByLabel("Method", { exact: true })).toHaveValue("mixlora");
  await expect(page.locator('[data-key="experts"] input')).toHaveValue("4");
  await expect(page.locator('[data-key="lr"] input')).toHaveValue("0.002");
  await page.goto("about:blank");
  await open(page, "", "#settings=%7Bnot");
  await expect(page.locator(".notice")).toContainText("cannot be read");
});
