/** Settings to start from. A recipe names only what differs from the crate's defaults, which stay in the crate. */

import type { FormSettings } from "../lib/settings";

export interface Recipe {
  id: string;
  name: string;
  help: string;
  /** "demo": the crate says how. */
  settings: FormSettings | "demo";
}

const FEW: FormSettings = { rank: 8, steps: 100, batchRows: 8, lr: 5e-3, warmup: 5 };

export const RECIPES: Recipe[] = [
  {
    id: "demo",
    name: "Demo",
    help: "As tuned for the built-in model and its rows: 60 short steps.",
    settings: "demo",
  },
  { id: "look", name: "Quick look", help: "20 steps on the attention's q and v only: does it fit, how fast is it?", settings: { rank: 4, targets: ["q", "v"], steps: 20, batch: 2, seq: 256 } },
  { id: "balanced", name: "Balanced", help: "Rank 8 on all seven projections, one pass over the rows, more where they are few. A sound first run.", settings: { rank: 8, seq: 512, evalSplit: 0.05 } },
  {
    id: "thorough",
    name: "Thorough",
    help: "Rank 16, three passes, dropout, held-out loss every 50 steps; ends when it stops falling.",
    settings: { rank: 16, epochs: 3, seq: 512, lr: 3e-4, schedule: "cosine", dropout: 0.05, evalSplit: 0.1, evalEvery: 50, patience: 3 },
  },
  { id: "few", name: "A few rows", help: "For ten or twenty rows, to be known by heart: 100 steps of at most eight of them.", settings: FEW },
  { id: "defaults", name: "Defaults", help: "The crate's own defaults, nothing changed.", settings: {} },
];

/** The settings most people look at. All others are folded away; which ones exist is the crate's table, not this list. */
export const FOREMOST = ["rank", "lr", "steps", "epochs", "batchRows", "batch", "seq", "targets"];
