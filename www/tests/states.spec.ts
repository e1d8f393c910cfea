/** States of the page that a real GPU reaches seldom or slowly, against the stand-in of `fake/`. */

import AxeBuilder from "@axe-core/playwright";
import { expect, test, type Page } from "@playwright/test";
import { readFileSync } from "node:fs";
import { choose, expectNoOverflow, figure, pick, picture, reachesStep, runState, section, textFile, watchPage, setSetting } from "./helpers";

async function open(page: Page, flags = ""): Promise<ReturnType<typeof watchPage>> {
  const seen = watchPage(page);
  await page.goto(`/fake/?fake=${flags}`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  return seen;
}

const demo = (page: Page) => page.getByRole("button", { name: "Run the demo" }).click();
const done = (page: Page) => expect(runState(page)).toHaveText(/^done/);

test("a browser without WebGPU is told what to do", async ({ page }, info) => {
  await open(page, "nowebgpu");
  await expect(page.getByRole("heading", { name: "weblora needs WebGPU" })).toBeVisible();
  await expect(page.getByRole("row", { name: /Firefox Linux/ })).toBeVisible();
  await expect(page.getByRole("button", { name: "Import…" })).toBeHidden();
  await picture(page, info, "no-webgpu");
});

test("the demo runs, answers differ, and everything can be taken home and brought back", async ({ page }, info) => {
  const seen = await open(page);
  await picture(page, info, "first-visit");
  await demo(page);
  await done(page);
  await expect(figure(page, "Loss")).not.toHaveText("–");
  await section(page, "Try it").getByRole("button", { name: "Compare" }).click();
  await expect(page.getByRole("article", { name: "Base with adapter" })).toContainText("Anna has a brown boat");
  await expect(page.getByRole("article", { name: "Base with adapter" })).toContainText(/12 tokens in .*tokens\/s; ended by the model$/);
  await page.getByRole("button", { name: "Score the held-out rows" }).click();
  await expect(page.getByText(/loss 2\.1234 without, 0\.0123 with the adapter/)).toBeVisible();
  await picture(page, info, "done");

  const download = async (name: string) => {
    const started = page.waitForEvent("download");
    await page.getByRole("button", { name }).click();
    return started;
  };
  const runFile = await download("Run file (.toml)");
  expect(runFile.suggestedFilename()).toMatch(/run\.toml$/);
  const toml = readFileSync(await runFile.path(), "utf8");
  expect(toml).toContain("rank = 8");
  expect(toml).toContain('targets = [ "q", "k"');
  const all = await download("Everything (.zip)");
  await page.reload();
  await page.getByRole("button", { name: "Load the built-in model" }).click();
  await expect(section(page, "Base model")).toContainText("5 layers");
  await pick(page, "Import…", { name: "all.zip", mimeType: "application/zip", buffer: readFileSync(await all.path()) });
  await expect(page.getByText(/Goes on from step 60 of checkpoint\.safetensors/)).toBeVisible();
  await expect(section(page, "Try it").getByLabel("Adapter", { exact: true })).toHaveValue("imported");
  await picture(page, info, "imported");
  expect(seen.problems).toEqual([]);
  expect(seen.foreign).toEqual([]);
});

test("what is found in long texts is a heat map, and texts beyond the context are refused", async ({ page }) => {
  const seen = await open(page);
  await page.getByRole("button", { name: "Load the built-in model" }).click();
  const trial = section(page, "Try it");
  await trial.getByText("Long texts", { exact: true }).click();
  await trial.getByLabel("Find").selectOption("note");
  const lengths = trial.getByLabel("in texts of (tokens)");
  const search = trial.getByRole("button", { name: "Search long texts" });
  await lengths.fill("64, 120");
  await search.click();
  await expect(trial.getByText("75 % found.")).toBeVisible();
  await expect(trial.getByRole("figure", { name: "note" })).toBeVisible();
  await lengths.fill("600");
  await search.click();
  await expect(trial.getByRole("alert").filter({ hasText: "exceed the context of 512" })).toBeVisible();
  await lengths.fill("many");
  await search.click();
  await expect(trial.getByRole("alert").filter({ hasText: "Give the lengths" })).toBeVisible();
  expect(seen.problems).toEqual([]);
});

test("pause, resume, stop, continue", async ({ page }) => {
  await open(page, "slow");
  await demo(page);
  await reachesStep(page, 3, 15_000);
  await page.getByRole("button", { name: "Pause" }).click();
  await expect(runState(page)).toHaveText(/^paused at step/);
  const at = await runState(page).textContent();
  await page.waitForTimeout(700);
  await expect(runState(page)).toHaveText(at ?? "");
  await expect(page.getByRole("button", { name: "PEFT adapter (.zip)" })).toBeEnabled();
  await page.getByRole("button", { name: "Resume" }).click();
  await expect(runState(page)).toHaveText(/^step/);
  await page.getByRole("button", { name: "Stop" }).click();
  await expect(runState(page)).toHaveText(/^stopped at step/);
  await page.getByRole("button", { name: "Continue this run" }).click();
  await expect(runState(page)).toHaveText(/^step/);
});

test("a reload offers to resume", async ({ page }, info) => {
  await open(page, "slow");
  await demo(page);
  await reachesStep(page, 11, 15_000);
  await page.reload();
  const offer = page.getByRole("region", { name: "Unfinished runs" });
  await expect(offer).toContainText("lora r8 on weblora demo, step 10 of 60");
  await picture(page, info, "resume-offer");
  await offer.getByRole("button", { name: "Resume" }).click();
  await reachesStep(page, 11, 15_000);
  await expect(offer).toBeHidden();
  // The curve begins where the run did.
  await page.getByRole("button", { name: "Loss as a table" }).click();
  await expect(page.getByRole("rowheader", { name: "1", exact: true })).toBeVisible();
});

test("a saved run can be discarded", async ({ page }) => {
  await open(page, "slow");
  await demo(page);
  await reachesStep(page, 11, 15_000);
  await page.reload();
  await page.getByRole("button", { name: "Discard" }).click();
  await expect(page.getByRole("region", { name: "Unfinished runs" })).toBeHidden();
});

test("a lost device is told and the run goes on", async ({ page }, info) => {
  await open(page, "lost");
  await demo(page);
  await done(page);
  await expect(page.locator(".notice")).toContainText("The GPU device was lost; going on after step 15 on a new one");
  await picture(page, info, "device-lost");
});

test("a failed run says why", async ({ page }, info) => {
  await open(page, "nan");
  await demo(page);
  await expect(page.getByRole("alert").filter({ hasText: "Loss became NaN at step 21" }).first()).toBeVisible();
  await picture(page, info, "failed");
  await expect(page.getByRole("button", { name: "Start another run" })).toBeEnabled();
  // From before that, at half of the rate.
  await page.getByRole("button", { name: "Go on from before, at a smaller rate" }).click();
  await done(page);
});

test("a wrong setting is shown at its field and nothing starts", async ({ page }, info) => {
  await open(page);
  await page.getByRole("button", { name: "Load the built-in model" }).click();
  const rank = page.locator('[data-key="rank"] input');
  await rank.fill("0");
  await expect(rank).toHaveAttribute("aria-invalid", "true");
  await expect(page.getByText("Is 0; give a whole number from 1 to 4096", { exact: true })).toBeVisible();
  await expect(page.getByRole("button", { name: "Start training" })).toBeDisabled();
  await picture(page, info, "wrong-setting");
  await rank.fill("4");
  await expect(rank).not.toHaveAttribute("aria-invalid", "true");
  await expect(page.getByRole("button", { name: "Start training" })).toBeEnabled();
  await page.getByRole("button", { name: "Measure a step" }).click();
  await expect(page.getByText(/60 steps of 1\d\d ms, as measured/)).toBeVisible();
});

test("a plan that does not fit is refused before it starts", async ({ page }) => {
  await open(page, "oom");
  await page.getByRole("button", { name: "Load the built-in model" }).click();
  await expect(page.getByText("The plan needs 9.1 GB and this GPU allows 4.3 GB")).toBeVisible();
  await expect(page.getByRole("button", { name: "Start training" })).toBeDisabled();
});

test("bad files get a sentence each", async ({ page }) => {
  await open(page);
  await pick(page, "Import…", textFile("notes.bin", "\u0000\u0001"));
  await expect(page.locator(".notice")).toContainText("notes.bin is nothing this page knows");
  await choose(page, "Where the base comes from", "File");
  await pick(page, "Choose a GGUF file…", textFile("broken.gguf", "GGUF123"));
  await expect(section(page, "Base model").getByRole("alert")).toContainText("the header ends after 12 bytes");
  await choose(page, "Where the rows come from", "File");
  await pick(page, "Choose a file of rows…", textFile("empty.jsonl", ""));
  await expect(section(page, "Rows").getByRole("alert")).toContainText("empty.jsonl is empty");
  await choose(page, "Where the base comes from", "Built in");
  await page.getByRole("button", { name: "Load the built-in model" }).click();
  await expect(section(page, "Base model")).toContainText("5 layers");
  await choose(page, "Where the rows come from", "Paste");
  await page.getByLabel("One JSON object a line").fill('{"prompt": "a", "completion": " b"}\nnot json');
  await expect(section(page, "Rows").getByRole("alert")).toContainText("row 2: not a JSON object");
  await page.getByLabel("One JSON object a line").fill('{"prompt": "a", "completion": " b"}');
  await expect(page.getByText("Row 1 of 1: 3 tokens, 2 trained")).toBeVisible();
  await pick(page, "Import…", textFile("bad.toml", "rank = = 3\n"));
  await expect(page.locator(".notice")).toContainText("bad.toml, line 1");
});

test("a file of a gigabyte is refused as rows without being read", async ({ page }) => {
  await open(page);
  await choose(page, "Where the rows come from", "File");
  // A File of that size without its bytes.
  await page.evaluate(() => {
    const file = new File([], "huge.jsonl");
    Object.defineProperty(file, "size", { value: 1e9 });
    const transfer = { types: ["Files"], files: [file] };
    const event = new Event("drop", { bubbles: true, cancelable: true });
    Object.defineProperty(event, "dataTransfer", { value: transfer });
    const zone = [...document.querySelectorAll(".drop")].find((each) => each.textContent?.includes("file of rows"));
    zone?.dispatchEvent(event);
  });
  await expect(section(page, "Rows").getByRole("alert")).toContainText("huge.jsonl has 1000 MB; this page takes rows up to 64 MB");
});

test("a failed download says so, and kept models can be removed", async ({ page }, info) => {
  await open(page, "network,cached");
  await choose(page, "Where the base comes from", "Download");
  await picture(page, info, "download-presets");
  await page.getByLabel("Any other address").fill("https://models.invalid/model.gguf");
  await page.getByRole("button", { name: "Download", exact: true }).click();
  await expect(section(page, "Base model").getByRole("alert")).toContainText("server answered 404");
  await choose(page, "Where the base comes from", "Kept here");
  await expect(page.getByText("145 MB · used 3 days ago")).toBeVisible();
  await page.getByRole("button", { name: /^Remove smollm2/ }).click();
  await expect(page.getByText("No models are kept yet")).toBeVisible();
});

test("several runs share the charts; a chain shows its knots", async ({ page }, info) => {
  await open(page);
  await demo(page);
  await done(page);
  await page.getByLabel("Method", { exact: true }).selectOption("cola");
  await setSetting(page, "steps", "120");
  await setSetting(page, "rank", "2");
  await page.getByRole("button", { name: "Start another run" }).click();
  await expect(runState(page)).toHaveText(/^done, 120 steps/);
  const rows = page.getByRole("region", { name: "Runs", exact: true }).locator("tbody tr");
  await expect(rows).toHaveCount(2);
  await expect(rows.nth(1)).toContainText("cola r2");
  await picture(page, info, "two-runs");
  await page.getByRole("button", { name: "Analyse the adapter" }).click();
  await expect(page.getByRole("figure", { name: "Singular values" })).toBeVisible();
  await expect(page.getByRole("region", { name: "Medians by projection" }).locator("tbody tr")).toHaveCount(2);
  await picture(page, info, "inside");
  await page.getByText("Change the adapter").click();
  const inside = section(page, "Look inside");
  const links = inside.getByRole("list", { name: "Links of the chain" }).getByRole("checkbox");
  // The fake's run of 120 steps ties knots after 40, 80 and 120.
  await expect(links).toHaveCount(4);
  await expect(inside.getByRole("button", { name: "Keep the ticked links" })).toBeDisabled();
  await inside.getByLabel(/^Link 2:/).uncheck();
  await inside.getByRole("button", { name: "Keep the ticked links" }).click();
  await expect(inside.getByRole("status")).toContainText("links 1, 3, 4: a chain of 3 links");
  await expect(page.getByLabel("Adapter", { exact: true }).locator("option:checked")).toContainText("links 1, 3, 4");
  await expect(links).toHaveCount(3);
  const split = page.waitForEvent("download");
  await inside.getByRole("button", { name: "Save each link (.zip)" }).click();
  expect((await split).suggestedFilename()).toMatch(/links\.zip$/);
  await inside.getByLabel("times").fill("0.5");
  await inside.getByRole("button", { name: "Join" }).click();
  await expect(inside.getByRole("alert")).toContainText("another base");
  await inside.getByLabel("times").fill("1");
  await inside.getByLabel("Join with").selectOption({ index: 0 });
  await inside.getByRole("button", { name: "Join" }).click();
  await expect(inside.getByRole("status")).toContainText("a chain of 3 links, rank up to 6");
  await inside.getByLabel("Largest rank").fill("0");
  await expect(inside.getByRole("button", { name: "Cut ranks" })).toBeDisabled();
  await inside.getByLabel("Largest rank").fill("2");
  await inside.getByRole("button", { name: "Cut ranks" }).click();
  await expect(inside.getByRole("status")).toContainText("one adapter, rank up to 2");
  await expect(inside.getByRole("status")).toContainText("Cutting lost 1.23 %");
  await expect(links).toHaveCount(0);
  await picture(page, info, "changed");
  await page.getByLabel("Method", { exact: true }).selectOption("multilora");
  await page.getByRole("button", { name: "Start another run" }).click();
  await expect(rows).toHaveCount(3);
  await expect(page.getByRole("figure").filter({ hasText: "Module scales" })).toContainText("Mean scale of 3 modules");
  await done(page);
  await page.getByRole("button", { name: "Analyse the adapter" }).click();
  await expect(page.getByRole("region", { name: "Medians by module" }).locator("tbody tr")).toHaveCount(2);
  // Only the run that the Worker still has is known by its modules.
  await page.getByLabel("Adapter", { exact: true }).selectOption({ index: 0 });
  await page.getByRole("button", { name: "Analyse the adapter" }).click();
  await expect(page.getByRole("region", { name: "Medians by module" })).toHaveCount(0);
  await page.getByRole("button", { name: "Remove run 3 · multilora r2" }).click();
  await page.getByRole("button", { name: "Loss as a table" }).click();
  await expect(page.getByRole("region", { name: "Loss, table" }).locator("tbody tr").last()).toContainText("120");
  await page.getByRole("button", { name: "Remove run 1 · lora r8" }).click();
  await expect(rows).toHaveCount(1);
});

for (const scheme of ["light", "dark"] as const) {
  test(`no accessibility violation that axe finds, ${scheme}`, async ({ page }, info) => {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    await open(page, "cached");
    const check = async (state: string) => {
      const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]).analyze();
      const found = violations.map(({ id, nodes }) => `${state}: ${id}: ${nodes.map(({ target, failureSummary }) => `${target.join(" ")} ${failureSummary ?? ""}`).join(" | ")}`);
      expect(found).toEqual([]);
    };
    await check("first visit");
    await demo(page);
    await done(page);
    await page.getByText(/^Advanced: \d+ more settings/).click();
    await section(page, "Try it").getByRole("button", { name: "Compare" }).click();
    await expect(page.getByRole("article", { name: "Base with adapter" })).toContainText("lamp");
    await page.getByText("Change the adapter").click();
    await expect(page.getByRole("button", { name: "Save this adapter (.zip)" })).toBeVisible();
    await check("done");
    await picture(page, info, `done-${scheme}`);
  });
}

