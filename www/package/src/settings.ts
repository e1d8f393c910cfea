// Made by scripts/settings.mjs from the crate's table of settings; not to be edited.

/** Settings of other methods. */
type Without<K extends string> = { [P in K]?: never };

/** What a run of any method takes. All of it may be left out. */
export interface CommonSettings {
  /** What events and files call the run; default "main". */
  name?: string;
  /** Rank of the adapter; default 8; at least 1, at most 4096. */
  rank?: number;
  /** Numerator of the scale alpha / rank; twice the rank when not given; at least 0. */
  alpha?: number;
  /** Layers to adapt: q, k, v, o, gate, up, down, or a module path; default ["q","k","v","o","gate","up","down"]. */
  targets?: string[];
  /** Another rank for the layers that a name or regular expression covers. */
  rankPattern?: Record<string, number>;
  /** @deprecated The name of before: `rankPattern`. */
  "rank-pattern"?: Record<string, number>;
  /** Another alpha for the layers that a name or regular expression covers. */
  alphaPattern?: Record<string, number>;
  /** @deprecated The name of before: `alphaPattern`. */
  "alpha-pattern"?: Record<string, number>;
  /** Probability that an element of an adapter's input is dropped; default 0; at least 0, at most 1. */
  dropout?: number;
  /** Train the weights of all norms too, as LongLoRA does; without weight decay; default false. */
  trainNorms?: boolean;
  /** @deprecated The name of before: `trainNorms`. */
  "train-norms"?: boolean;
  /** Train the embeddings of the rows' tokens too; a tied head stays the base's; without weight decay; default false. */
  trainEmbeddings?: boolean;
  /** @deprecated The name of before: `trainEmbeddings`. */
  "train-embeddings"?: boolean;
  /** Optimizer steps; excludes epochs; at least 1. */
  steps?: number;
  /** Passes over the rows; without it and without steps one, or more where the rows are few: at least 60 steps; at least 1. */
  epochs?: number;
  /** Sequences in a micro-batch: batch x seq tokens, which short rows share; batch-rows where that is given; default 4; at least 1, at most 16777216. */
  batch?: number;
  /** Most rows in a micro-batch: what other trainers call the batch size; without it as many as fit; at least 1, at most 16777216. */
  batchRows?: number;
  /** @deprecated The name of before: `batchRows`. */
  "batch-rows"?: number;
  /** Longest row in tokens; context where that is given; default 512; at least 2, at most 16777216. */
  seq?: number;
  /** Tokens that the model is to read after the run; seq where that is not given; at least 2, at most 16777216. */
  context?: number;
  /** Shifted sparse attention: rows of a group, an even number; full attention when not given; at least 2, at most 16777216. */
  group?: number;
  /** Shifted sparse attention: rows of a group as a share of seq; at least 0, at most 1. */
  groupRatio?: number;
  /** @deprecated The name of before: `groupRatio`. */
  "group-ratio"?: number;
  /** How rotary angles are stretched where the context is longer than the model's; as the model's are, else linearly, when not given. */
  ropeScaling?: "linear" | "dynamic" | "llama3" | "yarn";
  /** @deprecated The name of before: `ropeScaling`. */
  "rope-scaling"?: "linear" | "dynamic" | "llama3" | "yarn";
  /** Positions of training rows: their own, or skipped ones that spread short rows over the context (PoSE); default "row". */
  positions?: "row" | "pose";
  /** Evaluations tell the loss under the groups, too; without it only that of full attention; default false. */
  evalGroup?: boolean;
  /** @deprecated The name of before: `evalGroup`. */
  "eval-group"?: boolean;
  /** Micro-batches of one optimizer step; default 1; at least 1, at most 65536. */
  gradAccum?: number;
  /** @deprecated The name of before: `gradAccum`. */
  "grad-accum"?: number;
  /** What is minimised: the loss of the trained tokens, or DPO's over rows with a chosen and a rejected answer; the former when not given. */
  loss?: "cross-entropy" | "dpo";
  /** DPO: how strongly answers are held to the reference's, the base without the adapter; 0.1 when not given; at least 0. */
  dpoBeta?: number;
  /** @deprecated The name of before: `dpoBeta`. */
  "dpo-beta"?: number;
  /** DPO: what answers are held to: the base without an adapter, or with the links that a chain goes on from; the former when not given. */
  dpoReference?: "base" | "start";
  /** @deprecated The name of before: `dpoReference`. */
  "dpo-reference"?: "base" | "start";
  /** DPO: share of pairs that are taken to be the wrong way round; 0 when not given; at least 0, at most 0.5. */
  dpoLabelSmoothing?: number;
  /** @deprecated The name of before: `dpoLabelSmoothing`. */
  "dpo-label-smoothing"?: number;
  /** Peak learning rate; default 0.0005; at least 0. */
  lr?: number;
  /** What the learning rate does after the warm-up; default "linear". */
  schedule?: "constant" | "linear" | "cosine";
  /** Steps of warm-up, or a share of all steps below 1; default 0.03; at least 0. */
  warmup?: number;
  /** Largest norm of the gradients; 0 clips nothing; default 1; at least 0. */
  clip?: number;
  /** AdamW's weight decay; default 0; at least 0. */
  weightDecay?: number;
  /** @deprecated The name of before: `weightDecay`. */
  "weight-decay"?: number;
  /** AdamW's decay of the first moment; default 0.9; at least 0, at most 1. */
  beta1?: number;
  /** AdamW's decay of the second moment; default 0.999; at least 0, at most 1. */
  beta2?: number;
  /** AdamW's epsilon; default 1e-8; at least 0. */
  eps?: number;
  /** Seed of everything random; default 0; at least 0. */
  seed?: number;
  /** Shuffle the rows anew in every epoch; default true. */
  shuffle?: boolean;
  /** Share of each set of rows in a pass; its number of rows when not given. */
  dataWeights?: number[];
  /** @deprecated The name of before: `dataWeights`. */
  "data-weights"?: number[];
  /** Shares of the sets of rows by size to the power 1 / T: 1 is by size, larger is more even; at least 0. */
  dataTemperature?: number;
  /** @deprecated The name of before: `dataTemperature`. */
  "data-temperature"?: number;
  /** How rows become text; default "auto". */
  format?: "auto" | "plain" | "chat" | "alpaca";
  /** Chat template: chatml, llama3, mistral, gemma, alpaca, or Jinja; the model's own when not given. */
  chatTemplate?: string;
  /** @deprecated The name of before: `chatTemplate`. */
  "chat-template"?: string;
  /** The day that chat templates take for today, as 2024-07-26; the day on which the run begins when not given. */
  date?: string;
  /** Write words of the assistant that the chat template leaves out; default false. */
  keepReasoning?: boolean;
  /** @deprecated The name of before: `keepReasoning`. */
  "keep-reasoning"?: boolean;
  /** Read control tokens in prompts and completions; text rows always do, messages never; default false. */
  parseSpecial?: boolean;
  /** @deprecated The name of before: `parseSpecial`. */
  "parse-special"?: boolean;
  /** Train on prompts too; default false. */
  trainOnPrompt?: boolean;
  /** @deprecated The name of before: `trainOnPrompt`. */
  "train-on-prompt"?: boolean;
  /** Rows longer than seq; join puts all rows end to end and cuts them into pieces of seq tokens; default "truncate". */
  overlong?: "truncate" | "refuse" | "join";
  /** Share of the rows to hold out when no held-out rows are given; default 0; at least 0, at most 1. */
  evalSplit?: number;
  /** @deprecated The name of before: `evalSplit`. */
  "eval-split"?: number;
  /** Steps between evaluations; 0 evaluates at the end only; default 0; at least 0. */
  evalEvery?: number;
  /** @deprecated The name of before: `evalEvery`. */
  "eval-every"?: number;
  /** Stop after this many evaluations without a lower loss; 0 never; default 0; at least 0. */
  patience?: number;
  /** Steps between checkpoints; 0 saves at the end and when interrupted only; default 100; at least 0. */
  saveEvery?: number;
  /** @deprecated The name of before: `saveEvery`. */
  "save-every"?: number;
  /** Refuse an initial adapter that was trained on another file of the base, instead of warning; default false. */
  strictBase?: boolean;
  /** @deprecated The name of before: `strictBase`. */
  "strict-base"?: boolean;
  /** Compute activations again in the backward pass instead of keeping them: on keeps each block's input, nested (two-level checkpointing) the inputs of some blocks, which is slower still; auto takes the first of off, on, nested that fits; default "auto". */
  recompute?: "auto" | "on" | "off" | "nested" | boolean;
  /** Most GPU memory that a run may plan, such as 2 GiB; without it activations are kept up to 2 GiB in all. */
  memory?: string;
}

