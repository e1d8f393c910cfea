/** Rows token by token: what is trained stands out, in colour and underlined. */

import type { RowPreview } from "weblora";
import { fill, h, setText, show } from "../lib/dom";
import { count, plural } from "../lib/format";
import { get, watch } from "../state";

/** The preview with its pager. */
export function previewView(): HTMLElement {
  let at = 0;
  let name = "";
  const tokens = h("div", { class: "tokens", tabindex: 0, role: "region", "aria-label": "Row as the model reads it" });
  const position = h("p", { class: "small", "aria-live": "off" });
  const notes = h("ul", { class: "muted small", "aria-label": "What was done to this row", hidden: true });
  const previous = h("button", { type: "button", class: "quiet", "aria-label": "Previous row", onclick: () => move(-1) }, "←");
  const next = h("button", { type: "button", class: "quiet", "aria-label": "Next row", onclick: () => move(1) }, "→");
  const key = h("p", { class: "muted small" }, h("span", { class: "token trained" }, "trained"), " tokens count in the loss; the rest is only read.");
  const root = h("figure", { class: "preview", hidden: true }, h("figcaption", { class: "preview-head" }, position, h("div", { class: "row" }, previous, next)), tokens, notes, key);
  const idle = h("p", { class: "muted small", hidden: true }, "Load a base to see the rows as it will read them.");
  let drawn: RowPreview[] | null = null;

  const draw = () => {
    const { preview, total } = get().rows;
    const row = preview[at];
    if (!row) return;
    const trained = row.tokens.filter((token) => token.trained).length;
    setText(position, `Row ${count(row.index)} of ${count(total)}: ${plural(row.tokens.length, "token")}, ${count(trained)} trained${row.truncated ? ", cut" : ""}`);
    fill(tokens, ...row.tokens.map(token));
    fill(notes, ...(row.notes ?? []).map((note) => h("li", {}, note)));
    show(notes, (row.notes ?? []).length > 0);
    previous.disabled = at === 0;
    next.disabled = at >= preview.length - 1;
  };
  const move = (by: number) => {
    at = Math.min(Math.max(0, at + by), get().rows.preview.length - 1);
    draw();
  };
  watch(["rows", "base"], () => {
    const { preview, train, status, trainName } = get().rows;
    show(root, preview.length > 0);
    show(idle, train !== null && preview.length === 0 && get().base.status === "none" && status !== "failed");
    if (preview === drawn) return;
    drawn = preview;
    if (preview.length === 0) return;
    // Where rows are being edited, the one that is looked at stays.
    at = trainName === name ? Math.min(at, preview.length - 1) : 0;
    name = trainName;
    draw();
  });
  return h("div", {}, root, idle);
}

/** One token. Its spaces and line breaks are visible, since the model sees them. */
function token({ text, trained, control }: RowPreview["tokens"][number]): HTMLElement {
  return h("span", { class: `token${trained ? " trained" : ""}${control ? " control" : ""}` }, text.replace(/\n/g, "⏎\n").replace(/\t/g, "⇥"));
}
