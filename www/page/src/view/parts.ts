/** Small pieces that several views use. */

import type { Progress } from "weblora";
import { fill, h, setText, show, uniqueId } from "../lib/dom";
import { bytes, count } from "../lib/format";
import type { Problem } from "../lib/problem";

/** A numbered section of the page; `body` is what a view fills. */
export function section(number: number, title: string, className = ""): { root: HTMLElement; body: HTMLElement; aside: HTMLElement } {
  const id = uniqueId("section");
  const aside = h("div", { class: "section-aside" });
  const body = h("div", { class: "section-body" });
  const heading = h("h2", { id, tabindex: -1 }, h("span", { class: "section-number", "aria-hidden": "true" }, number), title);
  const root = h("section", { class: `section ${className}`, "aria-labelledby": id }, h("div", { class: "section-head" }, heading, aside), body);
  return { root, body, aside };
}

/** A row of choices of which one holds: radio buttons that look like one control. */
export function choices(
  legend: string,
  options: { id: string; label: string }[],
  chosen: (id: string) => void,
): { root: HTMLElement; set(id: string): void; disable(disabled: boolean): void } {
  const name = uniqueId("choice");
  const inputs = options.map(({ id }) => h("input", { type: "radio", name, value: id, onchange: () => chosen(id) }));
  const labels = options.map(({ label }, i) => h("label", { class: "choice" }, inputs[i], h("span", {}, label)));
  const root = h("fieldset", { class: "choices" }, h("legend", { class: "visually-hidden" }, legend), labels);
  return {
    root,
    set: (id) => inputs.forEach((input) => (input.checked = input.value === id)),
    disable: (disabled) => (root.disabled = disabled),
  };
}

/** An error, where it happened. */
export function problemBox(): { root: HTMLElement; set(problem: Problem | null): void } {
  const text = h("p", {});
  const causes = h("ul", { class: "causes" });
  const root = h("div", { class: "problem", hidden: true, role: "alert" }, text, causes);
  return {
    root,
    set: (problem) => {
      show(root, problem !== null);
      if (!problem) return setText(text, "");
      setText(text, sentence(problem.message));
      fill(causes, ...problem.causes.map((cause) => h("li", {}, cause)));
      show(causes, problem.causes.length > 0);
    },
  };
}

/** With a full stop, and a capital unless it begins with a file's name or the like. */
export function sentence(text: string): string {
  const begun = /^[a-z]+[\s,;]/.test(text) ? text.charAt(0).toUpperCase() + text.slice(1) : text;
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

const PHASES: Record<Progress["phase"], string> = {
  download: "Reading",
  verify: "Checking the copy",
  header: "Reading the header",
  weights: "Moving weights to the GPU",
  pipelines: "Compiling shaders",
  export: "Writing the model",
};

/** A progress bar with its numbers in words. */
export function progressBar(label: string): { root: HTMLElement; set(progress: Progress | null): void } {
  const bar = h("progress", { "aria-label": label });
  const text = h("p", { class: "muted small" });
  const root = h("div", { class: "progress", hidden: true }, bar, text);
  return {
    root,
    set: (progress) => {
      show(root, progress !== null);
      if (!progress) return;
      const { phase, done, total } = progress;
      if (total > 0) {
        bar.max = total;
        bar.value = done;
      } else bar.removeAttribute("value");
      const amounts = phase === "pipelines" ? `${count(done)} of ${count(total)}` : `${bytes(done)} of ${bytes(total)}`;
      setText(text, `${PHASES[phase]}: ${amounts}`);
    },
  };
}

/** A list of names and values. */
export function facts(rows: [string, string][]): HTMLElement {
  return h("dl", { class: "facts" }, ...rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** A button that opens a file dialog. */
export function filePicker(label: string, accept: string, picked: (files: File[]) => void, className = ""): HTMLElement {
  const input = h("input", { type: "file", accept, class: "visually-hidden", multiple: true, tabindex: -1, "aria-hidden": "true" });
  input.addEventListener("change", () => {
    const files = [...(input.files ?? [])];
    // The same file again must count as a change.
    input.value = "";
    if (files.length) picked(files);
  });
  const button = h("button", { type: "button", class: className, onclick: () => input.click() }, label);
  return h("span", { class: "file-picker" }, button, input);
}

/** Lets files be dropped onto an element. */
export function dropTarget(element: HTMLElement, dropped: (files: File[]) => void): void {
  const hasFiles = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
  element.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.add("dropping");
  });
  element.addEventListener("dragleave", () => element.classList.remove("dropping"));
  element.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.stopPropagation();
    element.classList.remove("dropping");
    dropped([...(event.dataTransfer?.files ?? [])]);
  });
}

/** A picture of the crate's as part of the page: its colours instead of its own, which also follow the page's light and dark. */
export function picture(svg: string): HTMLElement {
  // The page's policy refuses style elements already while they are parsed.
  const drawn = new DOMParser().parseFromString(svg.replace(/<style>[^]*?<\/style>/g, ""), "image/svg+xml").documentElement;
  drawn.removeAttribute("width");
  drawn.removeAttribute("height");
  drawn.classList.add("picture");
  return h("figure", { class: "picture-frame", tabindex: 0, "aria-label": drawn.querySelector("title")?.textContent ?? "picture" }, document.importNode(drawn, true));
}
