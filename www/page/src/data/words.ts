/** Settings and methods in words. The crate's own names stand beside them: run files and events use those. */

/** What people call a setting. */
export const LABELS: Record<string, string> = {
  rank: "Rank: size of the adapter",
  alpha: "Strength",
  lr: "Learning rate",
  steps: "Steps",
  epochs: "Passes over the rows",
  batch: "Rows packed a step",
  batchRows: "Most rows a step",
  gradAccum: "Batches a step",
  seq: "Longest row, in tokens",
  targets: "Layers that learn",
  dropout: "Dropout",
  schedule: "Course of the rate",
  warmup: "Warm-up",
  clip: "Largest gradient",
  seed: "Seed",
  shuffle: "Shuffle the rows",
  recompute: "Save memory, take longer",
  evalEvery: "Look at held-out rows every … steps",
  evalSplit: "Share of rows held out",
  patience: "End after … looks without progress",
  saveEvery: "Save every … steps",
  links: "Ranks of the links",
  modules: "Modules",
  rslora: "Scale for large ranks (rsLoRA)",
  loraPlus: "Faster B (LoRA+)",
  weightDecay: "Weight decay",
  format: "How rows are read",
  chatTemplate: "Chat template",
  experts: "Experts in each layer",
  topK: "Experts for a token",
  topP: "Certainty until which a token gets experts",
  expertCapacity: "Most tokens of a row for one expert",
  auxCoef: "Weight of the balance between experts",
  zCoef: "Weight of keeping routers calm",
  balance: "What is balanced",
  jitter: "Noise for routers",
  expertRank: "Rank of the experts",
  expertAlpha: "Strength of the experts",
  expertDropout: "Dropout of the experts",
  routerTemperature: "Temperature of the routers",
  renormalize: "Weights sum to one",
  dataWeights: "Shares of the sets",
  dataTemperature: "Evenness of the sets",
};

/** A method: its name, when to take it, and the settings that are shown first. */
export interface MethodWords {
  name: string;
  when: string;
  first: string[];
}

const USUAL: MethodWords = { name: "LoRA", when: "The usual choice: one small product beside every layer. Begin here.", first: ["rank", "lr", "steps"] };

export const METHODS: Record<string, MethodWords> = {
  lora: USUAL,
  cola: { name: "Chain of LoRA (CoLA)", when: "When LoRA of a small rank stops improving: it is frozen and another is trained on top, as often as wished.", first: ["links", "lr", "steps"] },
  multilora: { name: "MultiLoRA", when: "When rows of several tasks are mixed: parallel modules share the work more evenly. On one task LoRA does as well.", first: ["modules", "lr", "steps"] },
  mixlora: { name: "MixLoRA", when: "When tasks differ a lot: experts in the feed-forward layers, and a router that chooses two of them for every token. On our own mixture no better than LoRA; only this program and its authors' read it.", first: ["experts", "lr", "steps"] },
  "mixlora-dynamic": { name: "MixLoRA, as many experts as needed", when: "Where some tokens are harder than others: each gets experts until the router is certain enough (top-p). The loss begins higher than the base's.", first: ["experts", "lr", "steps"] },
  "mixlora-switch": { name: "MixLoRA, one expert a token", when: "Where experts should stay apart: each token gets one expert, each expert a limited number of tokens (Switch). The loss begins higher than the base's.", first: ["experts", "lr", "steps"] },
};

/** Whether a method trains routers and experts: its adapters are no update of the weights. */
export const isRouted = (method: unknown): boolean => String(method).startsWith("mixlora");

/** A method in words; the crate's name where nothing is known. */
export const methodWords = (method: string): MethodWords => METHODS[method] ?? { ...USUAL, name: method, when: "" };
