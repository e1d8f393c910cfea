/** Settings as the form has them, by the package's names; files and checkpoints have those of the command line. */

import type { Settings } from "weblora";

/** Whatever was typed: the crate says what is wrong with it. */
export type FormSettings = Record<string, unknown>;

/** `eval-every` to `evalEvery`. */
export const camel = (key: string): string => key.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase());

/** `evalEvery` to `eval-every`. */
export const dashed = (key: string): string => key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

const renamed = (settings: object, name: (key: string) => string): FormSettings => Object.fromEntries(Object.entries(settings).map(([key, value]) => [name(key), value as unknown]));

/** Settings out of a run file, a checkpoint or a link. */
export const fromFile = (settings: object): FormSettings => renamed(settings, camel);

/** Settings for a run file. */
export const toFile = (settings: object): FormSettings => renamed(settings, dashed);

/** Settings that the package gave. */
export const asForm = (settings: Settings): FormSettings => ({ ...settings }) as FormSettings;
