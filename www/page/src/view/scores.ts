/** Part of section 5: rows scored without and with the adapter. */

import { score } from "../actions/score";
import { chosenAdapter } from "../actions/trial";
import { h, setDisabled, setText, show } from "../lib/dom";
import { count, loss, percent, plural } from "../lib/format";
import { get, watch, type Scores } from "../state";

/** The button and what it found. */
export function scoresView(): HTMLElement {
  const button = h("button", { type: "button" }, "Score the held-out rows");
  const text = h("p", {});
  const root = h("div", { class: "scoring", hidden: true }, button, text);
  button.addEventListener("click", () => {
    const { heldOut, heldOutName, train, trainName } = get().rows;
    const rows = heldOut ?? train;
    if (rows) void score(rows, heldOut ? heldOutName : trainName);
  });
  watch(["trial", "rows", "runs"], () => {
    const { trial, rows } = get();
    show(root, chosenAdapter() !== null && rows.train !== null);
    setDisabled(button, trial.busy);
    setText(button, trial.scoring ? "Scoring…" : rows.heldOut ? "Score the held-out rows" : "Score the training rows");
    const { scores } = trial;
    setText(text, scores ? scoresInWords(scores) : "");
  });
  return root;
}

/** Loss, choices and exact answers, without and with the adapter. */
function scoresInWords({ name, base, tuned, tokens, accuracy, exact }: Scores): string {
  const choices = accuracy ? ` Right choices: ${percent(accuracy.base)} without, ${percent(accuracy.tuned)} with.` : "";
  const rows = exact && (exact.asked < exact.total ? `${count(exact.asked)} of ${plural(exact.total, "row")} so far` : plural(exact.total, "row"));
  const right = exact ? ` Answered exactly: ${count(exact.base)} without, ${count(exact.tuned)} with, of ${rows}.` : "";
  return `${name}: loss ${loss(base)} without, ${loss(tuned)} with the adapter (${count(tokens)} tokens).${choices}${right}`;
}
