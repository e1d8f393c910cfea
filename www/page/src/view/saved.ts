/** The offer to go on with runs that an earlier visit left. */

import type { Autosave } from "weblora";
import { discardJobs, resumeJobs } from "../actions/jobs";
import { discardSaved, resumeSaved } from "../actions/run";
import { fill, h, show, uniqueId } from "../lib/dom";
import { ago, count, plural } from "../lib/format";
import { get, isTraining, watch } from "../state";
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
    const unfinished = isTraining() ? [] : saves.filter((save) => !here.has(save.key) && save.step < save.total && save.state === "open");
    // Jobs that trained together go on together.
    const open = unfinished.filter((save, i) => save.jobs === undefined || unfinished.findIndex(({ jobs }) => jobs === save.jobs) === i);
    show(root, open.length > 0);
    const now = JSON.stringify(open);
    if (now === drawn) return;
    drawn = now;
    fill(list, ...open.map((save) => (save.jobs === undefined ? savedRun(save) : savedJobs(save.jobs, saves.filter(({ jobs }) => jobs === save.jobs)))));
  });
  return root;
}

type Saves = readonly Autosave[];

function savedRun(save: Autosave): HTMLElement {
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

function savedJobs(set: string, saves: Saves): HTMLElement {
  const open = saves.filter(({ state }) => state === "open");
  const [first] = saves;
  const resume = h("button", { type: "button", class: "primary", onclick: () => void go() }, "Resume");
  const actions = h("div", { class: "row" }, resume, h("button", { type: "button", onclick: () => void discardJobs(set) }, "Discard"));
  const go = async () => {
    resume.disabled = true;
    await resumeJobs(set);
    resume.disabled = false;
    if (get().notice.kind === "error" && first && !actions.querySelector(".file-picker")) {
      actions.append(filePicker(`Choose ${first.base}…`, ".gguf", ([file]) => void resumeJobs(set, file)));
    }
  };
  const when = Math.max(...saves.map(({ savedAt }) => savedAt));
  const text = h("p", {}, h("strong", {}, `${plural(saves.length, "job")} on ${first?.base ?? ""}`), `, ${count(open.length)} unfinished, saved ${ago(when)}`);
  return h("li", {}, text, actions);
}
