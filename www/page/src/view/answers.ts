/** Part of section 5: the answers of base and adapter beside each other, below the conversation so far. */

import { fill, h, setText, show } from "../lib/dom";
import { duration, plural, short } from "../lib/format";
import { get, watch, type Answer } from "../state";

/** Both columns; hidden until something was asked. */
export function answersView(): HTMLElement {
  const base = answerBox("Base", "base");
  const tuned = answerBox("Base with adapter", "tuned");
  const root = h("div", { class: "answers", hidden: true }, base.root, tuned.root);
  watch(["trial"], () => {
    const { trial } = get();
    show(root, trial.base.status !== "idle");
    base.set(trial.base, saidTo("base"));
    tuned.set(trial.tuned, saidTo("tuned"));
    show(tuned.root, trial.tuned.status !== "idle");
  });
  return root;
}

/** The conversation of one side before its last answer: words of the person and of the model in turn. */
function saidTo(side: "base" | "tuned"): string[] {
  const { turns, said } = get().trial;
  return said === "" ? [] : [...turns.flatMap((turn) => [turn.said, turn[side].trim()]), said];
}

function answerBox(title: string, kind: string): { root: HTMLElement; set(answer: Answer, before: string[]): void } {
  const turns = h("ol", { class: "turns", "aria-label": "Conversation", hidden: true });
  const text = h("p", { class: "answer-text" });
  const state = h("p", { class: "muted small" });
  const root = h("article", { class: `answer ${kind}`, "aria-label": title }, h("h3", {}, title), turns, text, state);
  let drawn = "";
  return {
    root,
    set: (answer, before) => {
      const now = JSON.stringify(before);
      if (now !== drawn) fill(turns, ...before.map((words, i) => h("li", { class: i % 2 === 0 ? "said" : "answered" }, h("span", { class: "visually-hidden" }, i % 2 === 0 ? "You: " : "Model: "), words)));
      drawn = now;
      show(turns, before.length > 0);
      setText(text, answer.text.trimStart());
      root.setAttribute("aria-busy", String(answer.status === "waiting" || answer.status === "writing"));
      setText(state, answerState(answer));
    },
  };
}

function answerState({ status, pieces, seconds, text, written }: Answer): string {
  const speed = written && seconds > 0 ? `, ${short(written.tokens / seconds)} tokens/s` : "";
  const ends = { length: "; cut at the most tokens", end: "; ended by the model" };
  const cut = written ? ends[written.stopped] : "";
  const took = written ? `${plural(written.tokens, "token")} in ${duration(seconds)}${speed}${cut}` : `${plural(pieces, "piece")} in ${duration(seconds)}`;
  switch (status) {
    case "waiting":
      return "waiting…";
    case "writing":
      return `writing… ${took}`;
    case "done":
      return text === "" ? "no answer: the end came first" : took;
    case "stopped":
      return `stopped, ${took}`;
    default:
      return "";
  }
}