/** one low-rank product B A at every target. */
export interface LoraSettings extends CommonSettings, Without<"links" | "linkAlphas" | "link-alphas" | "linkLrs" | "link-lrs" | "knots" | "linkSteps" | "link-steps" | "linkEpochs" | "link-epochs" | "knotPatience" | "knot-patience" | "knotGap" | "knot-gap" | "gapRadius" | "gap-radius" | "knotOptimizer" | "knot-optimizer" | "knotPrune" | "knot-prune" | "linkSchedule" | "link-schedule" | "linkWarmup" | "link-warmup" | "initA" | "init-a" | "chainMode" | "chain-mode" | "restartOnly" | "restart-only" | "knotProbes" | "knot-probes" | "linkStorage" | "link-storage" | "inheritedRanks" | "inherited-ranks" | "modules" | "scale" | "scaleLr" | "scale-lr" | "initB" | "init-b" | "initScale" | "init-scale" | "experts" | "topK" | "top-k" | "auxCoef" | "aux-coef" | "balance" | "jitter" | "expertRank" | "expert-rank" | "expertAlpha" | "expert-alpha" | "expertDropout" | "expert-dropout" | "topP" | "top-p" | "routerTemperature" | "router-temperature" | "renormalize" | "expertCapacity" | "expert-capacity" | "zCoef" | "z-coef"> {
  method?: "lora";
  /** Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA); default false. */
  rslora?: boolean;
  /** Learning rate of B as a multiple of A's (LoRA+; its authors use 16); default 1; at least 0.001, at most 10000. */
  loraPlus?: number;
  /** @deprecated The name of before: `loraPlus`. */
  "lora-plus"?: number;
}

