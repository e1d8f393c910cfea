// What the Worker and the wasm module say to each other: the crate's own names, with dashes in settings and underscores in events.
// Pages meet the names of types.ts; names.ts is between the two.

import type * as P from "./types.js";

type Snake<S extends string> = S extends `${infer C}${infer R}` ? `${C extends Lowercase<C> ? C : `_${Lowercase<C>}`}${Snake<R>}` : S;
type SnakeKeys<T> = { [K in keyof T as K extends string ? Snake<K> : never]: T[K] };
type Crate<E> = E extends { event: "start" } ? Omit<SnakeKeys<E>, "config"> & { config: Settings } : E extends { event: string } ? SnakeKeys<E> : never;

/** By the keys of run files. */
export type Settings = Record<string, unknown>;
export type TrainEvent = Crate<P.TrainEvent>;
export type JobsEvent = Crate<P.JobsEvent>;
export type DoneEvent = Crate<P.DoneEvent>;
export type Knot = Crate<P.Knot>;
export type Setting = Omit<P.Setting, "name">;
export type Autosave = Omit<P.Autosave, "settings"> & { settings: Settings };
export type Restored = Omit<P.Restored, "settings"> & { settings: Settings };
export type JobOptions = Omit<P.JobOptions, "settings"> & { settings: Settings };
export type JobsOptions = Omit<P.JobsOptions, "scheduler"> & { scheduler?: Settings };
export type Trial = Omit<P.Trial, "assigned"> & { assigned: Settings };
export type Sweep = Omit<P.Sweep, "list"> & { list?: Settings[] };

/** A job as the engine takes it. */
export interface EngineJob extends Omit<JobOptions, "resume"> {
  checkpoint?: Uint8Array | undefined;
  curve?: string | undefined;
}

export interface StartJobs {
  jobs: EngineJob[];
  options: Settings;
  tune: boolean;
}
