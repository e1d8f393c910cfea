/** Section 1: the base model. */

import { cancelLoad, loadBase, removeCached } from "../actions/base";
import { BASE_PRESETS, EMBEDDED_NAME, type BasePreset } from "../data/bases";
import { fill, h, setText, show, uniqueId } from "../lib/dom";
import { ago, bytes, count, parameters } from "../lib/format";
import { get, isTraining, update, watch, type BaseTab } from "../state";
import { choices, dropTarget, facts, filePicker, problemBox, progressBar, section } from "./parts";

/** The section. */
export function baseSection(): HTMLElement {
  const { root, body, aside } = section(1, "Base model");
  const panels: Record<BaseTab, HTMLElement> = { embedded: embeddedPanel(), file: filePanel(), url: urlPanel(), kept: keptPanel() };
  const open = (tab: BaseTab) => {
    tabs.set(tab);
    for (const [name, panel] of Object.entries(panels)) show(panel, name === tab);
  };
  const options: { id: BaseTab; label: string }[] = [
    { id: "embedded", label: "Built in" },
    { id: "file", label: "File" },
    { id: "url", label: "Download" },
    { id: "kept", label: "Kept here" },
  ];
  const tabs = choices("Where the base comes from", options, (id) => update("base", { tab: id as BaseTab }));
  const progress = progressBar("Loading the base model");
  const problem = problemBox();
  const cancel = h("button", { type: "button", onclick: cancelLoad }, "Cancel");
  const loaded = h("div", { class: "loaded", hidden: true });
  const warnings = h("ul", { class: "warnings", hidden: true });
  body.append(tabs.root, ...Object.values(panels), progress.root, cancel, problem.root, loaded, warnings);

  watch(["base", "runs"], () => {
    const { tab, status, progress: at, info, problem: found } = get().base;
    open(tab);
    const loading = status === "loading";
    progress.set(loading ? (at ?? { phase: "header", done: 0, total: 0 }) : null);
    show(cancel, loading);
    problem.set(found);
    tabs.disable(isTraining());
    body.classList.toggle("locked", isTraining());
    for (const button of body.querySelectorAll<HTMLButtonElement>(".load")) button.disabled = loading || isTraining();
    show(loaded, info !== null);
    setText(aside, info ? `${info.name} · ${parameters(info.parameters)}` : loading ? "loading…" : "");
    fill(warnings, ...(info?.warnings ?? []).map((text) => h("li", {}, text)));
    show(warnings, (info?.warnings.length ?? 0) > 0);
    if (info) {
      fill(
        loaded,
        facts([
          ["Model", info.name],
          ["Weights", `${parameters(info.parameters)} in ${info.format}, ${bytes(info.bytes)}`],
          ["Shape", `${info.layers} layers of ${count(info.hidden)}, vocabulary ${count(info.vocab)}`],
          ["Context", `${count(info.context)} tokens`],
          ["Chat template", info.chatTemplate ? "yes" : "none; prompts are plain text"],
        ]),
      );
    }
  });
  return root;
}

function embeddedPanel(): HTMLElement {
  const load = h("button", { type: "button", class: "load", onclick: () => void loadBase({ embedded: true }) }, "Load the built-in model");
  watch(["base"], () => {
    const { status, source } = get().base;
    show(load, !(status === "ready" && source !== null && "embedded" in source));
  });
  return h("div", { class: "panel" }, h("p", {}, h("strong", {}, EMBEDDED_NAME), ": 1.08 M parameters, made for this project. Part of this page; works offline."), load);
}

