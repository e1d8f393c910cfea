/** The picture in README, made anew when asked for: WEBLORA_PICTURE=1 scripts/test-page.sh front */

import { expect, test } from "@playwright/test";
import { fileURLToPath } from "node:url";
import { runState, watchPage } from "./helpers";

const PICTURE = fileURLToPath(new URL("../../docs/page.png", import.meta.url));
/** Sixty steps, or 64 held-out rows asked twice each, on a software GPU. */
const PATIENCE = 360_000;

test("the demo in one picture", async ({ page }) => {
  test.skip(process.env["WEBLORA_PICTURE"] === undefined, "WEBLORA_PICTURE=1 makes it");
  test.setTimeout(600_000);
  const seen = watchPage(page);
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.goto("/some/where/");
  await page.getByRole("button", { name: "Run the demo" }).click();
  await expect(runState(page)).toHaveText(/^done, 60 steps/, { timeout: PATIENCE });
  await expect(page.getByText(/^0 % → \d+ % of 64 held-out rows/)).toBeVisible({ timeout: PATIENCE });
  await page.evaluate(() => scrollTo(0, 0));
  await page.screenshot({ path: PICTURE, animations: "disabled", clip: { x: 0, y: 0, width: 1280, height: 900 } });
  expect(seen.problems).toEqual([]);
});
