/** One setting as a form control, made from its row of the crate's table. */

import type { Setting } from "weblora";
import { LABELS } from "../data/words";
import { setSetting } from "../actions/form";
import { h, setText, show, uniqueId } from "../lib/dom";
import { withoutKey } from "../lib/problem";

/** A control and what keeps it up to date. */
export interface Field {
  key: string;
  root: HTMLElement;
  /** Shows a value; `undefined` is the default. */
  set(value: unknown): void;
  /** Shows what is wrong with it, or that nothing is. */
  setProblem(message: string | null): void;
}

interface Control {
  element: HTMLElement;
  /** What carries the label and the error. */
  input: HTMLElement;
  set(value: unknown): void;
  /** Its own legend instead of a label. */
  group?: boolean;
}

/** The control of a setting. */
export function field(row: Setting): Field {
  const id = uniqueId(`setting-${row.key}`);
  const control = make(row, id);
  const help = h("p", { class: "muted small", id: `${id}-help` }, row.help);
  const error = h("p", { class: "field-error small", id: `${id}-error`, hidden: true });
  const reset = h("button", { type: "button", class: "reset", "aria-label": `Reset ${row.name}`, title: `Back to the default, ${describe(row)}`, onclick: () => setSetting(row.key, undefined) }, "reset");
  const words = LABELS[row.key] ? [LABELS[row.key], " ", h("code", { class: "key" }, row.name)] : [row.name];
  const name = control.group ? h("span", { id: `${id}-label`, class: "label" }, words) : h("label", { for: id, class: "label" }, words);
  control.input.setAttribute("aria-describedby", `${id}-help ${id}-error`);
  if (control.group) control.input.setAttribute("aria-labelledby", `${id}-label`);
  const root = h("div", { class: `field field-${row.kind}`, "data-key": row.key }, h("div", { class: "field-head" }, name, reset), control.element, error, help);
  return {
    key: row.key,
    root,
    set: (value) => {
      control.set(value);
      show(reset, value !== undefined);
      root.classList.toggle("changed", value !== undefined);
    },
    setProblem: (message) => {
      show(error, message !== null);
      setText(error, message === null ? "" : withoutKey(message));
      if (message === null) control.input.removeAttribute("aria-invalid");
      else control.input.setAttribute("aria-invalid", "true");
    },
  };
}

function make(row: Setting, id: string): Control {
  switch (row.kind) {
    case "switch":
      return toggle(row, id);
    case "choice":
      return select(row, id);
    case "names":
      return named(row).length ? chips(row, named(row)) : line(row, id);
    case "patterns":
      return patterns(row, id);
    default:
      return line(row, id);
  }
}

/** The names that a list is made of, as far as the table tells. */
const named = (row: Setting): string[] => row.choices ?? (Array.isArray(row.default) ? row.default.map(String) : []);

function toggle(row: Setting, id: string): Control {
  const input = h("input", { id, type: "checkbox", class: "switch", role: "switch" });
  input.addEventListener("change", () => setSetting(row.key, input.checked === row.default ? undefined : input.checked));
  return { element: input, input, set: (value) => (input.checked = Boolean(value ?? row.default)) };
}

function select(row: Setting, id: string): Control {
  const options = (row.choices ?? []).map((name) => h("option", { value: name }, name));
  const input = h("select", { id }, ...options);
  input.addEventListener("change", () => setSetting(row.key, input.value === row.default ? undefined : input.value));
  return { element: input, input, set: (value) => (input.value = String(value ?? row.default)) };
}

/** Numbers, texts and lists in one line. What is no number goes on as it is: the crate says what it expects. */
function line(row: Setting, id: string): Control {
  const numeric = row.kind === "count" || row.kind === "number";
  const input = h("input", { id, type: "text", inputmode: numeric ? "decimal" : "text", placeholder: describe(row), autocomplete: "off", spellcheck: "false" });
  input.addEventListener("input", () => setSetting(row.key, parse(row, input.value.trim())));
  return {
    element: input,
    input,
    set: (value) => {
      const text = value === undefined ? "" : written(value);
      // Not while it is being written: "1e" is on the way to "1e-3".
      if (document.activeElement === input && JSON.stringify(parse(row, input.value.trim())) === JSON.stringify(value)) return;
      if (input.value !== text) input.value = text;
    },
  };
}

/** Names to switch on and off, and a line for others, such as the path of one layer. */
function chips(row: Setting, names: string[]): Control {
  const boxes = names.map((name) => h("input", { type: "checkbox", value: name }));
  const other = h("input", { type: "text", class: "other-names", "aria-label": `Other ${row.name}`, placeholder: "others, by path", autocomplete: "off", spellcheck: "false" });
  const change = () => {
    const others = other.value.split(",").map((name) => name.trim()).filter(Boolean);
    const chosen = [...boxes.filter((box) => box.checked).map((box) => box.value), ...others];
    setSetting(row.key, JSON.stringify(chosen) === JSON.stringify(row.default) ? undefined : chosen);
  };
  const labels = names.map((name, i) => h("label", { class: "chip" }, boxes[i], h("span", {}, name)));
  for (const input of [...boxes, other]) input.addEventListener("input", change);
  const element = h("div", { class: "chips", role: "group" }, labels, other);
  return {
    element,
    input: element,
    group: true,
    set: (value) => {
      const given = value ?? row.default;
      const chosen = Array.isArray(given) ? given.map(String) : typeof given === "string" ? given.split(",").map((name) => name.trim()) : [];
      for (const box of boxes) box.checked = chosen.includes(box.value);
      if (document.activeElement !== other) other.value = chosen.filter((name) => !names.includes(name)).join(", ");
    },
  };
}

/** `pattern = number`, one a line. */
function patterns(row: Setting, id: string): Control {
  const input = h("textarea", { id, rows: 2, placeholder: "q_proj = 16", spellcheck: "false" });
  input.addEventListener("input", () => {
    const entries = input.value.split("\n").map((each) => each.split(/=(?=[^=]*$)/).map((part) => part.trim()));
    const filled = entries.filter(([pattern]) => pattern);
    setSetting(row.key, filled.length ? Object.fromEntries(filled.map(([pattern, n]) => [pattern, number(n ?? "")])) : undefined);
  });
  const text = (value: unknown) => Object.entries((value ?? {}) as object).map(([pattern, n]) => `${pattern} = ${String(n)}`).join("\n");
  return {
    element: input,
    input,
    set: (value) => {
      if (document.activeElement !== input) input.value = text(value);
    },
  };
}

function parse(row: Setting, text: string): unknown {
  if (text === "") return undefined;
  if (row.kind === "count" || row.kind === "number") return number(text);
  if (row.kind === "counts") return text.split(/[\s,]+/).filter(Boolean).map(number);
  if (row.kind === "names") return text.split(",").map((name) => name.trim()).filter(Boolean);
  return text;
}

function number(text: string): number | string {
  const n = Number(text);
  return text !== "" && Number.isFinite(n) ? n : text;
}

function written(value: unknown): string {
  if (Array.isArray(value)) return value.join(", ");
  if (typeof value === "number" && value !== 0 && Math.abs(value) < 1e-3) return value.toExponential().replace("e+", "e");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** A default in words. */
function describe(row: Setting): string {
  if (row.default === null || row.default === undefined) return row.kind === "count" || row.kind === "number" ? "not set" : "none";
  return written(row.default);
}