/** a chain of LoRA: links trained one after the other, exact on a quantised base. */
export interface ColaSettings extends CommonSettings, Without<"modules" | "scale" | "scaleLr" | "scale-lr" | "initB" | "init-b" | "initScale" | "init-scale" | "experts" | "topK" | "top-k" | "auxCoef" | "aux-coef" | "balance" | "jitter" | "expertRank" | "expert-rank" | "expertAlpha" | "expert-alpha" | "expertDropout" | "expert-dropout" | "topP" | "top-p" | "routerTemperature" | "router-temperature" | "renormalize" | "expertCapacity" | "expert-capacity" | "zCoef" | "z-coef"> {
  method: "cola";
  /** Ranks of the links, oldest first; without it one of --rank for each knot and one more, or three; default []. */
  links?: number[];
  /** Alphas of the links; without it all links have the scale of the first; default []. */
  linkAlphas?: number[];
  /** @deprecated The name of before: `linkAlphas`. */
  "link-alphas"?: number[];
  /** Peak learning rates of the links; without it --lr for all; default []. */
  linkLrs?: number[];
  /** @deprecated The name of before: `linkLrs`. */
  "link-lrs"?: number[];
  /** Steps after which a link ends; without it all links are equally long; default []. */
  knots?: number[];
  /** Steps of each link, instead of --knots and --steps; default []. */
  linkSteps?: number[];
  /** @deprecated The name of before: `linkSteps`. */
  "link-steps"?: number[];
  /** Passes over the data of each link, instead of --knots; default []. */
  linkEpochs?: number[];
  /** @deprecated The name of before: `linkEpochs`. */
  "link-epochs"?: number[];
  /** End a link early after this many evaluations without a lower held-out loss; 0 never; default 0; at least 0. */
  knotPatience?: number;
  /** @deprecated The name of before: `knotPatience`. */
  "knot-patience"?: number;
  /** End a link early when the Frank-Wolfe gap, measured every --eval-every steps, is below this share of the first one; 0 never; default 0; at least 0, at most 1. */
  knotGap?: number;
  /** @deprecated The name of before: `knotGap`. */
  "knot-gap"?: number;
  /** Nuclear norm per layer within which the gap looks for a better update; default 1; at least 0.000001, at most 1000000. */
  gapRadius?: number;
  /** @deprecated The name of before: `gapRadius`. */
  "gap-radius"?: number;
  /** AdamW at a knot: reset moments and step, keep them, or forget --knot-prune of the moments (the smallest, or at random); default "reset". */
  knotOptimizer?: "reset" | "keep" | "magnitude" | "random";
  /** @deprecated The name of before: `knotOptimizer`. */
  "knot-optimizer"?: "reset" | "keep" | "magnitude" | "random";
  /** Share of the moments that magnitude and random forget; default 0.9; at least 0, at most 1. */
  knotPrune?: number;
  /** @deprecated The name of before: `knotPrune`. */
  "knot-prune"?: number;
  /** Learning rate: --schedule anew for each link, once over the whole run, or that with a short warm-up after each knot; default "link". */
  linkSchedule?: "link" | "global" | "jagged";
  /** @deprecated The name of before: `linkSchedule`. */
  "link-schedule"?: "link" | "global" | "jagged";
  /** Steps of the jagged schedule's warm-up after a knot; default 10; at least 1. */
  linkWarmup?: number;
  /** @deprecated The name of before: `linkWarmup`. */
  "link-warmup"?: number;
  /** How a link's A starts: Kaiming-uniform, normal with deviation 1/rank, or the gradient's top right singular vectors; default "kaiming". */
  initA?: "kaiming" | "gaussian" | "grad-svd";
  /** @deprecated The name of before: `initA`. */
  "init-a"?: "kaiming" | "gaussian" | "grad-svd";
  /** cola trains A and B of a link, rac only B beside a random A; default "cola". */
  chainMode?: "cola" | "rac";
  /** @deprecated The name of before: `chainMode`. */
  "chain-mode"?: "cola" | "rac";
  /** A control: knots restart optimizer and rate, and the first link trains to the end; default false. */
  restartOnly?: boolean;
  /** @deprecated The name of before: `restartOnly`. */
  "restart-only"?: boolean;
  /** Power iterations on the gradient at a knot, two passes each, for the diagnostics and grad-svd; 0 for no diagnostics; default 2; at least 0, at most 64. */
  knotProbes?: number;
  /** @deprecated The name of before: `knotProbes`. */
  "knot-probes"?: number;
  /** How frozen links are kept: f32 is exact; f16 takes half the memory and rounds, by as much as logit_jump says at knots and at the start; default "f32". */
  linkStorage?: "f32" | "f16";
  /** @deprecated The name of before: `linkStorage`. */
  "link-storage"?: "f32" | "f16";
  /** Ranks of the frozen links that the chain goes on from; --init-adapter sets it; default []. */
  inheritedRanks?: number[];
  /** @deprecated The name of before: `inheritedRanks`. */
  "inherited-ranks"?: number[];
  /** Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA); default false. */
  rslora?: boolean;
  /** Learning rate of B as a multiple of A's (LoRA+; its authors use 16); default 1; at least 0.001, at most 10000. */
  loraPlus?: number;
  /** @deprecated The name of before: `loraPlus`. */
  "lora-plus"?: number;
}

