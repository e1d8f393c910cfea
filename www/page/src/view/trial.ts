/** Section 5: one prompt, two answers. */

import type { ChatMessage, RowPreview } from "weblora";
import { chosenAdapter, compare, knownAdapters, score, stopCompare, type Drawing } from "../actions/trial";
import { fill, h, setDisabled, setText, show, uniqueId } from "../lib/dom";
import { count, duration, loss, plural, short } from "../lib/format";
import { activeRun, get, noAnswer, update, watch, type Answer } from "../state";
import { choices, problemBox, section } from "./parts";
import { retrievalPart } from "./retrieval";

/** The section. */
export function trialSection(): HTMLElement {
  const { root, body, aside } = section(5, "Try it");
  const id = uniqueId("prompt");
  const prompt = h("textarea", { id, rows: 3, spellcheck: "false", placeholder: "Anna has a black lamp. Ben has a brown boat. Ben and Anna swap. Now" });
  const expected = h("p", { class: "expected small", hidden: true });
  let chat = false;
  const mode = choices("How the prompt is read", [{ id: "plain", label: "Plain text" }, { id: "chat", label: "Chat" }], (choice) => (chat = choice === "chat"));
  mode.set("plain");
  const drawing = drawingFields();
  const problem = problemBox();
  const go = h("button", { type: "submit", class: "primary" }, "Compare");
  const halt = h("button", { type: "button", onclick: stopCompare }, "Stop");
  const ask = (text: string): string | ChatMessage[] => (chat ? [{ role: "user", content: text }] : text);
  const submit = (event: Event) => {
    event.preventDefault();
    if (prompt.value.trim() !== "") return void compare(ask(prompt.value), drawing.read());
    update("trial", { problem: { code: "data", message: "Write a prompt first, or take one of the rows below.", causes: [] }, base: noAnswer(), tuned: noAnswer() });
    prompt.focus();
  };
  const hint = h("p", { class: "muted" }, "Load a base model first.");
  let own = false;
  const take = (text: string, rest: string) => {
    prompt.value = text;
    own = false;
    setText(expected, `The row goes on: ${rest.trim()}`);
    show(expected, rest !== "");
    chat = conversational();
    mode.set(chat ? "chat" : "plain");
  };
  const suggestions = suggestedPrompts(take, (text, rest) => !own && take(text, rest));
  prompt.addEventListener("input", () => {
    own = prompt.value !== "";
    show(expected, false);
  });
  const form = h(
    "form",
    { class: "trial", onsubmit: submit },
    h("div", { class: "row spread" }, h("label", { for: id, class: "label" }, "Prompt"), mode.root),
    prompt,
    suggestions,
    expected,
    drawing.root,
    h("div", { class: "row" }, go, halt, adapterPicker()),
  );
  body.append(hint, form, problem.root, answers(), scoring(), retrievalPart());
  watch(["base", "trial", "runs", "form"], () => {
    const { base, trial } = get();
    const ready = base.status === "ready";
    show(hint, !ready);
    show(form, ready);
    show(mode.root, hasTemplate());
    setDisabled(go, trial.busy || activeRun()?.state === "starting" || activeRun()?.state === "stopping");
    show(halt, trial.busy && !trial.scoring);
    problem.set(trial.problem ?? trial.base.problem ?? trial.tuned.problem);
    setText(aside, ready && chosenAdapter() === null ? "base only; no adapter yet" : "");
  });
  return root;
}

function drawingFields(): { root: HTMLElement; read(): Drawing } {
  const input = (value: string, min: number, max: number, step: string) => h("input", { type: "number", value, min, max, step, inputmode: "decimal", required: true });
  const fields = { maxTokens: input("48", 1, 2048, "1"), temperature: input("0", 0, 2, "any"), topP: input("1", 0.01, 1, "any"), seed: input("0", 0, 4294967295, "1") };
  const label = (text: string, control: HTMLElement) => h("label", { class: "small-field" }, h("span", {}, text), control);
  const root = h(
    "details",
    { class: "more" },
    h("summary", {}, "Sampling"),
    h("div", { class: "small-fields" }, label("Most tokens", fields.maxTokens), label("Temperature (0: likeliest)", fields.temperature), label("Top p", fields.topP), label("Seed", fields.seed)),
  );
  const number = (field: HTMLInputElement, otherwise: number) => (Number.isFinite(field.valueAsNumber) ? field.valueAsNumber : otherwise);
  return { root, read: () => ({ maxTokens: number(fields.maxTokens, 48), temperature: number(fields.temperature, 0), topP: number(fields.topP, 1), seed: number(fields.seed, 0) }) };
}

