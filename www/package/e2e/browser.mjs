// Headless Chromium with WebGPU on SwiftShader: no graphics card, no browser download.

import { chromium } from "playwright-core";

export function launch() {
  return chromium.launch({
    executablePath: process.env.WEBLORA_CHROME ?? "/usr/bin/chromium",
    args: [
      "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", ...(process.getuid?.() === 0 ? ["--no-sandbox"] : []), "--disable-quic",
      "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    ],
  });
}

/** A page that says what went wrong in it. */
export async function open(context, url) {
  const page = await context.newPage();
  page.on("pageerror", (error) => console.error(`page error: ${error.stack || `${error.name} ${error.message}`}`));
  page.on("console", (message) => message.type() === "error" && console.error(`console: ${message.text()}`));
  await page.goto(url);
  return page;
}
