/** Headless Chromium with WebGPU on SwiftShader: no graphics card, no browser download. */

import { defineConfig } from "@playwright/test";

const port = Number(process.env["WEBLORA_TEST_PORT"] ?? 4179);
const asRoot = process.getuid?.() === 0;

export default defineConfig({
  testDir: ".",
  testMatch: /.*\.spec\.ts/,
  outputDir: ".results",
  // Most tests wait more than they compute, so that the longest file, whole visits with real training, passes beside all others.
  workers: 2,
  // On a machine with other work a click can land where its button was a moment ago. A test that needs its second try is reported as flaky.
  retries: 1,
  fullyParallel: false,
  timeout: 120_000,
  expect: { timeout: 15_000 },
  reporter: [["list"]],
  use: {
    baseURL: `http://127.0.0.1:${port}`,
    viewport: { width: 1280, height: 900 },
    acceptDownloads: true,
    launchOptions: {
      executablePath: process.env["WEBLORA_CHROME"] ?? "/usr/bin/chromium",
      args: [
        "--enable-unsafe-webgpu",
        "--use-webgpu-adapter=swiftshader",
        ...(asRoot ? ["--no-sandbox"] : []),
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
      ],
    },
  },
  webServer: { command: "node server.mjs", port, reuseExistingServer: false, env: { WEBLORA_TEST_PORT: String(port) } },
});
