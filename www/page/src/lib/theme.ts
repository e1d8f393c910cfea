/** Light or dark: the system's choice until the user makes one. */

export type Theme = "system" | "light" | "dark";

const KEY = "weblora.theme";
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set<() => void>();

/** What the user chose. */
export function theme(): Theme {
  const saved = readPreference(KEY);
  return saved === "light" || saved === "dark" ? saved : "system";
}

/** Whether the page is dark now. */
export const isDark = (): boolean => (theme() === "system" ? dark.matches : theme() === "dark");

/** Takes a choice and remembers it. */
export function setTheme(choice: Theme): void {
  writePreference(KEY, choice === "system" ? null : choice);
  apply();
}

/** Runs `listener` whenever the colours change; canvases must be drawn again then. */
export function onThemeChange(listener: () => void): void {
  listeners.add(listener);
}

/** Puts the choice into effect; once at the start. */
export function apply(): void {
  const choice = theme();
  if (choice === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = choice;
  for (const listener of listeners) listener();
}

dark.addEventListener("change", apply);

/** A small preference, or `null` where storage is denied. */
export function readPreference(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Remembers a small preference where storage is allowed; `null` forgets it. */
export function writePreference(key: string, value: string | null): void {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
  } catch {
    // Private mode: the choice lasts as long as the page.
  }
}
