// Everything that a caller of the package meets. Sizes are bytes, losses are nats per trained token, times are seconds unless said.

/** Where a base model comes from. */
export type BaseSource =
  /** The model inside the wasm file: 1 M parameters, works offline. */
  | { embedded: true }
  /** A GGUF file that the user picked (a File is a Blob). With `cache` it is copied into this origin's storage, so that a run on it survives a reload. */
  | { file: Blob; name?: string; cache?: boolean }
  /** A GGUF file on a server. Kept in this origin's storage unless `cache` is false; then it is read by ranges each time. */
  | { url: string; cache?: boolean }
  /** An entry of `Trainer.cache`, by its key. */
  | { cached: string };

/** How a base is loaded. */
export interface LoadOptions {
  /** Quantise float weights on the way to the GPU; default "none". Applies to everything that is done with this base. */
  quantize?: "none" | "nf4" | "q4_0" | "q8_0";
  /** A tokenizer.json, or its text, instead of the tokenizer in the model's file. */
  tokenizer?: Blob | string;
  /** Abort: the call rejects with code "aborted". */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** Something that takes a while is so far. `done` and `total` are bytes, or shader pipelines in the phase "pipelines". */
export interface Progress {
  phase: "download" | "verify" | "header" | "weights" | "pipelines" | "export";
  done: number;
  total: number;
}

/** What a loaded base is. */
export interface BaseInfo {
  name: string;
  /** `model_type`: "llama", "mistral". */
  architecture: string;
  /** How most of its weights are stored: "q4_1". */
  format: string;
  parameters: number;
  /** Of the weights in the file. */
  bytes: number;
  layers: number;
  hidden: number;
  vocab: number;
  /** Longest trained context in tokens. */
  context: number;
  /** Identity of the weights, 32 hex digits: what checkpoints and adapters know their base by. */
  contentHash: string;
  /** Whether it has a chat template; without one, prompts are plain text. */
  chatTemplate: boolean;
  /** Key in `Trainer.cache`, when it is kept there. */
  cached?: string;
  /** What the user should know, such as that it could not be kept. */
  warnings: string[];
}

import type { Settings } from "./settings.js";

export type * from "./settings.js";

/** A way of training an adapter. */
export interface MethodInfo {
  name: string;
  help: string;
}

/** One row of the table of settings, from which a form can be made. */
export interface Setting {
  /** As in `Settings`: "evalEvery". */
  key: string;
  /** As on the command line and in run files: "eval-every". */
  name: string;
  kind: "switch" | "count" | "number" | "counts" | "numbers" | "choice" | "text" | "names" | "patterns";
  /** null: not set (`steps`), or derived from others (`alpha`: twice the rank). */
  default: unknown;
  help: string;
  /** Only this method has it; absent for settings that every run has. */
  method?: string;
  choices?: string[];
  min?: number;
  max?: number;
}

/** Rows to train or evaluate on: JSON lines or a JSON array, or a set inside the wasm file. */
export type Rows =
  | { text: string; name?: string; format?: "auto" | "plain" | "chat" | "alpaca" }
  | { embedded: "train" | "heldout" };

/** A row as the model sees it. `control`: the token is a control token. */
export interface RowPreview {
  /** 1-based number of the row in its text. */
  index: number;
  tokens: { text: string; trained: boolean; control?: boolean }[];
  /** It was cut to `seq` tokens. */
  truncated: boolean;
  /** What was done to it that is worth a look, such as turns that are context only. */
  notes?: string[];
}

/** What a run will take, known before anything is allocated. */
export interface Plan {
  totalBytes: number;
  /** weights, adapter, gradients, optimizer, io, activations, params. */
  byPurpose: Record<string, number>;
  /** Trainable parameters. */
  trainable: number;
  /** Kernel launches of a micro-batch. */
  dispatches: number;
  /** Tokens of a micro-batch. */
  rows: number;
  /** Which activations are computed again (the setting `recompute`); absent where the run does not fit at all. */
  recompute?: "off" | "on" | "nested";
  /** Optimizer steps of the run, when the rows were given. */
  steps?: number;
  /** How the run goes through its rows, when they were given: averages, and the same in words. */
  passes?: { rows: number; rowsPerStep: number; tokensPerStep: number; stepsPerEpoch: number; epochs: number; words: string };
  /** What the user should know before such a run: too few steps, a learning rate that is hardly meant. */
  warnings?: string[];
  fits: boolean;
  /** Why it does not fit. */
  reason?: string;
}

/** A link of a chain was frozen and the next one begun. Diagnostics are absent where probes are off, the first three in rac mode too. */
export interface Knot {
  event: "knot";
  job: string;
  step: number;
  /** Number of the new link, from 0, and its rank. */
  link: number;
  rank: number;
  /** Why the link before it ended. */
  reason: string;
  /** Largest change of a target's log-probability by the knot. */
  logitJump: number;
  /** Mean over the layers of the gradient's spectral norm. */
  gradientNorm?: number;
  /** Frank-Wolfe gap in nats. */
  gap?: number;
  /** Share of the gradient's energy in as many directions as the new link has ranks. */
  captured?: number;
  /** Inner product of the gradient with each frozen link, oldest first. */
  along?: number[];
  /** Mean effective rank of the first 1, 2, ... links together. */
  effectiveRank?: number[];
  /** Mean overlap of the newest frozen link's input directions with those of each earlier one. */
  overlap?: number[];
}

/** What the routers of a MixLoRA run did in a step; every list has an entry for each block of `layers`. */
export interface RouterReport {
  /** Norm of the gradient of all routers together, before clipping. */
  gradNorm: number;
  /** Mean entropy of the routers' probabilities in nats. */
  entropy: number[];
  /** Share of tokens that chose each expert. A block's shares sum to the experts that a token gets. */
  load: number[][];
  /** The blocks with a router. */
  layers: number[];
}

/** What a run tells: the events of the command line's `--json`, with names as JavaScript has them (`grad_norm` is `gradNorm`). */
export type TrainEvent =
  | {
      event: "start"; job: string; config: Settings; trainableParameters: number; plannedBytes: number; adapter: string; steps: number; resumedAt: number;
      /** Rows to train on, how many rows and tokens a step sees and how many steps a pass over all rows takes (on average), and the passes. */
      rows: number; rowsPerStep: number; tokensPerStep: number; stepsPerEpoch: number; epochs: number;
      /** Largest change of a target's log-probability by rounding the links that a chain goes on from, where they are stored as f16. */
      logitJump?: number;
    }
  | {
      event: "step"; job: string; step: number; loss: number; lr: number; gradNorm: number; tokens: number; tokensPerS: number;
      /** Of MixLoRA, whose `loss` is what is minimised: the mean loss over the step's targets, what balances the experts before its coefficient, and
       *  what the routers did. */
      ce?: number; balanceLoss?: number; router?: RouterReport;
      /** Mean loss of each task, where rows come from several. */
      tasks?: Record<string, number>;
      /** How the step's pairs did, where the run trains on preferences: share right, mean rewards and their difference. */
      preference?: { accuracy: number; margin: number; chosen: number; rejected: number };
    }
  | {
      event: "eval"; job: string; step: number; loss: number; tokens: number; accuracy?: number; best: boolean;
      tasks?: Record<string, { loss: number; tokens: number; accuracy?: number }>;
      /** The task that does worst. */
      worst?: string;
    }
  | Knot
  | { event: "checkpoint"; job: string; step: number; path: string }
  | { event: "early_stop"; job: string; step: number; reason: string }
  | { event: "warning"; job?: string; message: string }
  | DoneEvent;

/** The last event of a run, also of one that was stopped: `step` says how far it came. */
export interface DoneEvent {
  event: "done";
  job: string;
  step: number;
  /** Of the last step; null when the run had nothing left to do. */
  loss: number | null;
  bestEval?: number;
  seconds: number;
  out: string;
}

/** A file of an adapter in PEFT layout: adapter_config.json, adapter_model.safetensors, weblora.json, README.md; or adapter.gguf alone. */
export interface AdapterFile {
  name: string;
  bytes: Uint8Array;
}

/** How an adapter is handed out: as the run has it (a PEFT folder; of MixLoRA its authors' folder), one GGUF file for llama.cpp and Ollama, or MixLoRA's
 *  folder with safetensors or with PyTorch's `adapter_model.bin`. MixLoRA is no GGUF, and plain LoRA no MixLoRA. */
export type AdapterFormat = "peft" | "gguf" | "mixlora" | "mixlora-bin";

/** How weights of a merged model are stored. */
export type WeightFormat = "f32" | "f16" | "bf16" | "q8_0" | "q5_0" | "q5_1" | "q4_0" | "q4_1";

/** What was exported. */
export interface ExportReport {
  /** Names of the files, in the order they were written. */
  files: string[];
  bytes: number;
  /** What is not in the files and was in the adapter. */
  warnings: string[];
  /** Of a merged model: the share of the adapter's update that is in the stored weights, and how far they are from the exact ones, as a share of the update. */
  retention?: number;
  relativeError?: number;
}

/** Base and adapter as one GGUF file. */
export interface MergedModel extends ExportReport {
  /** In the origin's private storage until the next one is made: save it, or read it piece by piece. */
  file: File;
}

/** What an adapter is, and how it stands to the loaded base. */
export interface AdapterFacts {
  /** The largest rank of a layer. */
  rank: number;
  alpha: number;
  rslora: boolean;
  sites: number;
  parameters: number;
  targets: string[];
  /** What its base was called; null where it does not say. */
  base: string | null;
  baseHash: string | null;
  steps: number | null;
  /** It changes nothing: its B is all zero. */
  zero: boolean;
  /** That it was trained on another file of the base (Q4 for F16), or changes nothing. */
  warning: string | null;
  /** Experts in a block of a MixLoRA adapter, whose rank and alpha are those above; absent in plain LoRA. It cannot be merged or joined. */
  experts?: number;
}

/** Which adapter lies over the base: none, the one being trained, or files in PEFT layout. */
export type AdapterChoice = "none" | "current" | AdapterFile[];

/** A turn of a conversation. */
export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** How a run is started. */
export interface TrainOptions {
  heldOut?: Rows | Rows[];
  /** Continue from this adapter; settings that are not given are the adapter's. */
  initAdapter?: AdapterFile[];
  /** Go on from a checkpoint; settings that are not given are the checkpoint's. */
  resume?: Uint8Array;
  /** Name of the job in events; default "main". */
  job?: string;
  /** Save the run under this key in the origin's storage: every `saveEvery` steps, on pause and stop, when the page is hidden, and at
   *  least every half minute. Deleted by `discard`, not at the end of the run. */
  autosave?: string;
  /** Measure which kernels are fastest here when that is not known yet; default: only for models of 20 M parameters and more. */
  tune?: boolean;
  /** Abort: the run stops after the step in progress, as with `stop`. */
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
}

/** How text is generated. */
export interface GenerateOptions {
  adapter?: AdapterChoice;
  /** Default 128. */
  maxTokens?: number;
  /** 0 (the default) takes the likeliest token. */
  temperature?: number;
  topK?: number;
  topP?: number;
  repetitionPenalty?: number;
  seed?: number;
  /** For messages: chatml, llama3, mistral, gemma, alpaca, or Jinja; default the template that the adapter was trained with, else the model's own. */
  chatTemplate?: string;
  /** Refuse an adapter that was trained on another file of the base, instead of warning. */
  strictBase?: boolean;
  signal?: AbortSignal;
  onProgress?: (progress: Progress) => void;
  /** What should be known of the adapter's files: that they were trained on another file of the base. */
  onWarning?: (message: string) => void;
  /** What was written, once it has ended. Not called when it fails or is aborted. */
  onEnd?: (written: Written) => void;
}

/** A text that the model wrote. */
export interface Written {
  text: string;
  tokens: number;
  /** "end": the model ended it; "length": cut after `maxTokens`. */
  stopped: "end" | "length";
}

/** Losses of rows. */
export interface Evaluation {
  loss: number;
  /** Trained tokens that the loss is the mean of. */
  tokens: number;
  /** Share of rows with `choices` that were answered right, where there are any. */
  accuracy?: number;
  /** That the adapter was trained on another file of the base. */
  warning?: string;
}

/** Something hidden in a long text: a number, one of four numbers, a number told on by variables; or a note in the words of the embedded model. */
export type RetrievalTask = "passkey" | "keys" | "variables" | "note";

/** Questions about texts of `length` tokens, with what is asked for at `depth` of the text, from 0 to 1. */
export interface RetrievalCell {
  task: RetrievalTask;
  length: number;
  depth: number;
  trials: number;
  strictBase: boolean;
}

/** What is asked of a model in `retrieve`. */
export interface RetrievalOptions {
  task: RetrievalTask;
  /** Tokens of the texts; they and an answer of 8 tokens must fit the context of the base, or of the adapter. */
  lengths: number[];
  /** Default: 0, 0.5 and 1. */
  depths?: number[];
  /** Questions for every length and depth; default 4. */
  trials?: number;
  /** Default "none". */
  adapter?: AdapterChoice;
  /** Refuse an adapter that was trained on another file of the base. */
  strictBase?: boolean;
  signal?: AbortSignal;
  /** Called after every length and depth. */
  onCell?: (cell: RetrievalShare) => void;
}

/** How many questions of one length and depth were answered. */
export interface RetrievalShare {
  length: number;
  depth: number;
  right: number;
  trials: number;
}

/** What a model found in long texts. */
export interface Retrieval {
  cells: RetrievalShare[];
  /** Of all questions. */
  share: number;
  /** A heat map by length and depth, as SVG. */
  picture: string;
}

/** A saved run: one that can go on, or one that is over and whose adapter is kept until `discard`. */
export interface Autosave {
  key: string;
  /** Name of the base. */
  base: string;
  /** What its rows were called. */
  rows: string;
  step: number;
  total: number;
  /** Milliseconds since 1970. */
  savedAt: number;
  settings: Settings;
  /** "open": it can go on. The others have an adapter, see `savedAdapter`. */
  state: "open" | "done" | "stopped" | "failed";
  /** Of its last step, and the lowest on held-out rows. */
  loss?: number;
  bestEval?: number;
  /** What it takes of the origin's storage. */
  bytes: number;
  /** Of a job among several: their common key, see `Trainer.jobs`. */
  jobs?: string;
}

/** An adapter as it was at the lowest held-out loss of its run. */
export interface BestAdapter {
  step: number;
  files: AdapterFile[];
}

/** A saved run, ready to go on: `train(settings, rows, { heldOut, resume: checkpoint, autosave: key })`. */
export interface Restored {
  settings: Settings;
  rows: Rows | Rows[];
  heldOut?: Rows | Rows[];
  checkpoint: Uint8Array;
  /** Of a run that is over: its adapter at the end. */
  adapter?: AdapterFile[];
  /** Of a job among several. */
  job?: { name: string; priority: number; group?: string; curve?: string };
  /** Of a run with `evalEvery`. Once the run goes on, `exportAdapter("best")` gives it, too, until there is a better one. */
  best?: BestAdapter;
  /** Undefined when the base was a file that is not kept: ask the user for it by `baseName`, and compare `contentHash`. */
  base?: BaseSource;
  baseName: string;
  contentHash: string;
}

/** A model kept in the origin's storage. */
export interface CacheEntry {
  key: string;
  name: string;
  bytes: number;
  /** Milliseconds since 1970. */
  usedAt: number;
}

/** What this browser can do. */
export interface Support {
  webgpu: boolean;
  /** Why not, in a sentence. */
  reason?: string;
  adapter?: string;
  features: string[];
  limits: Record<string, number>;
}

/** The GPU in use. */
export interface AdapterInfo {
  name: string;
  vendor: string;
  backend: string;
  features: string[];
}

/** Memory in use. */
export interface MemoryUse {
  /** The wasm module's memory; it never shrinks, so this is also its peak. */
  wasm: number;
  /** Buffers of the open training session on the GPU. */
  gpu: number;
}

/** How a Trainer is made. */
export interface CreateOptions {
  /** Where the wasm file is, when a bundler has moved it. */
  wasmUrl?: string | URL;
  /** Refuse plans beyond this many bytes with code "out_of_memory". */
  maxBytes?: number;
  /** false: leave subgroup operations off, which is slower, for a browser or driver that gets them wrong. */
  subgroups?: boolean;
}

/** The codes of `WebloraError`: those of the crate's `Error::code`, and what only a browser knows. */
export type ErrorCode =
  | "io" | "format" | "unsupported" | "config" | "data" | "adapter" | "no_adapter" | "limit" | "out_of_memory" | "device_lost" | "gpu"
  | "not_finite" | "busy" | "stopped" | "network" | "aborted" | "no_webgpu" | "quota" | "storage_denied" | "panic";

/** A run in the Worker. Iterate over its events, or await `done`; nobody has to do both, or either. */
export interface Training extends AsyncIterable<TrainEvent> {
  readonly job: string;
  readonly state: "running" | "paused" | "stopped" | "done" | "failed";
  /** Resolves when the step in progress is over and the run is saved. */
  pause(): Promise<void>;
  resume(): Promise<void>;
  /** Ends the run after the step in progress; its adapter stays "current". */
  stop(): Promise<void>;
  /** The last event; rejects with a WebloraError when the run failed. */
  readonly done: Promise<DoneEvent>;
}

export type * from "./analysis_types.js";
export type * from "./job_types.js";