/** several products side by side with learnable scales. */
export interface MultiloraSettings extends CommonSettings, Without<"loraPlus" | "lora-plus" | "links" | "linkAlphas" | "link-alphas" | "linkLrs" | "link-lrs" | "knots" | "linkSteps" | "link-steps" | "linkEpochs" | "link-epochs" | "knotPatience" | "knot-patience" | "knotGap" | "knot-gap" | "gapRadius" | "gap-radius" | "knotOptimizer" | "knot-optimizer" | "knotPrune" | "knot-prune" | "linkSchedule" | "link-schedule" | "linkWarmup" | "link-warmup" | "initA" | "init-a" | "chainMode" | "chain-mode" | "restartOnly" | "restart-only" | "knotProbes" | "knot-probes" | "linkStorage" | "link-storage" | "inheritedRanks" | "inherited-ranks" | "experts" | "topK" | "top-k" | "auxCoef" | "aux-coef" | "balance" | "jitter" | "expertRank" | "expert-rank" | "expertAlpha" | "expert-alpha" | "expertDropout" | "expert-dropout" | "topP" | "top-p" | "routerTemperature" | "router-temperature" | "renormalize" | "expertCapacity" | "expert-capacity" | "zCoef" | "z-coef"> {
  method: "multilora";
  /** Modules side by side at every target, each of --rank; default 3; at least 1, at most 64. */
  modules?: number;
  /** A module's learnable scale: one number per output feature, or one in all; default "out". */
  scale?: "out" | "scalar";
  /** Learning rate of the scales as a multiple of the factors'; default 10; at least 0.001, at most 10000. */
  scaleLr?: number;
  /** @deprecated The name of before: `scaleLr`. */
  "scale-lr"?: number;
  /** How B starts: kaiming with scales of zero, or zero with scales of one; default "kaiming". */
  initB?: "kaiming" | "zero";
  /** @deprecated The name of before: `initB`. */
  "init-b"?: "kaiming" | "zero";
  /** How scales start; auto is the one that fits --init-b; default "auto". */
  initScale?: "auto" | "zero" | "one";
  /** @deprecated The name of before: `initScale`. */
  "init-scale"?: "auto" | "zero" | "one";
  /** Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA); default false. */
  rslora?: boolean;
}

