/** Part of section 6: an adapter changed, link by link, by another one, or in rank. */

import type { Link } from "weblora";
import { cutRanks, dropLinks, joinWith, linksOf, saveIt, saveLinks, type Editable } from "../actions/change";
import { knownAdapters } from "../actions/trial";
import { hasExperts } from "../lib/archive";
import { fill, h, setDisabled, setText, show, uniqueId } from "../lib/dom";
import { parameters, plural } from "../lib/format";
import type { Problem } from "../lib/problem";
import { get, watch } from "../state";
import { problemBox } from "./parts";

/** What a button comes to: a sentence about a new adapter, what went wrong, or nothing to tell. */
type Outcome = string | Problem | null;

const EMPTY = "Takes links out of a chain, adds adapters up, cuts ranks, once there is an adapter.";
const TRAINING = "The adapter is still in training; its files come when the run has ended.";
const ROUTED = "Routers choose experts for every token, so a MixLoRA adapter is no update of the weights: it can be neither joined nor cut.";
const READY = "Exact, from the factors; the result is offered under “Try it” as another adapter.";

/** The adapters whose files are at hand. */
const editables = (): Editable[] => knownAdapters().flatMap(({ files, ...known }) => (files && !hasExperts(files) ? [{ ...known, files }] : []));

/** Whether the one under "Try it" is there and has experts. */
const isRouted = (): boolean => knownAdapters().some(({ id, files }) => id === get().trial.adapter && files !== null && hasExperts(files));

/** The one of them that is chosen under "Try it". */
const chosen = (): Editable | null => editables().find(({ id }) => id === get().trial.adapter) ?? null;

/** The block. */
export function changeAdapter(): HTMLElement {
  const hint = h("p", { class: "muted" });
  const told = h("p", { class: "small", role: "status" });
  const problem = problemBox();
  const links = linkList();
  const other = h("select", { id: uniqueId("join") });
  const weight = numberField("1", "any");
  const rank = numberField("4", "1");
  let busy = false;

  const action = (label: string, act: (from: Editable) => Promise<Outcome>) =>
    h("button", { type: "button", onclick: () => void run(act) }, label);
  const keep = action("Keep the ticked links", (from) => dropLinks(from, links.unticked(), links.ticked()));
  const split = action("Save each link (.zip)", saveLinks);
  const join = action("Join", async (from) => {
    const to = editables().find(({ id }) => id === other.value);
    return to ? joinWith(from, to, weight.valueAsNumber) : null;
  });
  const cut = action("Cut ranks", (from) => cutRanks(from, rank.valueAsNumber));
  const save = action("Save this adapter (.zip)", saveIt);

  const chain = h("div", { hidden: true }, links.root, h("div", { class: "row" }, keep, split));
  const joining = h("div", { class: "row" }, field("Join with", other), field("times", weight), join);
  const cutting = h("div", { class: "row" }, field("Largest rank", rank), cut);
  const tools = h("div", { class: "stack", hidden: true }, chain, joining, cutting, h("div", { class: "row" }, save));
  const root = h("details", { class: "more change" }, h("summary", {}, "Change the adapter"), hint, tools, told, problem.root);

  async function run(act: (from: Editable) => Promise<Outcome>): Promise<void> {
    const from = chosen();
    if (!from) return;
    busy = true;
    enable();
    const outcome = await act(from);
    busy = false;
    enable();
    setText(told, typeof outcome === "string" ? outcome : "");
    problem.set(typeof outcome === "string" ? null : outcome);
  }

  function enable(): void {
    for (const button of [split, cut, save]) setDisabled(button, busy || (button === cut && !(rank.valueAsNumber >= 1)));
    setDisabled(join, busy || !(Math.abs(weight.valueAsNumber) > 0));
    setDisabled(keep, busy || links.ticked().length === 0 || links.unticked().length === 0, "Tick the links that stay, and leave out one at least");
  }

  let shown: Editable["files"] | null = null;
  async function showLinks(from: Editable): Promise<void> {
    if (shown === from.files) return;
    shown = from.files;
    show(chain, false);
    const found = await linksOf(from);
    if (shown !== from.files) return;
    const list = "problem" in found ? [] : found;
    if ("problem" in found) problem.set(found.problem);
    links.set(list);
    show(chain, list.length > 0);
    enable();
  }

  let offered = "";
  function refresh(): void {
    if (!root.open) return;
    const from = chosen();
    const others = editables().filter(({ id }) => id !== from?.id);
    const options = JSON.stringify(others.map(({ id, name }) => [id, name]));
    if (options !== offered) fill(other, ...others.map(({ id, name }) => h("option", { value: id }, name)));
    offered = options;
    setText(hint, from ? READY : get().trial.adapter === "" ? EMPTY : isRouted() ? ROUTED : TRAINING);
    show(tools, from !== null);
    show(joining, others.length > 0);
    if (from) void showLinks(from);
    enable();
  }
  root.addEventListener("input", enable);
  root.addEventListener("toggle", refresh);
  watch(["runs", "trial"], refresh);
  return root;
}

const numberField = (value: string, step: string): HTMLInputElement => h("input", { type: "number", value, step, id: uniqueId("number"), class: "short" });

const field = (text: string, control: HTMLElement): HTMLElement => h("div", { class: "inline-field" }, h("label", { for: control.id }, text), control);

/** The links of a chain, all ticked at first. */
function linkList(): { root: HTMLElement; set(links: Link[]): void; ticked(): number[]; unticked(): number[] } {
  const root = h("ul", { class: "links", "aria-label": "Links of the chain" });
  let boxes: HTMLInputElement[] = [];
  const where = (ticked: boolean) => boxes.flatMap((box, i) => (box.checked === ticked ? [i] : []));
  const item = ({ rank, steps, sites, parameters: numbers }: Link, i: number) => {
    const box = h("input", { type: "checkbox", checked: true });
    const text = `Link ${i + 1}: rank ${rank}, ${plural(steps, "step")}, ${plural(sites, "layer")}, ${parameters(numbers)} numbers`;
    return { box, root: h("li", {}, h("label", { class: "check" }, box, h("span", {}, text))) };
  };
  return {
    root,
    set: (links) => {
      const items = links.map(item);
      boxes = items.map(({ box }) => box);
      fill(root, ...items.map((each) => each.root));
    },
    ticked: () => where(true),
    unticked: () => where(false),
  };
}
