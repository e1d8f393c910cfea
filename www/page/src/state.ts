/** All that the page knows, in one place. Views read it and listen to slices; actions change it. */

import type { AdapterFile, AdapterInfo, Autosave, BaseInfo, BaseSource, CacheEntry, MethodInfo, Plan, Progress, RowPreview, Rows, Setting, Support } from "weblora";
import type { FormSettings } from "./lib/settings";
import type { Problem } from "./lib/problem";
import type { Series } from "./lib/series";

/** The GPU. */
export interface DeviceState {
  status: "checking" | "ready" | "missing" | "lost";
  support: Support | null;
  adapter: AdapterInfo | null;
  problem: Problem | null;
}

/** Where a base comes from. */
export type BaseTab = "embedded" | "file" | "url" | "kept";

/** The base model. */
export interface BaseState {
  tab: BaseTab;
  status: "none" | "loading" | "ready" | "failed";
  source: BaseSource | null;
  info: BaseInfo | null;
  progress: Progress | null;
  problem: Problem | null;
}

/** A set of rows beside others that a run mixes. */
export interface MixedSet {
  train: Rows;
  heldOut: Rows | null;
  name: string;
}

/** What a run takes: one set, or several. */
export interface ChosenRows {
  train: Rows | Rows[];
  heldOut: Rows | Rows[] | null;
  name: string;
}

/** Rows to train on and to evaluate on. */
export interface RowsState {
  /** Sets that the ones below are mixed with. */
  mixed: MixedSet[];
  /** Id of a set that comes with the page, or where the rows are from. */
  choice: string;
  train: Rows | null;
  heldOut: Rows | null;
  trainName: string;
  heldOutName: string;
  /** A file of columns, and which of them are what. */
  table: { name: string; cells: string[][]; question: number; answer: number; named: boolean } | null;
  /** The held-out rows were chosen by hand, for the rows that are there. */
  heldOutChosen: boolean;
  status: "idle" | "loading" | "ready" | "failed";
  total: number;
  preview: RowPreview[];
  /** Rows whose prompts are offered for trying: held out where there are such. */
  samples: RowPreview[];
  warnings: string[];
  /** Spelt letter by letter by the built-in model, which will not learn them. */
  foreign: boolean;
  problem: Problem | null;
}

/** The form: what the user changed, over the crate's table of settings. */
export interface FormState {
  method: string;
  recipe: string;
  /** Only what differs from the defaults. */
  changed: FormSettings;
  table: Setting[];
  methods: MethodInfo[];
  /** A PEFT adapter that the run starts from. */
  init: { name: string; files: AdapterFile[] } | null;
  /** A checkpoint that the run goes on from. */
  resume: { name: string; bytes: Uint8Array; step: number } | null;
}

/** What a run would take. */
export interface PlanState {
  status: "idle" | "busy" | "ready" | "failed";
  plan: Plan | null;
  problem: Problem | null;
  measuring: boolean;
  /** Seconds of a measured step with these shapes, on this base and this GPU. */
  stepSeconds: number | null;
}

/** A run: a row of the table and a curve in the charts. */
export interface Run {
  id: string;
  name: string;
  /** Number of its colour. */
  colour: number;
  shown: boolean;
  state: "waiting" | "starting" | "running" | "paused" | "stopping" | "stopped" | "done" | "failed";
  settings: FormSettings;
  /** The settings with all defaults, from the start event. */
  config: FormSettings;
  base: { name: string; hash: string; source: BaseSource };
  rows: ChosenRows;
  step: number;
  total: number;
  trainable: number;
  plannedBytes: number;
  usedBytes: number;
  /** The wasm module's memory. */
  wasmBytes: number;
  series: Series;
  log: { time: number; text: string }[];
  startedAt: number;
  /** The last step that the browser keeps. */
  savedStep: number;
  /** Seconds of training, pauses left out. */
  seconds: number;
  /** When the clock last began to run; 0 while it stands. */
  clock: number;
  /** Seconds from the click to the first step. */
  firstStep: number | null;
  /** Seconds of a step, as the last ones took. */
  stepSeconds: number | null;
  adapter: AdapterFile[] | null;
  /** As the adapter was at the lowest held-out loss, when that is not its end. */
  best: AdapterFile[] | null;
  bestStep: number | null;
  /** Share of the rows asked at its end that it answered exactly. */
  exact: number | null;
  problem: Problem | null;
  /** Of a job among several. */
  job: { set: string; name: string; group: string | null; reason: string; secondsLeft: number | null; best: boolean } | null;
}