test("everything is there at 360 pixels", async ({ page }, info) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await open(page, "cached");
  await expectNoOverflow(page);
  await demo(page);
  await done(page);
  await page.getByText(/^Advanced: \d+ more settings/).click();
  await section(page, "Try it").getByRole("button", { name: "Compare" }).click();
  await expect(page.getByRole("article", { name: "Base with adapter" })).toContainText("lamp");
  await page.getByText("Change the adapter").click();
  await expectNoOverflow(page);
  await picture(page, info, "phone");
  await choose(page, "Where the base comes from", "Download");
  await expectNoOverflow(page);
});

test("the keyboard alone runs the demo and keeps its focus", async ({ page }) => {
  await open(page, "slow");
  const button = page.getByRole("button", { name: "Run the demo" });
  for (let i = 0; i < 10 && !(await button.evaluate((each) => each === document.activeElement)); i += 1) await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await expect(runState(page)).toHaveText(/^step/);
  await expect(page.getByRole("heading", { name: /Train/ })).toBeFocused();
  await page.keyboard.press("Tab");
  await expect(page.getByRole("button", { name: "Pause" })).toBeFocused();
  await page.keyboard.press("Enter");
  await expect(page.getByRole("button", { name: "Resume" })).toBeFocused();
});

test("the theme can be chosen and is remembered", async ({ page }) => {
  await open(page);
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.getByLabel("Colours").selectOption("dark");
  expect(await paper()).not.toBe(light);
  await page.reload();
  await expect(page.getByLabel("Colours")).toHaveValue("dark");
  expect(await paper()).not.toBe(light);
});