function filePanel(): HTMLElement {
  const keep = keepBox("Keep a copy in this browser, so that a run survives a reload");
  let tokenizer: File | undefined;
  const load = (file: File) => void loadBase({ file, name: file.name, cache: keep.checked }, tokenizer);
  const named = h("span", { class: "muted small" });
  const forget = h("button", { type: "button", class: "quiet small", hidden: true, onclick: () => take(undefined) }, "Use the model's own");
  const take = (file: File | undefined) => {
    tokenizer = file;
    setText(named, file ? `${file.name} is used with the next file that is loaded.` : "");
    show(forget, file !== undefined);
  };
  const other = h("details", { class: "more" }, h("summary", {}, "Another tokenizer"), h("div", { class: "stack" }, h("p", { class: "muted small" }, "A tokenizer.json, where the one in the model's file is missing or wrong."), h("div", { class: "row" }, filePicker("Choose tokenizer.json…", ".json", ([file]) => take(file)), named, forget)));
  const zone = h(
    "div",
    { class: "drop" },
    filePicker("Choose a GGUF file…", ".gguf", ([file]) => file && load(file), "load"),
    h("p", { class: "muted small" }, "or drop it here. LLaMA and Mistral families. It is read piece by piece and never leaves this machine."),
  );
  dropTarget(zone, ([file]) => file && load(file));
  return h("div", { class: "panel" }, zone, keep.root, other);
}

function urlPanel(): HTMLElement {
  const keep = keepBox("Keep a copy in this browser");
  const load = (url: string) => void loadBase({ url, cache: keep.checked });
  const id = uniqueId("url");
  const input = h("input", { id, type: "url", placeholder: "https://…/model.gguf", autocomplete: "off", spellcheck: "false", required: true });
  const form = h(
    "form",
    {
      class: "url-form",
      onsubmit: (event: Event) => {
        event.preventDefault();
        load(input.value.trim());
      },
    },
    h("label", { for: id }, "Any other address"),
    h("div", { class: "row" }, input, h("button", { type: "submit", class: "load" }, "Download")),
  );
  const list = h("ul", { class: "presets" }, ...BASE_PRESETS.map((preset) => presetRow(preset, load)));
  return h("div", { class: "panel" }, h("p", { class: "muted small" }, "Nothing is fetched before you press a button; then from that address only."), list, form, keep.root);
}

function presetRow(preset: BasePreset, load: (url: string) => void): HTMLElement {
  const { name, parameters: size, format, bytes: total, licence, note, url } = preset;
  const label = `Download ${name}, ${bytes(total)}`;
  return h(
    "li",
    {},
    h("div", {}, h("strong", {}, name), h("span", { class: "muted small" }, `${size} · ${format} · ${licence} · ${note}`)),
    h("button", { type: "button", class: "load", "aria-label": label, title: url, onclick: () => load(url) }, bytes(total)),
  );
}

function keptPanel(): HTMLElement {
  const list = h("ul", { class: "presets" });
  const text = h("p", { class: "muted small" });
  watch(["storage", "base"], () => {
    const { cached, usage, quota, problem } = get().storage;
    const inUse = get().base.info?.cached;
    const room = quota > 0 ? ` ${bytes(usage)} of ${bytes(quota)} in use.` : "";
    setText(text, problem ? "This browser keeps nothing for this page (a private window?)." : cached.length ? `Kept in this browser, for this page only.${room}` : `No models are kept yet.${room}`);
    fill(
      list,
      ...cached.map(({ key, name, bytes: total, usedAt }) =>
        h(
          "li",
          {},
          h("div", {}, h("strong", { class: "break" }, name), h("span", { class: "muted small" }, `${bytes(total)} · used ${ago(usedAt)}`)),
          h(
            "div",
            { class: "row" },
            h("button", { type: "button", class: "load", "aria-label": `Load ${name}`, onclick: () => void loadBase({ cached: key }) }, "Load"),
            key === inUse ? h("span", { class: "muted small" }, "in use") : h("button", { type: "button", "aria-label": `Remove ${name}`, onclick: () => void removeCached(key, name) }, "Remove"),
          ),
        ),
      ),
    );
  });
  return h("div", { class: "panel" }, text, list);
}

function keepBox(label: string): { root: HTMLElement; readonly checked: boolean } {
  const box = h("input", { type: "checkbox", checked: true });
  return {
    root: h("label", { class: "check" }, box, label),
    get checked() {
      return box.checked;
    },
  };
}
