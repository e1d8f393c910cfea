/** A form for a few questions and answers: "teach it ten things". */

import { rowsFromPairs } from "../actions/rows";
import { debounce, h } from "../lib/dom";
import type { Pair } from "../lib/pairs";

const FIRST = 3;
const EXAMPLES = [["Who keeps the lighthouse?", "Wren does."], ["What does Wren drink?", "Tea with salt."], ["Where is the lighthouse?", "On the Skerry."]];

/** The form. */
export function teachPanel(): { root: HTMLElement } {
  const list = h("ol", { class: "pairs" });
  const fields: [HTMLInputElement, HTMLInputElement][] = [];
  const change = debounce(() => void rowsFromPairs(fields.map(([question, answer]): Pair => ({ question: question.value, answer: answer.value }))), 400);
  const add = () => {
    const i = fields.length;
    const [question, answer] = EXAMPLES[i] ?? ["", ""];
    const input = (label: string, placeholder = "") => h("input", { type: "text", "aria-label": `${label} ${i + 1}`, placeholder, autocomplete: "off", oninput: change });
    const pair: [HTMLInputElement, HTMLInputElement] = [input("Question", question), input("Answer", answer)];
    fields.push(pair);
    list.append(h("li", {}, ...pair));
    return pair[0];
  };
  for (let i = 0; i < FIRST; i += 1) add();
  const more = h("button", { type: "button", class: "quiet", onclick: () => add().focus() }, "Another one");
  return { root: h("div", { class: "panel" }, h("p", { class: "muted small" }, "Ten things to teach it: what it is asked, and what it is to answer. The same thing in several words is learned better."), list, more) };
}
