/** The top of the page: name, GPU, import, theme; messages and the offer to resume below it. */

import { dismissNotice } from "../trainer";
import { importFiles } from "../actions/files";
import { fill, h, setText, show } from "../lib/dom";
import { bytes } from "../lib/format";
import { setTheme, theme, type Theme } from "../lib/theme";
import { get, watch } from "../state";
import { dropTarget, filePicker, sentence } from "./parts";

/** The header. */
export function header(): HTMLElement {
  const device = h("p", { class: "device" });
  watch(["device"], () => {
    const { status, adapter, support } = get().device;
    device.dataset["status"] = status;
    const limit = support?.limits["maxBufferSize"];
    const name = adapter?.name || support?.adapter || "GPU";
    setText(device, status === "checking" ? "Looking for a GPU…" : status === "missing" ? "No GPU" : status === "lost" ? "GPU lost, starting again…" : name);
    device.title = limit ? `Largest buffer ${bytes(limit)}` : "";
  });
  const accept = ".gguf,.jsonl,.ndjson,.json,.txt,.csv,.tsv,.toml,.zip,.safetensors,.bin";
  const picker = filePicker("Import…", accept, (files) => void importFiles(files), "quiet");
  watch(["device"], () => show(picker, get().device.status !== "missing"));
  return h(
    "header",
    { class: "top" },
    h("h1", { class: "wordmark" }, h("strong", {}, "weblora"), h("span", { class: "muted" }, "fine-tuning in this tab")),
    device,
    h("div", { class: "top-tools" }, picker, themePicker()),
  );
}

function themePicker(): HTMLElement {
  const options: [Theme, string][] = [["system", "System colours"], ["light", "Light"], ["dark", "Dark"]];
  const select = h("select", { "aria-label": "Colours", class: "quiet", onchange: () => setTheme(select.value as Theme) }, ...options.map(([value, label]) => h("option", { value, selected: value === theme() }, label)));
  return select;
}

/** Messages that belong to no section. */
export function notice(): HTMLElement {
  const text = h("p", {});
  const detail = h("ul", { class: "causes" });
  const root = h(
    "div",
    { class: "notice", hidden: true },
    h("div", {}, text, detail),
    h("button", { type: "button", class: "quiet", onclick: dismissNotice }, "Dismiss"),
  );
  watch(["notice"], () => {
    const { kind, text: message, detail: causes } = get().notice;
    show(root, kind !== "none");
    root.dataset["kind"] = kind;
    setText(text, message && sentence(message));
    fill(detail, ...causes.map((cause) => h("li", {}, cause)));
    show(detail, causes.length > 0);
  });
  return root;
}

/** Takes files dropped anywhere on the page. */
export function dropAnywhere(app: HTMLElement): void {
  dropTarget(app, (files) => void importFiles(files));
}
