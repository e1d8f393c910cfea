// What the page and the Worker say to each other. A request has an id; everything that answers it carries the same id.

import type { Autosave, DoneEvent, JobOptions, JobsEvent, JobsOptions, Knot, Restored, Setting, Settings, Sweep, Trial } from "./crate_types.js";
import type {
  AdapterChoice, AdapterFacts, AdapterFile, AdapterFormat, AdapterInfo, Analysis, BaseInfo, BaseSource, CacheEntry, ChatMessage, ErrorCode, Evaluation, GenerateOptions, JobStatus, JobTables,
  Link, LoadOptions, MemoryUse, Merged, MergedModel, MergeOptions, MethodInfo, Plan, Progress, RetrievalCell, RowPreview, Rows, Training, TrainOptions, WeightFormat, Written,
} from "./types.js";

/** What can be asked of the Worker: arguments and result. Callbacks and signals stay on the page. */
export interface Calls {
  create(options: { wasmUrl?: string; maxBytes?: number; subgroups?: boolean }): AdapterInfo;
  loadBase(source: BaseSource, options: Pick<LoadOptions, "quantize" | "tokenizer">): BaseInfo;
  methods(): MethodInfo[];
  demoSettings(): Settings;
  settings(method: string): Setting[];
  preview(rows: Rows, settings: Settings, limit: number): { rows: RowPreview[]; total: number; warnings: string[] };
  plan(settings: Settings, rows: Rows | Rows[] | undefined): Plan;
  train(settings: Settings, rows: Rows | Rows[], options: Omit<TrainOptions, "onProgress" | "signal">): DoneEvent;
  pause(): void;
  resume(): void;
  jobs(jobs: JobOptions[], options: Omit<JobsOptions, "onProgress">): JobStatus[];
  addJob(job: JobOptions): void;
  askJob(what: "pause" | "resume" | "stop", name: string | undefined): void;
  jobStatus(): JobStatus[];
  exportJob(name: string, which: "current" | "best", format: AdapterFormat): AdapterFile[];
  jobTables(): JobTables;
  sweep(sweep: Sweep): Trial[];
  mergeLink(): Knot;
  stop(): void;
  save(): void;
  generate(prompt: string | ChatMessage[], options: Omit<GenerateOptions, "signal" | "onProgress" | "onWarning" | "onEnd">): Written;
  evaluate(rows: Rows, adapter: AdapterChoice, strictBase: boolean): Evaluation;
  retrieve(cell: RetrievalCell, adapter: AdapterChoice): number;
  retrievalPicture(title: string, lengths: number[], depths: number[], shares: number[]): string;
  exportAdapter(which: "current" | "best" | AdapterFile[], format: AdapterFormat): AdapterFile[];
  exportModel(which: "current" | "best" | AdapterFile[], format: WeightFormat | undefined): MergedModel;
  checkAdapter(adapter: AdapterFile[], strictBase: boolean): AdapterFacts;
  analyze(adapter: AdapterFile[] | "current"): Analysis;
  moduleScales(): number[];
  links(adapter: AdapterFile[]): Link[];
  splitLinks(adapter: AdapterFile[]): AdapterFile[][];
  mergeAdapters(adapters: AdapterFile[][], options: MergeOptions): Merged;
  checkpoint(): Uint8Array;
  autosaves(): Autosave[];
  restore(key: string): Restored;
  discard(key: string): void;
  cacheList(): CacheEntry[];
  cacheRemove(key: string): void;
  cacheEstimate(): { usage: number; quota: number };
  memory(): MemoryUse;
  simulateDeviceLoss(): void;
  close(): void;
}

export type Method = keyof Calls;

/** From the page. */
export type Request = { id: number; method: Method; args: unknown[] } | { abort: number };

/** What a running call tells before its result: a piece of text, a warning, an event of a run, or the run's state. */
export type Item = { piece: string } | { warning: string } | { event: JobsEvent } | { state: Training["state"] };

/** From the Worker. */
export type Reply =
  | { id: number; result: unknown }
  | { id: number; error: { code: ErrorCode; message: string; causes: string[] } }
  | { id: number; progress: Progress }
  | { id: number; item: Item };
