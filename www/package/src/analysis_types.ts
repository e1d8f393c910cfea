// What looking inside adapters and changing them gives.

import type { AdapterFile } from "./types.js";

/** Singular values of an adapter's update at one linear layer, and what follows from them. */
export interface SiteAnalysis {
  /** Short name: layers.0.self_attn.q_proj; of an expert layers.0.mlp.experts.3.gate_proj. */
  site: string;
  layer: number;
  projection: string;
  /** Which expert's, where the layer has experts. */
  expert?: number;
  /** The modules of MultiLoRA at this layer, where the run is at hand that knows them; `frobenius` is of their sum. */
  modules?: { frobenius: number; each: ModuleAnalysis[] };
  [figure: string]: unknown;
}

/** One module of MultiLoRA: `c s ⊙ B A` with a learnable scale s, a number per output or one in all. */
export interface ModuleAnalysis {
  /** Of |s| over the outputs. */
  mean_scale: number;
  rms_scale: number;
  max_scale: number;
  /** Norm of `c s ⊙ B A`. */
  frobenius: number;
  /** That norm over the sum of all modules' norms. */
  share: number;
}

/** The experts of one block of a MixLoRA adapter; every list has a number an expert. */
export interface BlockExperts {
  layer: number;
  /** Norm of the update of gate, up and down together. */
  frobenius: number[];
  /** Norm of the expert's row of the router. */
  router: number[];
}

/** Figures of an adapter, those of `weblora analyze --json`, and the same pictures. */
export interface Analysis {
  report: {
    name: string;
    /** Medians by projection. */
    projections: { projection: string; sites: number; rank: number; rank_sum: number; effective_rank: number; top1_energy: number; [figure: string]: unknown }[];
    /** Medians over the layers by module; absent where no modules are known. */
    modules?: ModuleAnalysis[];
    /** Of a MixLoRA adapter. */
    experts?: { experts: number; blocks: BlockExperts[] };
    sites: SiteAnalysis[];
  };
  pictures: { name: string; svg: string }[];
}

/** A link of a chain, as its chain.json has it. */
export interface Link {
  rank: number;
  /** Ranks of single modules, where they differ. */
  ranks?: Record<string, number>;
  alpha: number;
  rslora: boolean;
  /** Optimizer steps that it was trained for. */
  steps: number;
  /** Linear layers that it adapts, and numbers in its factors. */
  sites: number;
  parameters: number;
}

/** How adapters are put together; what `weblora merge` takes. */
export interface MergeOptions {
  /** What each adapter's update is multiplied by; 1 for all when absent. */
  weights?: number[];
  /** Links to take out of the one chain, from 0, the oldest. */
  drop?: number[];
  /** Cut every layer to this rank at most, keeping the largest singular values. */
  maxRank?: number;
  /** Cut every layer to the smallest rank that keeps this share of its update's squared norm. */
  energy?: number;
}

/** Adapters put together. */
export interface Merged {
  files: AdapterFile[];
  /** Links that can still be told apart; 0 for an adapter that is no chain. */
  links: number;
  /** The largest rank of a layer. */
  rank: number;
  sites: number;
  parameters: number;
  /** Share of the update's squared norm that cutting ranks lost; null where nothing was cut. */
  dropped: number | null;
  /** Something that could not be checked. */
  warning: string | null;
}
