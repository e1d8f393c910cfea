/** Section 5: one prompt or a conversation, two answers. */

import { chosenAdapter, compare, knownAdapters, newConversation, stopCompare, type Asked, type Drawing } from "../actions/trial";
import { fill, h, setDisabled, setText, show, uniqueId } from "../lib/dom";
import { activeRun, get, noAnswer, update, watch } from "../state";
import { answersView } from "./answers";
import { choices, problemBox, section } from "./parts";
import { retrievalPart } from "./retrieval";
import { conversational, hasTemplate, suggestedPrompts, type Sample } from "./samples";
import { scoresView } from "./scores";

/** The section. */
export function trialSection(): HTMLElement {
  const { root, body, aside } = section(5, "Try it");
  const id = uniqueId("prompt");
  const prompt = h("textarea", { id, rows: 3, spellcheck: "false", placeholder: "Anna has a black lamp. Ben has a brown boat. Ben and Anna swap. Now" });
  const expected = h("p", { class: "expected small", hidden: true });
  let chat = false;
  const system = systemField();
  const anew = h("button", { type: "button", class: "quiet", onclick: () => (newConversation(), prompt.focus()) }, "New conversation");
  const setChat = (on: boolean) => {
    chat = on;
    mode.set(on ? "chat" : "plain");
    show(system.root, on);
    show(anew, on && get().trial.said !== "");
  };
  const mode = choices("How the prompt is read", [{ id: "plain", label: "Plain text" }, { id: "chat", label: "Chat" }], (choice) => setChat(choice === "chat"));
  setChat(false);
  const drawing = drawingFields();
  const problem = problemBox();
  const go = h("button", { type: "submit", class: "primary" }, "Compare");
  const halt = h("button", { type: "button", onclick: stopCompare }, "Stop");
  const submit = (event: Event) => {
    event.preventDefault();
    const text = prompt.value;
    if (text.trim() !== "") return void send(text);
    update("trial", { problem: { code: "data", message: "Write a prompt first, or take one of the rows below.", causes: [] }, base: noAnswer(), tuned: noAnswer() });
    prompt.focus();
  };
  const send = async (text: string) => {
    const talk = chat && hasTemplate();
    const asked: Asked = talk ? { say: text, system: system.field.value } : { text };
    await compare(asked, drawing.read());
    // What was said stands in the conversation now.
    if (talk && prompt.value === text && get().trial.base.status === "done") prompt.value = "";
  };
  // As in any chat: Enter sends, Shift + Enter begins a line.
  prompt.addEventListener("keydown", (event) => {
    if (!chat || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (!go.disabled) form.requestSubmit();
  });
  const hint = h("p", { class: "muted" }, "Load a base model first.");
  let own = false;
  const take = ({ text, rest, system: instructions }: Sample) => {
    prompt.value = text;
    own = false;
    setText(expected, `The row goes on: ${rest.trim()}`);
    show(expected, rest !== "");
    setChat(conversational());
    if (!system.typed()) system.field.value = instructions;
  };
  const suggestions = suggestedPrompts(take, (sample) => !own && take(sample));
  prompt.addEventListener("input", () => {
    own = prompt.value !== "";
    show(expected, false);
  });
  const form = h(
    "form",
    { class: "trial", onsubmit: submit },
    mode.root,
    system.root,
    h("label", { for: id, class: "label" }, "Prompt"),
    prompt,
    suggestions,
    expected,
    drawing.root,
    h("div", { class: "row" }, go, halt, anew, adapterPicker()),
  );
  body.append(hint, form, problem.root, answersView(), scoresView(), retrievalPart());
  watch(["base", "trial", "runs", "form"], () => {
    const { base, trial } = get();
    const ready = base.status === "ready";
    show(hint, !ready);
    show(form, ready);
    show(mode.root, hasTemplate());
    show(system.root, chat && hasTemplate());
    show(anew, chat && trial.said !== "" && !trial.busy);
    setDisabled(go, trial.busy || activeRun()?.state === "starting" || activeRun()?.state === "stopping");
    show(halt, trial.busy);
    problem.set(trial.problem ?? trial.base.problem ?? trial.tuned.problem);
    setText(aside, ready && chosenAdapter() === null ? "base only; no adapter yet" : "");
  });
  return root;
}

/** What the model is told before a conversation. */
function systemField(): { root: HTMLElement; field: HTMLTextAreaElement; typed(): boolean } {
  const id = uniqueId("system");
  let typed = false;
  const field = h("textarea", { id, rows: 2, placeholder: "Optional: who the model is, and how it answers", oninput: () => (typed = field.value !== "") });
  const root = h("div", { class: "stack" }, h("label", { for: id, class: "label" }, "System prompt"), field);
  return { field, root, typed: () => typed };
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
