//! TypeScript's side of the API: what `wasm-bindgen` cannot tell from Rust types.

use wasm_bindgen::prelude::*;

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
import type { DoneEvent, EngineJob, JobsEvent, Knot, Setting, Settings, StartJobs, Sweep, TrainEvent, Trial } from "../src/crate_types.js";
import type {
  AdapterChoice, AdapterFacts, AdapterFile, Analysis, BaseInfo, ChatMessage, Evaluation, ExportReport, GenerateOptions, Link, Merged, MergeOptions, MemoryUse, Plan, Progress, RetrievalCell, RowPreview, Rows, JobStatus, JobTables,
} from "../src/types.js";

/** Bytes that can be read by range. `read` gives exactly `length` bytes. */
export interface ByteSource {
  readonly name: string;
  readonly size: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}
/** Takes files one after the other, each in pieces that are only good while `write` runs. */
export interface ExportSink { begin(name: string, bytes: number): void; write(bytes: Uint8Array): void; end(): void }
export type OnProgress = (phase: Progress["phase"], done: number, total: number) => void;
export interface DeviceFacts { name: string; backend: string; isCpu: boolean; maxBinding: number; maxBuffer: number }
export interface Preview { rows: RowPreview[]; total: number; warnings: string[] }
export interface StartOptions {
  settings: Settings;
  rows: Rows | Rows[];
  heldOut?: Rows | Rows[] | undefined;
  initAdapter?: AdapterFile[] | undefined;
  resume?: Uint8Array | undefined;
  tune: boolean;
}
export interface StepResult {
  events: TrainEvent[]; save: boolean; best: boolean; diverges: boolean; sound: boolean; over: boolean; step: number; total: number;
}
export interface SavedJob { checkpoint: Uint8Array; curve: string }
export interface JobsStep { events: JobsEvent[]; kept: { job: string; kind: "best" | "end"; files: AdapterFile[] }[]; wentOn: boolean; over: boolean }
export type WriteOptions = Omit<GenerateOptions, "signal" | "onProgress" | "onWarning" | "onEnd">;
"#;
