/** FormSettings in an address: the part after #, which is sent to no server. */

import { fromFile, type FormSettings } from "../lib/settings";
import { get, runSettings, update, watch } from "../state";
import { takeSettings } from "./form";

const KEY = "settings=";

/** Copies the address of this page with the form's settings; what to tell of it. */
export async function copyLink(): Promise<string> {
  const link = `${location.origin}${location.pathname}#${KEY}${encodeURIComponent(JSON.stringify(runSettings()))}`;
  try {
    await navigator.clipboard.writeText(link);
    return "Copied.";
  } catch {
    return link;
  }
}

/** Takes the settings of the address, once a base is there to show them for. */
export function takeLinked(): void {
  const hash = location.hash.slice(1);
  if (!hash.startsWith(KEY)) return;
  const settings = read(hash.slice(KEY.length));
  if (!settings) return void update("notice", { kind: "error", text: "The settings in this address cannot be read; ask for the link again.", detail: [] });
  let taken = false;
  update("notice", { kind: "info", text: "This link brings settings; they are used when a base is loaded.", detail: [] });
  watch(["form"], () => {
    if (taken || get().form.table.length === 0 || get().base.status !== "ready") return;
    taken = true;
    void takeSettings(settings);
  });
}

function read(text: string): FormSettings | null {
  try {
    const found: unknown = JSON.parse(decodeURIComponent(text));
    return typeof found === "object" && found !== null && !Array.isArray(found) ? fromFile(found) : null;
  } catch {
    return null;
  }
}