/** a router and LoRA experts on the feed-forward layers, plain LoRA on attention. */
export interface MixloraSettings extends CommonSettings, Without<"links" | "linkAlphas" | "link-alphas" | "linkLrs" | "link-lrs" | "knots" | "linkSteps" | "link-steps" | "linkEpochs" | "link-epochs" | "knotPatience" | "knot-patience" | "knotGap" | "knot-gap" | "gapRadius" | "gap-radius" | "knotOptimizer" | "knot-optimizer" | "knotPrune" | "knot-prune" | "linkSchedule" | "link-schedule" | "linkWarmup" | "link-warmup" | "initA" | "init-a" | "chainMode" | "chain-mode" | "restartOnly" | "restart-only" | "knotProbes" | "knot-probes" | "linkStorage" | "link-storage" | "inheritedRanks" | "inherited-ranks" | "modules" | "scale" | "scaleLr" | "scale-lr" | "initB" | "init-b" | "initScale" | "init-scale" | "topP" | "top-p" | "routerTemperature" | "router-temperature" | "renormalize" | "expertCapacity" | "expert-capacity" | "zCoef" | "z-coef"> {
  method: "mixlora";
  /** Experts in each block; default 8; at least 2, at most 64. */
  experts?: number;
  /** Experts that a token gets; default 2; at least 1, at most 64. */
  topK?: number;
  /** @deprecated The name of before: `topK`. */
  "top-k"?: number;
  /** Coefficient of the loss that balances the experts; default 0.01; at least 0, at most 1000. */
  auxCoef?: number;
  /** @deprecated The name of before: `auxCoef`. */
  "aux-coef"?: number;
  /** Balance each block by itself, or all blocks together as the authors' code does; default "per-layer". */
  balance?: "per-layer" | "concatenated";
  /** Multiply the input of router and experts by a random factor in 1 - jitter .. 1 + jitter; default 0; at least 0, at most 0.9. */
  jitter?: number;
  /** Rank of the experts; 0: as --rank; default 0; at least 0, at most 4096. */
  expertRank?: number;
  /** @deprecated The name of before: `expertRank`. */
  "expert-rank"?: number;
  /** Alpha of the experts; 0: as --alpha; default 0; at least 0, at most 1000000000. */
  expertAlpha?: number;
  /** @deprecated The name of before: `expertAlpha`. */
  "expert-alpha"?: number;
  /** Dropout of the experts' inputs; -1: as --dropout; default -1; at least -1, at most 0.99. */
  expertDropout?: number;
  /** @deprecated The name of before: `expertDropout`. */
  "expert-dropout"?: number;
  /** Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA); default false. */
  rslora?: boolean;
  /** Learning rate of B as a multiple of A's (LoRA+; its authors use 16); default 1; at least 0.001, at most 10000. */
  loraPlus?: number;
  /** @deprecated The name of before: `loraPlus`. */
  "lora-plus"?: number;
}

