/** What is shown where there is no WebGPU: which browsers have it, and what to switch on. */

import { h } from "../lib/dom";
import { get } from "../state";
import { sentence } from "./parts";

/** Browser, system, since when, what to do. From the WebGPU group's own table, 2026. */
const BROWSERS: [string, string, string][] = [
  ["Chrome, Edge", "Windows, macOS, ChromeOS", "113 and later"],
  ["Chrome, Edge", "Android 12 and later", "121 and later"],
  ["Chrome, Edge", "Linux", "144 and later on Intel (Gen 12), 147 on NVIDIA; else start it with the flags below"],
  ["Chrome, Edge", "Windows on ARM", "switch on chrome://flags/#enable-unsafe-webgpu"],
  ["Firefox", "Windows", "141 and later"],
  ["Firefox", "macOS on Apple silicon", "145 and later (macOS 26), 147 (older macOS)"],
  ["Firefox", "Linux", "Nightly, or dom.webgpu.enabled in about:config"],
  ["Safari", "macOS, iOS, iPadOS", "26 and later"],
];

const FLAGS = "--enable-unsafe-webgpu --ozone-platform=x11 --use-angle=vulkan --enable-features=Vulkan,VulkanFromANGLE";

/** The page without a GPU. */
export function noWebGpu(): HTMLElement {
  const { support, problem } = get().device;
  const reason = support?.reason ?? problem?.message ?? "this browser has no WebGPU";
  // The package's sentence lists browsers after a semicolon; the table here says the same with more room.
  const short = sentence(reason.split(";")[0] ?? reason);
  const insecure = !window.isSecureContext;
  const rows = BROWSERS.map(([browser, system, since]) => h("tr", {}, h("th", { scope: "row" }, browser), h("td", {}, system), h("td", {}, since)));
  return h(
    "main",
    { class: "notice-page", id: "main" },
    h("h2", { class: "title" }, "weblora needs WebGPU"),
    h("p", { class: "lead" }, short),
    insecure && h("p", {}, "Browsers offer WebGPU to secure pages only: open this page over https, or from localhost."),
    h("p", {}, "It trains language models on this machine's own graphics card. The browser must give pages access to it:"),
    h(
      "div",
      { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Browsers with WebGPU" },
      h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Browser"), h("th", { scope: "col" }, "System"), h("th", { scope: "col" }, "WebGPU"))), h("tbody", {}, rows)),
    ),
    h("p", {}, "Flags for Chrome on Linux:"),
    h("pre", {}, h("code", {}, `google-chrome ${FLAGS}`)),
    h("p", {}, "If yours is listed and this page still shows, update the graphics driver and see chrome://gpu or about:support for what the browser found."),
    h("p", {}, h("button", { type: "button", class: "primary", onclick: () => location.reload() }, "Try again")),
  );
}