/** All runs of this visit. At most one of them trains, or one set of jobs. */
export interface RunsState {
  list: Run[];
  active: string | null;
  /** The set of jobs that trains. */
  jobs: string | null;
  /** The run whose figures are shown, where that was chosen. */
  selected: string | null;
  /** The run that the Worker still holds, and so knows more of than its adapter. */
  held: string | null;
}

/** An answer of one side. */
export interface Answer {
  text: string;
  status: "idle" | "waiting" | "writing" | "done" | "stopped" | "failed";
  problem: Problem | null;
  /** Seconds it took and pieces it has; tokens and how it ended, once it has. */
  seconds: number;
  pieces: number;
  written: { tokens: number; stopped: "end" | "length" } | null;
}

/** A turn of a conversation: what was said, and both answers. */
export interface Turn {
  said: string;
  base: string;
  tuned: string;
}

/** Rows scored without and with the adapter. */
export interface Scores {
  name: string;
  base: number;
  tuned: number;
  tokens: number;
  /** Shares of rows with choices that were answered right. */
  accuracy: { base: number; tuned: number } | null;
  /** Rows with one answer: how many were asked, and how many answers were the row's own. */
  exact: { asked: number; total: number; base: number; tuned: number } | null;
}

/** The comparison of base and adapter. */
export interface TryState {
  busy: boolean;
  /** Id of a run, `imported`, or empty. */
  adapter: string;
  imported: { name: string; files: AdapterFile[] } | null;
  base: Answer;
  tuned: Answer;
  /** What was said last in a conversation, empty where the prompt was plain text; the turns before it; and whom it is with. */
  said: string;
  turns: Turn[];
  partner: string;
  scores: Scores | null;
  scoring: boolean;
  problem: Problem | null;
}

/** The end of a run: the same rows before and after. */
export interface FinaleState {
  /** Id of the run; empty when there is nothing to show. */
  run: string;
  name: string;
  prompt: string;
  expected: string;
  base: string;
  tuned: string;
  /** Rows asked so far, and how many of them each side answered exactly. */
  asked: number;
  total: number;
  before: number;
  after: number;
  /** How the rows were chosen: held out, or those that it trained on. */
  heldOut: boolean;
}

/** What this browser keeps. */
export interface StorageState {
  cached: CacheEntry[];
  usage: number;
  quota: number;
  saves: Autosave[];
  problem: Problem | null;
}

/** A message above everything else. */
export interface NoticeState {
  kind: "none" | "info" | "error";
  text: string;
  detail: string[];
}

export interface State {
  device: DeviceState;
  base: BaseState;
  rows: RowsState;
  form: FormState;
  plan: PlanState;
  runs: RunsState;
  trial: TryState;
  storage: StorageState;
  finale: FinaleState;
  notice: NoticeState;
}

export type Slice = keyof State;

const idle = (): Answer => ({ text: "", status: "idle", problem: null, seconds: 0, pieces: 0, written: null });

const state: State = {
  device: { status: "checking", support: null, adapter: null, problem: null },
  base: { tab: "embedded", status: "none", source: null, info: null, progress: null, problem: null },
  rows: {
    mixed: [],
    choice: "",
    train: null,
    heldOut: null,
    trainName: "",
    heldOutName: "",
    table: null,
    heldOutChosen: false,
    status: "idle",
    total: 0,
    preview: [],
    samples: [],
    warnings: [],
    foreign: false,
    problem: null,
  },
  form: { method: "lora", recipe: "defaults", changed: {}, table: [], methods: [], init: null, resume: null },
  plan: { status: "idle", plan: null, problem: null, measuring: false, stepSeconds: null },
  runs: { list: [], active: null, jobs: null, selected: null, held: null },
  trial: { busy: false, adapter: "", imported: null, base: idle(), tuned: idle(), said: "", turns: [], partner: "", scores: null, scoring: false, problem: null },
  storage: { cached: [], usage: 0, quota: 0, saves: [], problem: null },
  finale: { run: "", name: "", prompt: "", expected: "", base: "", tuned: "", asked: 0, total: 0, before: 0, after: 0, heldOut: true },
  notice: { kind: "none", text: "", detail: [] },
};

