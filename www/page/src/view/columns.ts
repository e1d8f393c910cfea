/** Which two columns of a table are the question and the answer. */

import { mapColumns } from "../actions/rows";
import { fill, h, show, uniqueId } from "../lib/dom";
import { get, watch } from "../state";

/** The mapper; hidden where the rows came otherwise. */
export function columnsView(): HTMLElement {
  const pick = (label: string, which: "question" | "answer") => {
    const id = uniqueId(which);
    const select = h("select", { id, onchange: () => change({ [which]: Number(select.value) }) });
    return { select, root: h("div", { class: "inline-field" }, h("label", { for: id }, label), select) };
  };
  const change = (what: object) => {
    const { table } = get().rows;
    if (table) void mapColumns({ ...table, ...what });
  };
  const question = pick("What the model reads", "question");
  const answer = pick("What it is to answer", "answer");
  const box = h("input", { type: "checkbox", onchange: () => change({ named: box.checked }) });
  const root = h("div", { class: "columns stack", hidden: true }, question.root, answer.root, h("label", { class: "check" }, box, "The first line names the columns"));
  let drawn: unknown = null;
  watch(["rows"], () => {
    const { table, choice } = get().rows;
    show(root, table !== null && choice === "file");
    if (!table) return;
    if (table.cells !== drawn) {
      drawn = table.cells;
      const names = (table.cells[0] ?? []).map((name, i) => h("option", { value: i }, `${i + 1}: ${name.slice(0, 40)}`));
      fill(question.select, ...names);
      fill(answer.select, ...names.map((option) => option.cloneNode(true)));
    }
    [question.select.value, answer.select.value, box.checked] = [String(table.question), String(table.answer), table.named];
  });
  return root;
}
