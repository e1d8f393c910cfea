/** Top of section 4 after a run: what it changed, in answers and in numbers. */

import { hideFinale } from "../actions/finale";
import { beginChoice } from "../actions/rows";
import { h, setText, show } from "../lib/dom";
import { count, plural } from "../lib/format";
import { get, hasOwnRows, isTraining, watch } from "../state";

/** The panel; hidden until a run has ended. */
export function finaleView(): HTMLElement {
  const score = h("p", { class: "finale-score" });
  const prompt = h("p", { class: "finale-prompt" });
  const before = side("Before");
  const after = side("After");
  const expected = h("p", { class: "muted small" });
  const own = h("button", { type: "button", class: "primary", onclick: () => begin() }, "Now your own rows");
  const close = h("button", { type: "button", class: "quiet", onclick: hideFinale }, "Close");
  const root = h("section", { class: "finale", hidden: true, "aria-label": "What the run changed" }, score, prompt, h("div", { class: "answers" }, before.root, after.root), expected, h("div", { class: "row" }, own, close));
  watch(["finale", "runs", "rows"], () => {
    const { run, asked, total, before: right, after: now, heldOut, prompt: text, expected: answer, base, tuned } = get().finale;
    show(root, run !== "" && asked > 0 && !isTraining());
    const share = (n: number) => `${Math.round((100 * n) / Math.max(1, asked))} %`;
    const what = heldOut ? "held-out row" : "training row";
    const over = `${share(right)} → ${share(now)} of ${plural(total, what)} answered exactly`;
    setText(score, asked < total ? `Asking ${plural(total, what)} before and after: ${count(asked)} so far, ${count(right)} → ${count(now)} answered exactly` : over);
    setText(own, hasOwnRows() ? "Change the rows" : "Now your own rows");
    setText(prompt, text.trim());
    before.set(base);
    after.set(tuned);
    setText(expected, `Expected: ${answer}`);
  });
  return root;
}

function side(title: string): { root: HTMLElement; set(text: string): void } {
  const text = h("p", { class: "answer-text" });
  return { root: h("article", { class: `answer ${title === "After" ? "tuned" : "base"}`, "aria-label": title }, h("h3", {}, title), text), set: (answer) => setText(text, answer || "(nothing)") };
}

function begin(): void {
  if (!hasOwnRows()) beginChoice("teach");
  const rows = document.querySelector<HTMLElement>(".rows-section");
  rows?.scrollIntoView({ behavior: "smooth", block: "start" });
  rows?.querySelector<HTMLElement>("h2")?.focus({ preventScroll: true });
}
