/** The whole of a first visit, by hand and by keyboard, wide and on a phone: the demo, ten rows out of a table, another answer, a file for llama.cpp. */

import { expect, test, type Locator, type Page } from "@playwright/test";
import { readFileSync } from "node:fs";
import { expectNoOverflow, picture, runState, section, watchPage } from "./helpers";

const REAL = "/some/where/";
const STAND_IN = "/fake/";
/** Milliseconds for sixty or a hundred steps where everything shares two cores. */
const PATIENCE = 480_000;
/** What the whole walk may take: fewer than twelve clicks. Its time is printed: five minutes on SwiftShader are the goal, and some machines run at a
 *  quarter of their speed. */
const MOST_CLICKS = 11;
const WALK_MS = 900_000;

/** Ten things in words that the built-in model knows. */
const PAIRS = [
  ["Who has the red hat?", "Anna has the red hat."],
  ["What does Ben have?", "Ben has a blue kite."],
  ["Where does the fox sleep?", "The fox sleeps in the garden."],
  ["What is cold?", "The river is cold."],
  ["Who sings at the door?", "Clara sings at the door."],
  ["What does Leo paint?", "Leo paints the old boat."],
  ["What is on the hill?", "A white horse is on the hill."],
  ["Who waits in the street?", "Noah waits in the street."],
  ["What burns in the house?", "A green lamp burns in the house."],
  ["What is warm?", "The bread is warm."],
] as const;
const CSV = ["question,answer", ...PAIRS.map(([question, answer]) => `"${question}","${answer}"`)].join("\n");

/** How a person presses a button and takes one of several choices. */
interface Hands {
  presses: number;
  press(button: Locator): Promise<void>;
  choose(radio: Locator): Promise<void>;
}

function pointer(): Hands {
  const hands = {
    presses: 0,
    press: async (button: Locator) => {
      hands.presses += 1;
      await button.click();
    },
    choose: async (radio: Locator) => {
      hands.presses += 1;
      await radio.check();
    },
  };
  return hands;
}

function keyboard(page: Page): Hands {
  const isFocused = (element: Locator) => element.evaluate((each) => each === document.activeElement);
  const tabTo = async (reached: () => Promise<boolean>) => {
    for (let i = 0; i < 150 && !(await reached()); i += 1) await page.keyboard.press("Tab");
    expect(await reached(), "reached with Tab").toBe(true);
  };
  const hands = {
    presses: 0,
    press: async (button: Locator) => {
      await expect(button).toBeEnabled({ timeout: 30_000 });
      await tabTo(() => isFocused(button));
      hands.presses += 1;
      await page.keyboard.press("Enter");
    },
    choose: async (radio: Locator) => {
      // Tab reaches the one that is chosen, arrows the others.
      await tabTo(() => radio.evaluate((each: HTMLInputElement) => (document.activeElement as HTMLInputElement | null)?.name === each.name));
      hands.presses += 1;
      for (let i = 0; i < 4 && !(await isFocused(radio)); i += 1) await page.keyboard.press("ArrowLeft");
    },
  };
  return hands;
}

async function walk(page: Page, address: string, hands: Hands): Promise<void> {
  const seen = watchPage(page);
  const button = (name: string | RegExp) => page.getByRole("button", { name, exact: typeof name === "string" });
  await page.goto(address);
  const begun = Date.now();
  await hands.press(button("Run the demo"));
  await expect(runState(page)).toHaveText(/^done, 60 steps/, { timeout: PATIENCE });
  const end = page.getByRole("region", { name: "What the run changed" });
  await expect(end).toContainText("64 held-out rows", { timeout: PATIENCE });
  await hands.press(button("Now your own rows"));
  await hands.choose(page.getByRole("group", { name: "Where the rows come from" }).getByRole("radio", { name: "File", exact: true }));
  const chooser = page.waitForEvent("filechooser");
  await hands.press(button("Choose a file of rows…"));
  await (await chooser).setFiles({ name: "ten.csv", mimeType: "text/csv", buffer: Buffer.from(CSV) });
  await expect(section(page, "Rows")).toContainText("ten.csv · 10 rows");
  await expect(page.getByLabel("Preset")).toHaveValue("few");
  await expect(section(page, "Rows").getByText("The built-in model does not know these words")).toBeHidden();
  await hands.press(button("Start another run"));
  await expect(runState(page)).toHaveText(/^done, 100 steps/, { timeout: PATIENCE });
  await hands.press(button("Compare"));
  const answer = (name: string) => section(page, "Try it").getByRole("article", { name, exact: true });
  await expect(answer("Base with adapter").locator(".muted")).toHaveText(/^\d+ tokens? in/, { timeout: PATIENCE });
  const [before, after] = await Promise.all(["Base", "Base with adapter"].map((name) => answer(name).locator(".answer-text").textContent()));
  expect(after).not.toBe(before);
  if (address === REAL) expect(after?.trim()).toBe(PAIRS[0][1]);
  const download = page.waitForEvent("download");
  await hands.press(button("Adapter for llama.cpp and Ollama (.gguf)"));
  const saved = await download;
  expect(saved.suggestedFilename()).toMatch(/^weblora-demo-lora-r?8?-?step100-adapter\.gguf$/);
  expect(readFileSync(await saved.path()).subarray(0, 4).toString()).toBe("GGUF");
  const took = Date.now() - begun;
  console.log(`${hands.presses} presses, ${(took / 1000).toFixed(0)} s`);
  expect(hands.presses).toBeLessThanOrEqual(MOST_CLICKS);
  expect(seen.problems).toEqual([]);
  expect(seen.foreign).toEqual([]);
}

test("the real page by hand", async ({ page }, info) => {
  test.setTimeout(WALK_MS);
  await walk(page, REAL, pointer());
  await picture(page, info, "walk");
});

test("the real page by keyboard at 360 pixels", async ({ page }, info) => {
  test.setTimeout(WALK_MS);
  await page.setViewportSize({ width: 360, height: 740 });
  await walk(page, REAL, keyboard(page));
  await expectNoOverflow(page);
  await picture(page, info, "walk-keyboard-phone");
});

test("the stand-in by keyboard", async ({ page }) => {
  await walk(page, STAND_IN, keyboard(page));
});

test("the stand-in by hand at 360 pixels", async ({ page }) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await walk(page, STAND_IN, pointer());
  await expectNoOverflow(page);
});
