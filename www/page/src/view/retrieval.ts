/** Part of section 5: what the model finds in long texts, as a heat map by length and depth. */

import type { RetrievalTask } from "weblora";
import { retrieve, stopRetrieval } from "../actions/retrieval";
import { fill, h, setDisabled, setText, show, uniqueId } from "../lib/dom";
import { count } from "../lib/format";
import { get, watch } from "../state";
import { picture, problemBox } from "./parts";

const TASKS: [RetrievalTask, string][] = [
  ["passkey", "a pass key of five digits"],
  ["keys", "one of four keys"],
  ["variables", "a number told on by variables"],
  ["note", "a note (for the embedded model)"],
];

/** The form and what came of it. */
export function retrievalPart(): HTMLElement {
  const ids = { task: uniqueId("task"), lengths: uniqueId("lengths") };
  const task = h("select", { id: ids.task }, ...TASKS.map(([value, text]) => h("option", { value }, text)));
  const lengths = h("input", { id: ids.lengths, type: "text", inputmode: "numeric", value: "64, 120" });
  const go = h("button", { type: "submit" }, "Search long texts");
  const halt = h("button", { type: "button", onclick: stopRetrieval, hidden: true }, "Stop");
  const state = h("p", { class: "muted small" });
  const problem = problemBox();
  const found = h("div", { class: "inside", hidden: true });
  let running = false;
  const submit = async (event: Event) => {
    event.preventDefault();
    const asked = lengths.value.split(/[\s,]+/).filter((word) => word !== "").map(Number);
    if (asked.length === 0 || asked.some((length) => !Number.isInteger(length) || length < 1 || length > 1_000_000)) {
      return problem.set({ code: "data", message: "Give the lengths of the texts in tokens, such as 256, 512.", causes: [] });
    }
    running = true;
    refresh();
    const result = await retrieve(task.value as RetrievalTask, asked, (done, total) => setText(state, `${count(done)} of ${count(total)} places asked`));
    running = false;
    problem.set(result && "problem" in result ? result.problem : null);
    if (result && "retrieval" in result) {
      setText(state, `${(100 * result.retrieval.share).toFixed(0)} % found.`);
      fill(found, picture(result.retrieval.picture));
    } else setText(state, "");
    show(found, result !== null && "retrieval" in result);
    refresh();
  };
  const form = h(
    "form",
    { class: "row", onsubmit: (event: Event) => void submit(event) },
    h("div", { class: "inline-field" }, h("label", { for: ids.task }, "Find"), task),
    h("div", { class: "inline-field" }, h("label", { for: ids.lengths }, "in texts of (tokens)"), lengths),
    go,
    halt,
  );
  const refresh = () => {
    setDisabled(go, get().trial.busy);
    show(halt, running);
  };
  const root = h("details", { class: "more", hidden: true }, h("summary", {}, "Long texts"), form, state, problem.root, found);
  watch(["base", "trial"], () => {
    show(root, get().base.status === "ready");
    refresh();
  });
  return root;
}
