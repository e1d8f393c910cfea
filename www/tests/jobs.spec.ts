/** Several jobs at once, against the stand-in of `fake/`. */

import { expect, test, type Page } from "@playwright/test";
import { expectNoOverflow, picture, runState, section, watchPage, setSetting } from "./helpers";

async function open(page: Page, flags = ""): Promise<ReturnType<typeof watchPage>> {
  const seen = watchPage(page);
  await page.goto(`/fake/?fake=${flags}`);
  await page.getByRole("heading", { level: 1 }).waitFor();
  return seen;
}

const load = (page: Page) => page.getByRole("button", { name: "Load the built-in model" }).click();
/** Opens the panel. The plan that arrives after a model may move it from under a click. */
async function openPanel(page: Page): Promise<void> {
  const panel = page.locator("details.jobs");
  await expect(async () => {
    if ((await panel.getAttribute("open")) === null) await panel.getByText("Several at once").click({ timeout: 5000 });
    await expect(panel).toHaveAttribute("open", "", { timeout: 1000 });
  }).toPass();
}
const rows = (page: Page) => page.getByRole("region", { name: "Runs", exact: true }).locator("tbody tr");
const over = (page: Page, text: string | RegExp) => expect(runState(page)).toContainText(text);

test("a sweep in five clicks: curves over each other, early ends, the best marked and kept", async ({ page }, info) => {
  const seen = await open(page);
  await load(page);
  // 1 the panel, 2 a rate, 3 a rank, 4 the rule, 5 start.
  await openPanel(page);
  await page.getByRole("group", { name: "Learning rates" }).getByLabel("8e-3").check();
  await page.getByRole("group", { name: "Ranks" }).getByLabel("2", { exact: true }).check();
  await page.getByLabel("End early").selectOption("median");
  await page.getByRole("button", { name: "Start 16 jobs" }).click();
  await expect(rows(page)).toHaveCount(16);
  await over(page, "16 of 16 jobs over");
  await expect(rows(page).filter({ hasText: "stopped" }).first()).toBeVisible();
  const best = rows(page).and(page.locator(".best"));
  await expect(best.getByText("★ best")).toBeVisible();
  await expect(best).toHaveCount(1);
  await expect(best).toContainText("done");
  await expect(page.getByLabel("Adapter", { exact: true }).locator("option:checked")).toContainText((await best.locator(".name").textContent()) ?? "?");
  await picture(page, info, "sweep");
  await page.getByRole("button", { name: "Compare" }).click();
  await expect(page.getByRole("article", { name: "Base with adapter" })).toContainText("Anna");
  const saved = page.waitForEvent("download");
  await page.getByRole("button", { name: "PEFT adapter (.zip)" }).first().click();
  expect((await saved).suggestedFilename()).toContain("sweep");
  expect(seen.problems).toEqual([]);
});

test("jobs are added, paused and stopped while others train", async ({ page }, info) => {
  await open(page, "slow");
  await load(page);
  await openPanel(page);
  await page.getByRole("button", { name: "Start the settings as a job" }).click();
  await expect(rows(page)).toHaveCount(1);
  await expect(rows(page).first()).toContainText("step");
  await setSetting(page, "rank", "4");
  await page.getByRole("button", { name: "Add the settings as a job" }).click();
  await expect(rows(page)).toHaveCount(2);
  await expect(rows(page).nth(1)).toContainText("lora-r4-lr2e-3");
  await page.getByRole("button", { name: /^Pause job lora-r8/ }).click();
  await expect(rows(page).first()).toContainText("paused at step");
  await picture(page, info, "jobs-training");
  await page.getByRole("button", { name: /^Resume job lora-r8/ }).click();
  await expect(rows(page).first()).not.toContainText("paused");
  await page.getByRole("button", { name: /^Stop job lora-r4/ }).click();
  await expect(rows(page).nth(1)).toContainText("stopped at step");
  await page.getByRole("button", { name: "Stop all" }).click();
  await over(page, "2 of 2 jobs over");
  await expect(page.getByRole("button", { name: "Start another run" })).toBeEnabled();
});

test("a job's failure is its own", async ({ page }) => {
  await open(page, "nan");
  await load(page);
  await openPanel(page);
  await page.getByRole("button", { name: "Start 9 jobs" }).click();
  await expect(rows(page).first()).toContainText("failed at step 20");
  await expect(rows(page).filter({ hasText: "done" })).toHaveCount(8);
  await rows(page).first().locator(".name").click();
  await expect(section(page, "Train").getByRole("alert")).toContainText("Its loss became NaN at step 21");
});

test("a reload goes on with all jobs", async ({ page }, info) => {
  await open(page, "slow");
  await load(page);
  await openPanel(page);
  await page.getByRole("button", { name: "Start 9 jobs" }).click();
  await expect(rows(page).first()).toContainText(/step 1[1-9]/);
  await page.getByRole("button", { name: /^Stop job/ }).nth(8).click();
  await expect(rows(page).nth(8)).toContainText("stopped");
  await page.reload();
  const offer = page.getByRole("region", { name: "Unfinished runs" });
  await expect(offer).toContainText("9 jobs on weblora demo, 8 unfinished");
  await offer.getByRole("button", { name: "Resume" }).click();
  await expect(rows(page)).toHaveCount(9);
  await expect(rows(page).filter({ hasText: /^.*step (1[1-9]|2)/ }).first()).toBeVisible();
  await expect(rows(page).filter({ hasText: "stopped at step" })).toHaveCount(1);
  await picture(page, info, "jobs-resumed");
});

test("jobs fit on a phone", async ({ page }, info) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await open(page);
  await load(page);
  await openPanel(page);
  await page.getByRole("button", { name: "Start 9 jobs" }).click();
  await over(page, "9 of 9 jobs over");
  await expectNoOverflow(page);
  await picture(page, info, "jobs-phone");
});
