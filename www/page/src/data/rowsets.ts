/** Rows that come with the page, to try a run before bringing one's own. */

import type { Rows } from "weblora";
import type { FormSettings } from "../lib/settings";

export interface RowSet {
  id: string;
  name: string;
  help: string;
  /** What it is learned well with, on the built-in model. */
  settings?: FormSettings;
  train: () => Promise<Rows>;
  heldOut: () => Promise<Rows | null>;
}

const load = async (file: string, name: string): Promise<Rows> => {
  const answer = await fetch(new URL(file, document.baseURI));
  if (!answer.ok) throw new Error(`${name} could not be loaded (${answer.status}); reload the page.`);
  return { text: await answer.text(), name };
};

export const ROW_SETS: RowSet[] = [
  {
    id: "swap",
    name: "swap · 480 rows, 64 held out",
    help: "Two people swap what they hold. The built-in model has never read the word: the demo's task.",
    train: async () => ({ embedded: "train" }),
    heldOut: async () => ({ embedded: "heldout" }),
  },
  {
    id: "turn",
    name: "turn · 384 rows, 48 held out",
    help: "Move the first word of a list to its end. For the built-in model; about 150 steps at a learning rate of 5e-3.",
    settings: { steps: 150, lr: 5e-3 },
    train: () => load("rows/turn.jsonl", "turn"),
    heldOut: () => load("rows/turn-heldout.jsonl", "turn, held out"),
  },
  {
    id: "kel",
    name: "kel · 48 rows",
    help: "Words of an invented language to learn by heart. For the built-in model; about 150 steps at 5e-3.",
    settings: { steps: 150, lr: 5e-3 },
    train: () => load("rows/kel.jsonl", "kel"),
    heldOut: async () => null,
  },
  {
    id: "wren",
    name: "wren · 40 chat rows",
    help: "A small character who keeps a lighthouse. For chat models such as SmolLM2.",
    train: () => load("rows/wren.jsonl", "wren"),
    heldOut: async () => null,
  },
];