function adapterPicker(): HTMLElement {
  const id = uniqueId("adapter");
  const select = h("select", { id, onchange: () => update("trial", { adapter: select.value, scores: null }) });
  const root = h("div", { class: "inline-field" }, h("label", { for: id }, "Adapter"), select);
  let drawn = "";
  watch(["runs", "trial"], () => {
    const { trial } = get();
    const options = knownAdapters().map(({ id, name }): [string, string] => [id, name]);
    const now = JSON.stringify(options);
    show(root, options.length > 0);
    if (now !== drawn) fill(select, ...options.map(([value, text]) => h("option", { value }, text)));
    drawn = now;
    if (!options.some(([value]) => value === trial.adapter) && options.length) update("trial", { adapter: options.at(-1)?.[0] ?? "" });
    select.value = trial.adapter;
    select.disabled = trial.busy;
  });
  return root;
}

/** Prompts out of the rows, to begin with. */
function suggestedPrompts(chosen: (prompt: string, rest: string) => void, offered: (prompt: string, rest: string) => void): HTMLElement {
  const list = h("ul", { class: "suggestions", "aria-label": "Prompts from the rows" });
  let drawn: RowPreview[] | null = null;
  watch(["rows"], () => {
    const { samples } = get().rows;
    if (samples === drawn) return;
    drawn = samples;
    const rows = samples.map(split).filter(([text, rest]) => text !== "" && rest !== "");
    const [first] = rows;
    if (first) offered(...first);
    show(list, rows.length > 0);
    fill(list, ...rows.map(([text, rest]) => h("li", {}, h("button", { type: "button", class: "suggestion", onclick: () => chosen(text, rest) }, text))));
  });
  return list;
}

const ROLES = ["user", "assistant", "system", "model"];
/** ChatML writes a turn's role in the line above its words. */
const LEADING_ROLE = /^(?:user|assistant|system)\n/;
const TRAILING_ROLE = /\n(?:assistant)\n?$/;

/** Whether there is a chat template: the base's own, or one among the settings. */
const hasTemplate = (): boolean => get().base.info?.chatTemplate === true || get().form.changed["chatTemplate"] !== undefined;

/** Whether the rows are conversations, which the template renders. */
function conversational(): boolean {
  const { train } = get().rows;
  const format = get().form.changed["format"];
  return hasTemplate() && (format === "chat" || (format === undefined && train !== null && "text" in train && /^\s*\[?\s*\{"(?:messages|conversations)"/.test(train.text)));
}

/** A row's first part that is only read, and what follows. */
function split(row: RowPreview): [string, string] {
  const first = row.tokens.findIndex((token) => token.trained);
  const text = (tokens: RowPreview["tokens"]) => tokens.map((token) => token.text).join("");
  const control = /<\|[^|]*\|>|<\/?s>/g;
  const prompt = text(row.tokens.slice(0, first));
  // A conversation's control tokens belong to the template; such a row is offered by what its last turn says.
  const words = prompt.split(control).map((part) => part.trim()).filter((part) => part !== "" && !ROLES.includes(part));
  return [words.at(-1)?.replace(LEADING_ROLE, "").replace(TRAILING_ROLE, "").trim() ?? "", text(row.tokens.slice(first)).replace(control, "")];
}

function answers(): HTMLElement {
  const base = answerBox("Base", "base");
  const tuned = answerBox("Base with adapter", "tuned");
  const root = h("div", { class: "answers", hidden: true }, base.root, tuned.root);
  watch(["trial"], () => {
    const { trial } = get();
    show(root, trial.base.status !== "idle");
    base.set(trial.base);
    tuned.set(trial.tuned);
    show(tuned.root, trial.tuned.status !== "idle");
  });
  return root;
}

function answerBox(title: string, kind: string): { root: HTMLElement; set(answer: Answer): void } {
  const text = h("p", { class: "answer-text" });
  const state = h("p", { class: "muted small" });
  const root = h("article", { class: `answer ${kind}`, "aria-label": title }, h("h3", {}, title), text, state);
  return {
    root,
    set: (answer) => {
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

function scoring(): HTMLElement {
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
    setText(text, scores ? `${scores.name}: loss ${loss(scores.base)} without, ${loss(scores.tuned)} with the adapter (${count(scores.tokens)} tokens).` : "");
  });
  return root;
}
