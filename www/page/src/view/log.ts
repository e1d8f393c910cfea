/** What happened in a run, line by line. */

import { fill, h, setText, show } from "../lib/dom";
import { plural } from "../lib/format";
import { shownRun, watch } from "../state";

const SHOWN = 200;

/** The log, folded away. */
export function logView(): HTMLElement {
  const list = h("ol", { class: "log" });
  const summary = h("summary", {}, "Events");
  const root = h("details", { class: "more", hidden: true }, summary, list);
  let drawn = "";
  const draw = () => {
    const run = shownRun();
    show(root, run !== null && run.log.length > 0);
    if (!run) return;
    setText(summary, plural(run.log.length, "event"));
    const now = `${run.id} ${run.log.length}`;
    if (!root.open || now === drawn) return;
    drawn = now;
    const time = (at: number) => new Date(at).toLocaleTimeString();
    fill(list, ...run.log.slice(-SHOWN).map(({ time: at, text }) => h("li", {}, h("time", { class: "muted" }, time(at)), text)));
  };
  root.addEventListener("toggle", draw);
  watch(["runs"], draw);
  return root;
}
