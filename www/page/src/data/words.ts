/** Settings and methods in words. The crate's own names stand beside them: run files and events use those. */

/** What people call a setting. */
export const LABELS: Record<string, string> = {
  rank: "Rank: size of the adapter",
  alpha: "Strength",
  lr: "Learning rate",
  steps: "Steps",
  epochs: "Passes over the rows",
  batch: "Rows packed a step",
  "batch-rows": "Most rows a step",
  "grad-accum": "Batches a step",
  seq: "Longest row, in tokens",
  targets: "Layers that learn",
  dropout: "Dropout",
  schedule: "Course of the rate",
  warmup: "Warm-up",
  clip: "Largest gradient",
  seed: "Seed",
  shuffle: "Shuffle the rows",
  recompute: "Save memory, take longer",
  "eval-every": "Look at held-out rows every … steps",
  "eval-split": "Share of rows held out",
  patience: "End after … looks without progress",
  "save-every": "Save every … steps",
  links: "Ranks of the links",
  modules: "Modules",
  rslora: "Scale for large ranks (rsLoRA)",
  "lora-plus": "Faster B (LoRA+)",
  "weight-decay": "Weight decay",
  format: "How rows are read",
  "chat-template": "Chat template",
  experts: "Experts in each layer",
  "top-k": "Experts for a token",
  "top-p": "Certainty until which a token gets experts",
  "expert-capacity": "Most tokens of a row for one expert",
  "aux-coef": "Weight of the balance between experts",
  "z-coef": "Weight of keeping routers calm",
  balance: "What is balanced",
  jitter: "Noise for routers",
  "expert-rank": "Rank of the experts",
  "expert-alpha": "Strength of the experts",
  "expert-dropout": "Dropout of the experts",
  "router-temperature": "Temperature of the routers",
  renormalize: "Weights sum to one",
  "data-weights": "Shares of the sets",
  "data-temperature": "Evenness of the sets",
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
  mixlora: { name: "MixLoRA", when: "When tasks differ a lot: experts in the feed-forward layers, and a router that chooses two of them for every token. Takes the most memory; only this program and its authors' read it.", first: ["experts", "lr", "steps"] },
  "mixlora-dynamic": { name: "MixLoRA, as many experts as needed", when: "Where some tokens are harder than others: each gets experts until the router is certain enough (top-p). The loss begins higher than the base's.", first: ["experts", "lr", "steps"] },
  "mixlora-switch": { name: "MixLoRA, one expert a token", when: "Where experts should stay apart: each token gets one expert, each expert a limited number of tokens (Switch). The loss begins higher than the base's.", first: ["experts", "lr", "steps"] },
};

/** Whether a method trains routers and experts: its adapters are no update of the weights. */
export const isRouted = (method: unknown): boolean => String(method).startsWith("mixlora");

/** A method in words; the crate's name where nothing is known. */
export const methodWords = (method: string): MethodWords => METHODS[method] ?? { ...USUAL, name: method, when: "" };
