/** A table of settings like the crate's. */

import type * as T from "../../package/src/types";

export const METHODS: T.MethodInfo[] = [
  { name: "lora", help: "one low-rank product B A at every target" },
  { name: "cola", help: "a chain of low-rank products, trained one after the other" },
  { name: "multilora", help: "several low-rank products side by side" },
  { name: "mixlora", help: "a router and LoRA experts on the feed-forward layers, plain LoRA on attention" },
  { name: "mixlora-dynamic", help: "MixLoRA in which a token gets as many experts as its router is undecided (top-p)" },
  { name: "mixlora-switch", help: "MixLoRA with one expert a token and a capacity for each (Switch)" },
];

const ROWS: Omit<T.Setting, "name">[] = [
  { key: "method", kind: "choice", default: "lora", help: "How the adapter is made", choices: METHODS.map(({ name }) => name) },
  { key: "rank", kind: "count", default: 8, help: "Rank of every site that no pattern covers", min: 1, max: 4096 },
  { key: "alpha", kind: "number", default: null, help: "Numerator of the scale; twice the rank when not given" },
  { key: "targets", kind: "names", default: ["q", "k", "v", "o", "gate", "up", "down"], help: "Layers to adapt", choices: ["q", "k", "v", "o", "gate", "up", "down"] },
  { key: "rankPattern", kind: "patterns", default: null, help: "Another rank for the layers that a name or regular expression covers" },
  { key: "dropout", kind: "number", default: 0, help: "Probability that an element of an adapter's input is dropped", min: 0, max: 1 },
  { key: "rslora", kind: "switch", default: false, help: "Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA)", method: "lora" },
  { key: "loraPlus", kind: "number", default: 1, help: "Learning rate of B as a multiple of A's (LoRA+; its authors use 16)", method: "lora", min: 0.001, max: 10000 },
  { key: "links", kind: "counts", default: [8, 4, 2], help: "Ranks of the links of the chain", method: "cola" },
  { key: "modules", kind: "count", default: 3, help: "Parallel modules", method: "multilora", min: 1, max: 64 },
  { key: "experts", kind: "count", default: 8, help: "Experts in each block", method: "mixlora", min: 2, max: 64 },
  { key: "topK", kind: "count", default: 2, help: "Experts that a token gets", method: "mixlora", min: 1, max: 64 },
  { key: "auxCoef", kind: "number", default: 0.01, help: "Coefficient of the loss that balances the experts", method: "mixlora", min: 0, max: 1000 },
  { key: "dataWeights", kind: "numbers", default: null, help: "Share of each data file in an epoch" },
  { key: "steps", kind: "count", default: null, help: "Optimizer steps", min: 1 },
  { key: "epochs", kind: "count", default: null, help: "Passes over the data", min: 1 },
  { key: "batch", kind: "count", default: 4, help: "Sequences in a micro-batch", min: 1 },
  { key: "batchRows", kind: "count", default: null, help: "Most rows in a micro-batch", min: 1 },
  { key: "seq", kind: "count", default: 512, help: "Longest row in tokens", min: 2 },
  { key: "gradAccum", kind: "count", default: 1, help: "Micro-batches of one optimizer step", min: 1 },
  { key: "lr", kind: "number", default: 0.0005, help: "Peak learning rate" },
  { key: "schedule", kind: "choice", default: "linear", help: "What the rate does after the warm-up", choices: ["constant", "linear", "cosine"] },
  { key: "warmup", kind: "number", default: 0.03, help: "Steps of warm-up, or a share of all steps below 1" },
  { key: "clip", kind: "number", default: 1, help: "Largest norm of the gradients; 0 clips nothing" },
  { key: "seed", kind: "count", default: 0, help: "Seed of everything random", min: 0 },
  { key: "shuffle", kind: "switch", default: true, help: "Shuffle the rows anew in every epoch" },
  { key: "recompute", kind: "switch", default: true, help: "Compute a block's activations again in the backward pass" },
  { key: "evalSplit", kind: "number", default: 0, help: "Share of the rows held out", min: 0, max: 1 },
  { key: "evalEvery", kind: "count", default: 0, help: "Steps between evaluations", min: 0 },
  { key: "patience", kind: "count", default: 0, help: "Evaluations without a lower loss after which the run ends", min: 0 },
  { key: "saveEvery", kind: "count", default: 100, help: "Steps between checkpoints", min: 0 },
];

export const SETTINGS: T.Setting[] = ROWS.map((row) => ({ ...row, name: row.key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) }));

/** Settings with the defaults filled in. */
export function defaults(settings: T.Settings): T.Settings {
  const known = Object.fromEntries(SETTINGS.filter((row) => row.default !== null).map((row) => [row.key, row.default]));
  const all = { ...known, ...settings };
  if (settings["steps"]) delete all["epochs"];
  return all;
}
