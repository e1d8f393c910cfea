/** A real browser that has no WebGPU. */

import { expect, test } from "@playwright/test";
import { picture } from "./helpers";

const args = ["--disable-features=WebGPU", "--disable-gpu", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : [])];
test.use({ launchOptions: { executablePath: process.env["WEBLORA_CHROME"] ?? "/usr/bin/chromium", args } });

test("a browser without WebGPU gets the page that says which have it", async ({ page }, info) => {
  await page.goto("/some/where/");
  await expect(page.getByRole("heading", { name: "weblora needs WebGPU" })).toBeVisible();
  await expect(page.getByText("--enable-unsafe-webgpu", { exact: false }).first()).toBeVisible();
  await picture(page, info, "no-webgpu");
});
