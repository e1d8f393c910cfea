/** The shelf: finished runs of this and earlier visits, until they are deleted. */

import type { Autosave } from "weblora";
import { openKept, removeKept, saveKept } from "../actions/shelf";
import { fill, h, setText, show } from "../lib/dom";
import { ago, bytes, loss, plural } from "../lib/format";
import { get, watch } from "../state";

/** The list; hidden while there is nothing on it. */
export function shelf(): HTMLElement {
  const summary = h("summary", {});
  const list = h("ul", { class: "saved-list" });
  const root = h("details", { class: "shelf more", hidden: true }, summary, list);
  let drawn = "";
  watch(["storage", "runs"], () => {
    const kept = get().storage.saves.filter(({ state, step }) => state !== "open" && step > 0);
    show(root, kept.length > 0);
    setText(summary, `${plural(kept.length, "finished run")} kept in this browser, ${bytes(kept.reduce((sum, save) => sum + save.bytes, 0))}`);
    const here = get().runs.list.map(({ id }) => id);
    const now = JSON.stringify([kept, here]);
    if (now === drawn) return;
    drawn = now;
    fill(list, ...kept.map((save) => item(save, here.includes(save.key))));
  });
  return root;
}

function item(save: Autosave, open: boolean): HTMLElement {
  const { base, rows, settings, step, state, savedAt, bestEval, loss: last, bytes: size, key, jobs } = save;
  const name = jobs === undefined ? `${String(settings["method"] ?? "lora")} r${String(settings["rank"] ?? 8)}` : key.slice(jobs.length + 1);
  const score = bestEval !== undefined ? `held-out loss ${loss(bestEval)}` : last !== undefined ? `loss ${loss(last)}` : "";
  const facts = [`${state} after ${plural(step, "step")}`, score, ago(savedAt), bytes(size)].filter(Boolean).join(" · ");
  const what = `${name} on ${base}`;
  const button = (label: string, act: (save: Autosave) => Promise<void>, text = label) => h("button", { type: "button", "aria-label": `${label} ${what}`, onclick: () => void act(save) }, text);
  const actions = h("div", { class: "row" }, open ? h("span", { class: "muted small" }, "open") : button("Open", openKept), state === "failed" ? null : button("Save adapter of", saveKept, "Save adapter"), button("Delete", removeKept));
  return h("li", {}, h("p", {}, h("strong", {}, name), ` on ${base}, rows ${rows}`, h("br"), h("span", { class: "muted small" }, facts)), actions);
}
