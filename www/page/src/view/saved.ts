/** The offer to go on with runs that an earlier visit left. */

import { discardSaved, resumeSaved } from "../actions/run";
import { fill, h, show, uniqueId } from "../lib/dom";
import { ago, count } from "../lib/format";
import { get, watch } from "../state";
import { filePicker } from "./parts";

/** The banner; hidden while there is nothing to go on with. */
export function savedRuns(): HTMLElement {
  const id = uniqueId("saved");
  const list = h("ul", { class: "saved-list" });
  const root = h("section", { class: "saved", hidden: true, "aria-labelledby": id }, h("h2", { id }, "Unfinished runs"), list);
  let drawn = "";
  watch(["storage", "runs"], () => {
    const { saves } = get().storage;
    const here = new Set(get().runs.list.map((run) => run.id));
    const open = get().runs.active ? [] : saves.filter((save) => !here.has(save.key) && save.step < save.total);
    show(root, open.length > 0);
    const now = JSON.stringify(open);
    if (now === drawn) return;
    drawn = now;
    fill(list, ...open.map(savedRun));
  });
  return root;
}

function savedRun(save: ReturnType<typeof get>["storage"]["saves"][number]): HTMLElement {
  const { key, base, step, total, savedAt, settings } = save;
  const what = `${String(settings["method"] ?? "lora")} r${String(settings["rank"] ?? 8)} on ${base}`;
  const resume = h("button", { type: "button", class: "primary", onclick: () => void go() }, "Resume");
  const actions = h("div", { class: "row" }, resume, h("button", { type: "button", onclick: () => void discardSaved(key) }, "Discard"));
  const go = async () => {
    resume.disabled = true;
    await resumeSaved(key);
    resume.disabled = false;
    // The base was a file and is not kept: its message says so, and this is where to give it.
    if (get().notice.kind === "error" && !actions.querySelector(".file-picker")) {
      actions.append(filePicker(`Choose ${base}…`, ".gguf", ([file]) => void resumeSaved(key, file)));
    }
  };
  const text = h("p", {}, h("strong", {}, what), `, step ${count(step)} of ${count(total)}, saved ${ago(savedAt)}`);
  return h("li", {}, text, actions);
}
