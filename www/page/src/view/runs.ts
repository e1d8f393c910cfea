/** The runs of this visit as rows: each with its colour in the charts. */

import { pauseJob, resumeJob, stopJob } from "../actions/jobs";
import { removeRun, selectRun, toggleShown } from "../actions/run";
import { h, setDisabled, setText, show } from "../lib/dom";
import { count, loss } from "../lib/format";
import { get, isJobUnderWay, shownRun, watch, type Run } from "../state";
import { stateInWords } from "./words";

/** The table; hidden until there is a run. */
export function runsTable(): HTMLElement {
  const body = h("tbody", {});
  const names = ["Run", "State", "Loss", "Held out", "Tokens/s", ""];
  const head = h("thead", {}, h("tr", {}, ...names.map((name) => h(name ? "th" : "td", name ? { scope: "col" } : {}, name))));
  const table = h("table", { class: "runs" }, h("caption", { class: "visually-hidden" }, "Runs of this visit"), head, body);
  const root = h("div", { class: "table-scroll", hidden: true, tabindex: 0, role: "region", "aria-label": "Runs" }, table);
  const rows = new Map<Run, HTMLTableRowElement>();
  let due = 0;
  const draw = () => {
    const { list } = get().runs;
    show(root, list.length > 0);
    for (const [run, row] of rows) if (!list.includes(run)) rows.delete(run), row.remove();
    for (const run of list) {
      let row = rows.get(run);
      if (!row) {
        row = makeRow(run);
        rows.set(run, row);
        body.append(row);
      }
      updateRow(row, run);
    }
  };
  watch(["runs"], () => {
    due ||= window.setTimeout(() => {
      due = 0;
      draw();
    }, 200);
  });
  return root;
}

function makeRow(run: Run): HTMLTableRowElement {
  const shown = h("input", { type: "checkbox", checked: run.shown, "aria-label": `Show the curves of run ${run.name}`, onchange: () => toggleShown(run) });
  const remove = h("button", { type: "button", class: "quiet remove", onclick: () => removeRun(run) }, "Remove");
  const hold = h("button", { type: "button", class: "quiet hold", onclick: () => void (run.state === "paused" ? resumeJob(run) : pauseJob(run)) });
  const end = h("button", { type: "button", class: "quiet end", onclick: () => void stopJob(run) }, "Stop");
  const name = h("th", { scope: "row" }, h("div", { class: "run-name" }, shown, h("span", { class: `swatch run-${run.colour}`, "aria-hidden": "true" }), h("button", { type: "button", class: "quiet name", onclick: () => selectRun(run) }), h("span", { class: "best-mark small", hidden: true }, "★ best")));
  return h("tr", {}, name, h("td", {}), h("td", { class: "number" }), h("td", { class: "number" }), h("td", { class: "number" }), h("td", {}, h("div", { class: "row run-actions" }, hold, end, remove)));
}

function updateRow(row: HTMLTableRowElement, run: Run): void {
  const label = row.querySelector<HTMLElement>(".name");
  if (label) {
    setText(label, run.name);
    label.setAttribute("aria-pressed", String(run === shownRun()));
    label.title = run.job?.reason ?? "";
  }
  const mark = row.querySelector<HTMLElement>(".best-mark");
  if (mark) show(mark, run.job?.best ?? false);
  row.classList.toggle("best", run.job?.best ?? false);
  const speed = run.series.recent("speed", 10);
  const values = [stateInWords(run), loss(run.series.last("loss")), loss(run.series.last("eval")), speed === null ? "–" : count(speed)];
  values.forEach((value, i) => {
    const cell = row.cells[i + 1];
    if (cell && cell.textContent !== value) cell.textContent = value;
  });
  const underWay = isJobUnderWay(run);
  const [hold, end, remove] = ["hold", "end", "remove"].map((name) => row.querySelector<HTMLButtonElement>(`.${name}`));
  if (hold && end) {
    show(hold, underWay);
    show(end, underWay);
    setText(hold, run.state === "paused" ? "Resume" : "Pause");
    hold.setAttribute("aria-label", `${hold.textContent ?? ""} job ${run.name}`);
    end.setAttribute("aria-label", `Stop job ${run.name}`);
    setDisabled(end, run.state === "stopping");
  }
  if (remove) {
    show(remove, !underWay);
    remove.disabled = run.id === get().runs.active;
    // The name is complete when the settings are known.
    remove.setAttribute("aria-label", `Remove run ${run.name}`);
  }
}
