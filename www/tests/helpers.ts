/** What the specs share. */

import { expect, type Page, type TestInfo } from "@playwright/test";

/** Collects everything that must not happen: errors, refused content, requests to other hosts. */
export function watchPage(page: Page): { problems: string[]; foreign: string[] } {
  const problems: string[] = [];
  const foreign: string[] = [];
  page.on("pageerror", (error) => problems.push(`page error: ${error.message}`));
  // "Leave with unsaved steps?" is answered with yes.
  page.on("dialog", (dialog) => void dialog.accept());
  page.on("console", (message) => {
    if (message.type() === "error") problems.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol.startsWith("http") && url.host !== new URL(page.url() || "http://127.0.0.1").host && url.hostname !== "127.0.0.1") foreign.push(request.url());
  });
  return { problems, foreign };
}

/** A picture of the whole page, kept with the results for people to look at. */
export async function picture(page: Page, info: TestInfo, name: string): Promise<void> {
  await page.screenshot({ path: info.outputPath(`${name}.png`), fullPage: true, animations: "disabled" });
}

/** No wider than the window. */
export async function expectNoOverflow(page: Page): Promise<void> {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  const wide = await page.evaluate(() => [...document.querySelectorAll("main *")].filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map((e) => `${e.tagName}.${e.className} ${(e.textContent ?? "").slice(0, 60)}`).slice(-3));
  expect(content, `wider than the window: ${wide.join("; ")}`).toBeLessThanOrEqual(window ?? 0);
}

/** The figure of that name in section 4. */
export function figure(page: Page, name: string) {
  return page.locator(".figures > div").filter({ has: page.locator("dt", { hasText: new RegExp(`^${name}$`) }) }).locator("dd");
}

/** The state beside the title "Train". */
export const runState = (page: Page) => page.locator(".train .section-aside");

/** Waits for that step, or a later one, of a run that is under way, and gives its number. Looks often: on a fast machine ten steps pass within a second. */
export async function reachesStep(page: Page, step: number, timeout: number): Promise<number> {
  let at = 0;
  const look = async () => (at = Number(/^step (\d+)/.exec((await runState(page).textContent()) ?? "")?.[1] ?? 0));
  await expect.poll(look, { timeout, intervals: [50], message: `step ${step}` }).toBeGreaterThanOrEqual(step);
  return at;
}

/** A numbered section of the page. */
export const section = (page: Page, title: string) => page.getByRole("region", { name: title });

/** One of the radio buttons that look like tabs. */
export async function choose(page: Page, group: string, name: string): Promise<void> {
  await page.getByRole("group", { name: group }).getByRole("radio", { name, exact: true }).check();
}

/** Text as a file for an input. */
export const textFile = (name: string, text: string) => ({ name, mimeType: "text/plain", buffer: Buffer.from(text) });

/** Picks files with the button of that name. */
export async function pick(page: Page, button: string | RegExp, files: { name: string; mimeType: string; buffer: Buffer } | { name: string; mimeType: string; buffer: Buffer }[] | string): Promise<void> {
  const chooser = page.waitForEvent("filechooser");
  await page.getByRole("button", { name: button }).first().click();
  await (await chooser).setFiles(files);
}

/** Writes a setting, wherever its field is folded away. */
export async function setSetting(page: Page, key: string, value: string): Promise<void> {
  const field = page.locator(`[data-key="${key}"]`);
  // The fields may be made anew in between: another method has other fields in front.
  await expect(async () => {
    await field.evaluate((element) => {
      const folded = element.closest("details");
      if (folded) folded.open = true;
    });
    await field.getByRole("textbox").fill(value, { timeout: 1000 });
  }).toPass({ timeout: 15_000 });
}
