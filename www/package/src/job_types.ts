// What callers of `Trainer.jobs` meet.

import type { AdapterFile, AdapterFormat, Progress, Rows, Settings, TrainEvent } from "./types.js";

/** One of several jobs that train together over the base. */
export interface JobOptions {
  /** What events, results and files call it: letters, digits, `-`, `_`, `+` and `.`. */
  name: string;
  settings: Settings;
  /** Several sets are mixed, as for `train`. */
  rows: Rows | Rows[];
  heldOut?: Rows | Rows[];
  /** Start from this adapter; settings that are not given are the adapter's. */
  initAdapter?: AdapterFile[];
  /** Higher goes first; default 0. */
  priority?: number;
  /** Early stopping compares it with the jobs of the same group, such as those of a sweep. */
  group?: string;
  /** Go on from here: a checkpoint of a run or job, or what `restore` gave. `curve` are its losses so far, for early stopping. */
  resume?: { checkpoint: Uint8Array; curve?: string };
}

/** Settings of the scheduler: what a jobs file has at its top. */
export interface SchedulerSettings {
  policy?: string;
  /** Most GPU memory that all jobs may plan: "2 GiB", or bytes. */
  memory?: string | number;
  /** Most tokens and most jobs of a fused step. */
  stepTokens?: number;
  stepJobs?: number;
  /** Jobs that may be added later, for which memory is kept. */
  spareJobs?: number;
  ageing?: number;
  gap?: number;
  earlyStop?: {
    rules?: ("median" | "asha" | "halving" | "plateau" | "divergence")[];
    unit?: "steps" | "tokens";
    grace?: number; minTrials?: number; firstRung?: number; eta?: number; patience?: number; minDelta?: number; factor?: number; window?: number;
  };
  /** @deprecated The names of before. */
  "step-tokens"?: number; "step-jobs"?: number; "spare-jobs"?: number; "early-stop"?: Record<string, unknown>;
}

/** How several jobs share the device. */
export interface JobsOptions {
  scheduler?: SchedulerSettings;
  /** Save every job in the origin's storage, under this key, a slash and its name: as runs are. */
  autosave?: string;
  /** As for `train`. */
  tune?: boolean;
  onProgress?: (progress: Progress) => void;
}

/** Where a job stands. */
export interface JobStatus {
  job: string;
  state: "waiting" | "running" | "paused" | "done" | "stopped" | "failed";
  /** Why, in one sentence. */
  reason: string;
  step: number;
  steps: number;
  /** Of its last step. */
  loss: number | null;
  /** The lowest on held-out rows, and after which step. */
  bestEval: number | null;
  bestStep: number | null;
  secondsLeft: number | null;
  /** What its held-out loss is of, the loss and the rows: only losses of the same are compared. */
  judgedOn?: string;
  /** No other job has a lower held-out loss of the same kind on the same rows. */
  best: boolean;
  /** The last step whose loss spoke for the parameters that it was computed with. */
  soundStep: number;
}

/** What jobs tell: the events of each by its name, and those of the scheduler. */
export type JobsEvent =
  | TrainEvent
  /** They begin. */
  | { event: "jobs"; jobs: number; rows: number; plannedBytes: number; places: number; spareBytes: number; adapter: string }
  /** The scheduler did something with a job: admit, pause, resume, evaluate, done, stop, fail, refuse, note. */
  | { event: "schedule"; job: string; action: string; reason: string }
  /** A job cannot go on; the others do. */
  | { event: "job_failed"; job: string; reason: string }
  /** Where all of them stand; at most a few times a second. */
  | { event: "status"; jobs: JobStatus[] };

/** Several jobs in the Worker. Iterate over their events, or await `done`; nobody has to do both, or either. */
export interface Jobs extends AsyncIterable<JobsEvent> {
  readonly state: "running" | "done" | "failed";
  /** Takes in another job while they train. One that is larger than the others makes all of them be laid out anew, between two steps. */
  add(job: JobOptions): Promise<void>;
  /** Moves a job to host memory until it is resumed. */
  pause(job: string): Promise<void>;
  resume(job: string): Promise<void>;
  /** Ends a job, or all of them; adapters stay as they are then. */
  stop(job?: string): Promise<void>;
  status(): Promise<JobStatus[]>;
  /** One job's adapter: as it is, or as it was at its lowest held-out loss. */
  exportAdapter(job: string, which?: "current" | "best", options?: { format?: AdapterFormat }): Promise<AdapterFile[]>;
  /** Where they stand at the end; rejects with a WebloraError when none can go on. */
  readonly done: Promise<JobStatus[]>;
}

/** Values to try: lists, or ranges of numbers. */
export interface Sweep {
  /** What the jobs' names begin with; default "sweep". */
  name?: string;
  search?: "grid" | "random" | "list";
  /** By key of the settings: `{ lr: [1e-3, 2e-3], expertRank: [4, 8] }`. */
  keys?: Record<string, unknown>;
  /** Draws of a random search. */
  trials?: number;
  seed?: number;
  list?: Settings[];
}

/** A job of a sweep, and what the sweep sets for it. */
export interface Trial {
  name: string;
  assigned: Settings;
}

/** A policy, rule or search, in one line; `keys` are the settings that it reads. */
export interface TableRow {
  name: string;
  help: string;
  keys: string[];
}

/** What a form of jobs offers. */
export interface JobTables {
  policies: TableRow[];
  /** Of early stopping: `scheduler: { "early-stop": { rules: ["median"] } }`. */
  rules: TableRow[];
  searches: TableRow[];
}