const listeners = new Map<Slice, Set<() => void>>();
const pending = new Set<Slice>();

/** What the page knows now. Not to be written to: {@link update} is for that. */
export const get = (): Readonly<{ [K in Slice]: Readonly<State[K]> }> => state;

/** Changes a slice; its listeners run once, before the next frame. */
export function update<K extends Slice>(slice: K, change: Partial<State[K]>): void {
  Object.assign(state[slice], change);
  touch(slice);
}

/** Says that something inside a slice has changed. */
export function touch(slice: Slice): void {
  if (pending.size === 0) queueMicrotask(flush);
  pending.add(slice);
}

function flush(): void {
  const slices = [...pending];
  pending.clear();
  const due = new Set<() => void>();
  for (const slice of slices) for (const listener of listeners.get(slice) ?? []) due.add(listener);
  for (const listener of due) listener();
}

/** Runs `listener` after any of the slices has changed, and once now. */
export function watch(slices: Slice[], listener: () => void): void {
  for (const slice of slices) {
    const set = listeners.get(slice) ?? new Set();
    set.add(listener);
    listeners.set(slice, set);
  }
  listener();
}

/** Whether the base is the built-in model. */
export const isBuiltIn = (): boolean => state.base.source !== null && "embedded" in state.base.source;

/** Whether the rows came from the person. */
export const hasOwnRows = (): boolean => ["file", "paste", "teach"].includes(state.rows.choice) && state.rows.train !== null;

/** The run that trains or is paused. */
export const activeRun = (): Run | null => state.runs.list.find((run) => run.id === state.runs.active) ?? null;

/** The run that the page is about: the active one, the chosen one, the best of the jobs, else the last. */
export function shownRun(): Run | null {
  const { list, selected } = state.runs;
  const last = list.at(-1) ?? null;
  const best = last?.job ? list.find(({ job }) => job?.set === last.job?.set && job?.best) : undefined;
  return activeRun() ?? list.find(({ id }) => id === selected) ?? best ?? last;
}

/** Whether a run or jobs are under way, be they paused. */
export const isTraining = (): boolean => state.runs.active !== null || state.runs.jobs !== null;

/** Whether the set-up is locked: while a single run trains. Beside jobs, rows and settings make the next job. */
export const isLocked = (): boolean => state.runs.active !== null;

/** Whether a run is a job that is not over. */
export const isJobUnderWay = (run: Run): boolean => run.job !== null && run.job.set === state.runs.jobs && ["waiting", "running", "paused", "stopping"].includes(run.state);

/** All rows that a run would take; `null` while there are none. */
export function chosenRows(): ChosenRows | null {
  const { mixed, train, heldOut, trainName } = state.rows;
  const sets = train === null ? mixed : [...mixed, { train, heldOut, name: trainName }];
  const [first] = sets;
  if (!first) return null;
  if (sets.length === 1) return first;
  const kept = sets.flatMap((set) => set.heldOut ?? []);
  const name = sets.map((set) => set.name).join(" + ");
  return { train: named(sets.map((set) => set.train)), heldOut: kept.length > 0 ? named(kept) : null, name };
}

/** Sets with names that tell them apart. */
function named(sets: Rows[]): Rows[] {
  const taken = new Map<string, number>();
  return sets.map((rows) => {
    if ("embedded" in rows) return rows;
    const name = rows.name ?? "rows";
    const before = taken.get(name) ?? 0;
    taken.set(name, before + 1);
    return { ...rows, name: before === 0 ? name : `${name} ${before + 1}` };
  });
}

/** An answer that has not begun. */
export const noAnswer = idle;

/** The settings as they would be run: the method and what was changed. Rows with a held-out set of their own are not split again. */
export function runSettings(): FormSettings {
  const settings: FormSettings = { method: state.form.method, ...state.form.changed };
  if (chosenRows()?.heldOut) delete settings["evalSplit"];
  return settings;
}