/** MixLoRA in which a token gets as many experts as its router is undecided (top-p). */
export interface MixloraDynamicSettings extends CommonSettings, Without<"links" | "linkAlphas" | "link-alphas" | "linkLrs" | "link-lrs" | "knots" | "linkSteps" | "link-steps" | "linkEpochs" | "link-epochs" | "knotPatience" | "knot-patience" | "knotGap" | "knot-gap" | "gapRadius" | "gap-radius" | "knotOptimizer" | "knot-optimizer" | "knotPrune" | "knot-prune" | "linkSchedule" | "link-schedule" | "linkWarmup" | "link-warmup" | "initA" | "init-a" | "chainMode" | "chain-mode" | "restartOnly" | "restart-only" | "knotProbes" | "knot-probes" | "linkStorage" | "link-storage" | "inheritedRanks" | "inherited-ranks" | "modules" | "scale" | "scaleLr" | "scale-lr" | "initB" | "init-b" | "initScale" | "init-scale" | "topK" | "top-k" | "expertCapacity" | "expert-capacity" | "zCoef" | "z-coef"> {
  method: "mixlora-dynamic";
  /** Experts in each block; default 8; at least 2, at most 64. */
  experts?: number;
  /** A token gets the most probable experts until their probabilities exceed this; default 0.8; at least 0.000001, at most 1. */
  topP?: number;
  /** @deprecated The name of before: `topP`. */
  "top-p"?: number;
  /** Divides the routers' probabilities (after the softmax, as the authors do); 0: not; default 0; at least 0, at most 1000. */
  routerTemperature?: number;
  /** @deprecated The name of before: `routerTemperature`. */
  "router-temperature"?: number;
  /** The weights of a token's experts sum to one, so that the run starts at the base model; the authors' do not; default false. */
  renormalize?: boolean;
  /** Coefficient of the loss that balances the experts; default 0.01; at least 0, at most 1000. */
  auxCoef?: number;
  /** @deprecated The name of before: `auxCoef`. */
  "aux-coef"?: number;
  /** Balance each block by itself, or all blocks together as the authors' code does; default "per-layer". */
  balance?: "per-layer" | "concatenated";
  /** Multiply the input of router and experts by a random factor in 1 - jitter .. 1 + jitter; default 0; at least 0, at most 0.9. */
  jitter?: number;
  /** Rank of the experts; 0: as --rank; default 0; at least 0, at most 4096. */
  expertRank?: number;
  /** @deprecated The name of before: `expertRank`. */
  "expert-rank"?: number;
  /** Alpha of the experts; 0: as --alpha; default 0; at least 0, at most 1000000000. */
  expertAlpha?: number;
  /** @deprecated The name of before: `expertAlpha`. */
  "expert-alpha"?: number;
  /** Dropout of the experts' inputs; -1: as --dropout; default -1; at least -1, at most 0.99. */
  expertDropout?: number;
  /** @deprecated The name of before: `expertDropout`. */
  "expert-dropout"?: number;
  /** Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA); default false. */
  rslora?: boolean;
  /** Learning rate of B as a multiple of A's (LoRA+; its authors use 16); default 1; at least 0.001, at most 10000. */
  loraPlus?: number;
  /** @deprecated The name of before: `loraPlus`. */
  "lora-plus"?: number;
}

