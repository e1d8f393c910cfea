/** A form for a few questions and answers: "teach it ten things". */

import { showDownloads } from "../actions/base";
import { rowsFromPairs } from "../actions/rows";
import { debounce, fill, h, show } from "../lib/dom";
import type { Pair } from "../lib/pairs";
import { get, isBuiltIn, watch } from "../state";

const FIRST = 3;
/** What fields show before anything is typed: in words that the built-in model knows, and for any other. */
const BUILT_IN_EXAMPLES = [["Who has the red hat?", "Anna has the red hat."], ["Where does the fox sleep?", "The fox sleeps in the garden."], ["What is on the hill?", "A white horse is on the hill."]];
const EXAMPLES = [["Who keeps the lighthouse?", "Wren does."], ["What does Wren drink?", "Tea with salt."], ["Where is the lighthouse?", "On the Skerry."]];

const HELP = "Ten things to teach it: what it is asked, and what it is to answer. The same thing in several words is learned better.";
const BUILT_IN_HELP = "The built-in model knows a few hundred words: names, colours, things, animals, fruits. It learns what is said in those. For anything else ";

/** The form, and how rows are put into it. */
export function teachPanel(): { root: HTMLElement; edit(pairs: Pair[]): void } {
  const list = h("ol", { class: "pairs" });
  const fields: [HTMLInputElement, HTMLInputElement][] = [];
  const read = () => void rowsFromPairs(fields.map(([question, answer]): Pair => ({ question: question.value, answer: answer.value })));
  const change = debounce(read, 400);
  const add = () => {
    const i = fields.length;
    const input = (label: string) => h("input", { type: "text", "aria-label": `${label} ${i + 1}`, autocomplete: "off", oninput: change });
    const pair: [HTMLInputElement, HTMLInputElement] = [input("Question"), input("Answer")];
    fields.push(pair);
    // The labels that are seen; the fields have their own, with numbers.
    const seen = (text: string) => h("span", { class: "muted small", "aria-hidden": "true" }, text);
    list.append(h("li", {}, seen(`${i + 1}`), seen("asked"), pair[0], seen("answers"), pair[1]));
    showExamples();
    return pair[0];
  };
  const showExamples = () => {
    const examples = isBuiltIn() ? BUILT_IN_EXAMPLES : EXAMPLES;
    fields.forEach((pair, i) => pair.forEach((field, part) => (field.placeholder = examples[i]?.[part] ?? "")));
  };
  for (let i = 0; i < FIRST; i += 1) add();
  const more = h("button", { type: "button", class: "small", onclick: () => add().focus() }, "Another one");
  const help = h("p", { class: "muted small" }, HELP);
  const small = h("p", { class: "muted small" }, BUILT_IN_HELP, h("button", { type: "button", class: "link", onclick: showDownloads }, "load a larger one"), ".");
  let before = "";
  watch(["rows", "base"], () => {
    showExamples();
    show(small, isBuiltIn());
    const { choice, train } = get().rows;
    // What was typed before counts again when the form is opened again.
    if (choice === "teach" && before !== "teach" && train === null && fields.some(([question, answer]) => question.value !== "" && answer.value !== "")) read();
    before = choice;
  });
  const edit = (pairs: Pair[]) => {
    fill(list);
    fields.length = 0;
    for (const { question, answer } of pairs) {
      const first = add();
      const [, second] = fields.at(-1) ?? [];
      first.value = question;
      if (second) second.value = answer;
    }
    fields[0]?.[0].focus();
    read();
  };
  return { root: h("div", { class: "panel" }, help, small, list, more), edit };
}
