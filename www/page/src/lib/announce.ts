/** What a screen reader is told: milestones only, politely; errors at once. */

import { h } from "./dom";

const polite = h("div", { class: "visually-hidden", role: "status", "aria-live": "polite" });
const assertive = h("div", { class: "visually-hidden", role: "alert", "aria-live": "assertive" });

/** Puts the two live regions into the page; before the first announcement. */
export function mountAnnouncer(parent: Element): void {
  parent.append(polite, assertive);
}

/** Tells a milestone. */
export function announce(text: string): void {
  polite.textContent = text;
}

/** Tells an error. */
export function alertUser(text: string): void {
  assertive.textContent = text;
}