/** MixLoRA with one expert a token and a capacity for each (Switch). */
export interface MixloraSwitchSettings extends CommonSettings, Without<"links" | "linkAlphas" | "link-alphas" | "linkLrs" | "link-lrs" | "knots" | "linkSteps" | "link-steps" | "linkEpochs" | "link-epochs" | "knotPatience" | "knot-patience" | "knotGap" | "knot-gap" | "gapRadius" | "gap-radius" | "knotOptimizer" | "knot-optimizer" | "knotPrune" | "knot-prune" | "linkSchedule" | "link-schedule" | "linkWarmup" | "link-warmup" | "initA" | "init-a" | "chainMode" | "chain-mode" | "restartOnly" | "restart-only" | "knotProbes" | "knot-probes" | "linkStorage" | "link-storage" | "inheritedRanks" | "inherited-ranks" | "modules" | "scale" | "scaleLr" | "scale-lr" | "initB" | "init-b" | "initScale" | "init-scale" | "topK" | "top-k" | "topP" | "top-p" | "routerTemperature" | "router-temperature" | "renormalize"> {
  method: "mixlora-switch";
  /** Experts in each block; default 8; at least 2, at most 64. */
  experts?: number;
  /** Tokens of a row that an expert takes in training; further ones skip the feed-forward layer; default 32; at least 1, at most 1048576. */
  expertCapacity?: number;
  /** @deprecated The name of before: `expertCapacity`. */
  "expert-capacity"?: number;
  /** Coefficient of the loss that balances the experts; default 0.01; at least 0, at most 1000. */
  auxCoef?: number;
  /** @deprecated The name of before: `auxCoef`. */
  "aux-coef"?: number;
  /** Coefficient of the loss that keeps the routers' logits small; default 0.001; at least 0, at most 1000. */
  zCoef?: number;
  /** @deprecated The name of before: `zCoef`. */
  "z-coef"?: number;
  /** Balance each block by itself, or all blocks together as the authors' code does; default "per-layer". */
  balance?: "per-layer" | "concatenated";
  /** Multiply the input of router and experts by a random factor in 1 - jitter .. 1 + jitter; default 0; at least 0, at most 0.9. */
  jitter?: number;
  /** Rank of the experts; 0: as --rank; default 0; at least 0, at most 4096. */
  expertRank?: number;
  /** @deprecated The name of before: `expertRank`. */
  "expert-rank"?: number;
  /** Alpha of the experts; 0: as --alpha; default 0; at least 0, at most 1000000000. */
  expertAlpha?: number;
  /** @deprecated The name of before: `expertAlpha`. */
  "expert-alpha"?: number;
  /** Dropout of the experts' inputs; -1: as --dropout; default -1; at least -1, at most 0.99. */
  expertDropout?: number;
  /** @deprecated The name of before: `expertDropout`. */
  "expert-dropout"?: number;
  /** Scale by alpha / sqrt(rank) instead of alpha / rank (rsLoRA); default false. */
  rslora?: boolean;
  /** Learning rate of B as a multiple of A's (LoRA+; its authors use 16); default 1; at least 0.001, at most 10000. */
  loraPlus?: number;
  /** @deprecated The name of before: `loraPlus`. */
  "lora-plus"?: number;
}

/** Settings of a run, by its method; without one it is plain LoRA. */
export type Settings = LoraSettings | ColaSettings | MultiloraSettings | MixloraSettings | MixloraDynamicSettings | MixloraSwitchSettings;

/** Those of one method. */
export type SettingsOf<M extends NonNullable<Settings["method"]>> = Extract<Settings, { method?: M }>;
