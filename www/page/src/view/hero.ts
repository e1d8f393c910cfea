/** What a first visit sees: what this is, and one button. */

import { startDemo } from "../actions/run";
import { h, show } from "../lib/dom";
import { get, watch } from "../state";

/** The opening; gone as soon as something is loaded. */
export function hero(): HTMLElement {
  const button = h("button", { type: "button", class: "primary large", onclick: () => void startDemo() }, "Run the demo");
  const root = h(
    "section",
    { class: "hero", "aria-labelledby": "hero-title" },
    h("h2", { id: "hero-title", class: "title" }, "Teach a small language model something new, in this tab."),
    h("p", { class: "lead" }, "Your GPU does the work. The model, your rows and the adapter stay on this machine."),
    h("div", { class: "row" }, button, h("p", { class: "muted small" }, "1 M parameters, 480 rows, 60 steps: it learns what “swap” means. Nothing is downloaded. Or choose your own below.")),
  );
  watch(["base", "runs"], () => {
    const { status } = get().base;
    show(root, status === "none" && get().runs.list.length === 0);
  });
  return root;
}
