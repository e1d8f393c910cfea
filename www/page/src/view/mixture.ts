/** Part of section 2: several sets that one run mixes, a task each. */

import { setSetting } from "../actions/form";
import { mixCurrent, unmix } from "../actions/rows";
import { fill, h, show, uniqueId } from "../lib/dom";
import { get, watch } from "../state";

/** The sets with their shares, and the way to another. */
export function mixtureView(): HTMLElement {
  const list = h("ul", { class: "mixture", "aria-label": "Sets of the mixture" });
  const help = h("p", { class: "muted small" }, "Of every pass a set gets its share of the rows; without shares each gets its size. Losses are told for every set. MultiLoRA and MixLoRA are made for mixtures.");
  const more = h("button", { type: "button", class: "small", onclick: () => mixCurrent("file") }, "Mix with another set");
  const root = h("div", { class: "mixed-sets" }, list, help, more);
  let drawn = "";
  watch(["rows", "form"], () => {
    const { mixed, train, trainName } = get().rows;
    const names = [...mixed.map(({ name }) => name), ...(train === null ? [] : [trainName])];
    const shares = get().form.changed["dataWeights"];
    show(more, train !== null);
    show(list, mixed.length > 0);
    show(help, mixed.length > 0);
    const now = JSON.stringify([names, mixed.length]);
    if (now !== drawn) fill(list, ...names.map((name, i) => item(name, i, i < mixed.length)));
    drawn = now;
    list.querySelectorAll("input").forEach((input, i) => {
      if (document.activeElement !== input) input.value = Array.isArray(shares) ? String(shares[i] ?? "") : "";
    });
  });
  return root;
}

function item(name: string, at: number, removable: boolean): HTMLElement {
  const id = uniqueId("share");
  const input = h("input", { id, type: "number", min: 0, step: "any", class: "short", placeholder: "by size", oninput: readShares });
  const remove = h("button", { type: "button", class: "quiet", "aria-label": `Take ${name} out of the mixture`, onclick: () => unmix(at) }, "Remove");
  return h("li", { class: "row" }, h("span", { class: "grow" }, name), h("div", { class: "inline-field" }, h("label", { for: id }, "Share"), input), removable ? remove : null);
}

/** All shares, as soon as there is one; a set without gets 1. */
function readShares(event: Event): void {
  const list = (event.target as HTMLElement).closest("ul");
  const given = [...(list?.querySelectorAll("input") ?? [])].map((input) => input.valueAsNumber);
  const some = given.some((share) => Number.isFinite(share));
  setSetting("dataWeights", some ? given.map((share) => (Number.isFinite(share) ? share : 1)) : undefined);
}
