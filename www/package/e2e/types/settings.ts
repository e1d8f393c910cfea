// What TypeScript says of settings: every line below `@ts-expect-error` must be refused, all others must not.

import type { Settings, SettingsOf, TrainEvent, Trainer } from "../../src/index.js";

export const plain: Settings = { rank: 8, alpha: 16, lr: 2e-3, evalEvery: 20, dataWeights: [2, 1], recompute: false };
export const chain: Settings = { method: "cola", links: [8, 4], knots: [40], lr: 1e-3 };
export const experts: Settings = { method: "mixlora", experts: 8, topK: 2, auxCoef: 0.01, balance: "per-layer" };
export const before: Settings = { "eval-every": 20 };
// @ts-expect-error a typing error
export const typo: Settings = { rnak: 8 };
// @ts-expect-error a typing error in a method's own setting
export const typoOfMethod: Settings = { method: "cola", lnks: [8] };
// @ts-expect-error a setting of another method
export const other: Settings = { method: "lora", links: [8, 4] };
// @ts-expect-error a setting of another method than the default
export const otherThanDefault: Settings = { experts: 8 };
// @ts-expect-error of another kind
export const kind: Settings = { rank: "eight" };
// @ts-expect-error no such choice
export const choice: Settings = { schedule: "cosin" };
// @ts-expect-error no such method
export const method: Settings = { method: "mixlora-dense" };

/** What was typed by people is checked by the crate. */
export const typed = (trainer: Trainer, settings: Record<string, unknown>) => trainer.train(settings, { embedded: "train" });

export function figures(event: TrainEvent): number | undefined {
  if (event.event !== "step") return undefined;
  // @ts-expect-error the name of before
  const norm: number = event.grad_norm;
  return norm + event.gradNorm + (event.balanceLoss ?? 0) + (event.router?.gradNorm ?? 0);
}

export const ofMethod: SettingsOf<"mixlora-switch"> = { method: "mixlora-switch", expertCapacity: 16 };
