//! What the routers of a MixLoRA job did in a step: the losses that balance the experts, and whether all experts are in use.

use serde::Serialize;

use crate::adapters::experts::{Balance, Routing};
use crate::adapters::pool::RouterStats;

/// A block has collapsed whose rows fill no more experts than a row gets, and this share of as many others, or of those that there are.
const COLLAPSED: f64 = 0.25;
/// Steps in succession after which a collapse is worth a warning: at the start routers still move.
const STEPS: u32 = 20;

/// The routers of one step, over its micro-batches.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterReport {
    /// Norm of the gradient of all routers together, before clipping.
    pub grad_norm: f64,
    /// Mean entropy of the routers' probabilities in nats, by block.
    pub entropy: Vec<f32>,
    /// By block: the share of rows that chose each expert. They sum to the experts that a row gets.
    pub load: Vec<Vec<f32>>,
    /// The blocks with a router.
    pub layers: Vec<usize>,
}

impl RouterReport {
    /// Experts in use ([`experts_in_use`]) in the block that uses the fewest.
    pub fn fewest_in_use(&self) -> f64 {
        self.load.iter().map(|load| experts_in_use(load)).fold(f64::INFINITY, f64::min)
    }
}

/// Sums over the micro-batches of a step.
#[derive(Debug, Clone, Default)]
pub(super) struct RouterSums {
    micro_batches: usize,
    balance: f64,
    z: f64,
    stats: RouterStats,
}

impl RouterSums {
    /// One micro-batch more.
    pub fn add(&mut self, routing: &Routing, stats: RouterStats) {
        self.micro_batches += 1;
        self.balance += balance_loss(routing, &stats);
        self.z += mean(stats.blocks.iter().map(|block| f64::from(block.z)));
        if self.stats.blocks.is_empty() {
            self.stats = stats;
            return;
        }
        for (sum, new) in self.stats.blocks.iter_mut().zip(stats.blocks) {
            sum.entropy += new.entropy;
            sum.load.iter_mut().zip(new.load).for_each(|(sum, new)| *sum += new);
        }
    }

    fn count(&self) -> f64 {
        self.micro_batches.max(1) as f64
    }

    /// The balance loss before its coefficient.
    pub fn balance(&self) -> f64 {
        self.balance / self.count()
    }

    /// What is minimised beside the cross-entropy.
    pub fn loss(&self, routing: &Routing) -> f64 {
        routing.aux_coef * self.balance() + routing.z_coef * self.z / self.count()
    }

    /// The report of a complete step.
    pub fn report(self, grad_norm: f64) -> RouterReport {
        let count = self.count() as f32;
        let share = |load: &Vec<f32>| load.iter().map(|sum| sum / count).collect();
        RouterReport {
            grad_norm,
            entropy: self.stats.blocks.iter().map(|block| block.entropy / count).collect(),
            load: self.stats.blocks.iter().map(|block| share(&block.load)).collect(),
            layers: self.stats.blocks.iter().map(|block| block.layer).collect(),
        }
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len().max(1) as f64;
    values.sum::<f64>() / count
}

/// `E Σ_e f[e] P[e]`, mean over blocks, or of the means of f and P over blocks.
fn balance_loss(routing: &Routing, stats: &RouterStats) -> f64 {
    let experts = routing.experts as f64;
    let product = |f: &[f64], p: &[f64]| experts * f.iter().zip(p).map(|(f, p)| f * p).sum::<f64>();
    let wide = |values: &[f32]| values.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let f: Vec<Vec<f64>> = stats.blocks.iter().map(|block| wide(&block.load)).collect();
    let p: Vec<Vec<f64>> = stats.blocks.iter().map(|block| wide(&block.probability)).collect();
    let over_blocks = |of: &[Vec<f64>]| -> Vec<f64> { (0..routing.experts).map(|e| mean(of.iter().map(|block| block[e]))).collect() };
    match routing.balance {
        Balance::PerLayer => mean(f.iter().zip(&p).map(|(f, p)| product(f, p))),
        Balance::Concatenated => product(&over_blocks(&f), &over_blocks(&p)),
    }
}

/// Experts in use: e to the entropy of their shares, 1 where one takes everything, their number where all take the same.
pub fn experts_in_use(load: &[f32]) -> f64 {
    let total: f64 = load.iter().map(|x| f64::from(*x)).sum();
    let part = |x: &f32| f64::from(*x) / total;
    let entropy: f64 = load.iter().map(part).filter(|x| *x > 0.0).map(|x| -x * x.ln()).sum();
    if total > 0.0 { entropy.exp() } else { 0.0 }
}

/// Watches for routers that send everything to few experts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CollapseWatch {
    steps: u32,
    told: bool,
}

impl CollapseWatch {
    /// The warning, once, when blocks have been collapsed for some steps.
    pub fn step(&mut self, report: &RouterReport) -> Option<String> {
        let collapsed = |load: &Vec<f32>| {
            let choices: f64 = load.iter().map(|x| f64::from(*x)).sum();
            let (choices, others) = (choices.max(1.0), load.len() as f64 - choices);
            experts_in_use(load) < choices + COLLAPSED * choices.min(others)
        };
        let blocks: Vec<usize> =
            report.layers.iter().zip(&report.load).filter(|(_, load)| collapsed(load)).map(|(layer, _)| *layer).collect();
        self.steps = if blocks.is_empty() { 0 } else { self.steps + 1 };
        if self.steps < STEPS || self.told {
            return None;
        }
        self.told = true;
        let first = blocks.first().copied().unwrap_or_default();
        Some(format!(
            "the router of block {first} (and {} others) sends nearly all rows to the same experts; raise `aux-coef`, or lower `lr`",
            blocks.len() - 1
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::experts::Strategy;
    use crate::adapters::pool::BlockStats;

    fn routing(balance: Balance) -> Routing {
        Routing {
            strategy: Strategy::TopK,
            experts: 8,
            top_k: 2,
            top_p: 1.0,
            temperature: 0.0,
            renormalize: false,
            capacity: 0,
            jitter: 0.0,
            aux_coef: 0.01,
            z_coef: 0.0,
            balance,
        }
    }

    fn block(layer: usize, pair: usize) -> BlockStats {
        let own = |x: f32| (0..8).map(|e| if e / 2 == pair { x } else { 0.0 }).collect::<Vec<f32>>();
        BlockStats { layer, probability: own(0.5), load: own(1.0), entropy: 0.0, z: 0.0 }
    }

    #[test]
    fn concatenation_hides_what_each_block_by_itself_shows() {
        let stats = RouterStats { blocks: (0..4).map(|layer| block(layer, layer)).collect() };
        assert_eq!(balance_loss(&routing(Balance::Concatenated), &stats), 2.0);
        assert_eq!(balance_loss(&routing(Balance::PerLayer), &stats), 8.0);
    }

    #[test]
    fn collapsed_routers_are_told_once() {
        let report = |load: Vec<f32>| RouterReport { grad_norm: 0.0, entropy: vec![0.0], load: vec![load], layers: vec![3] };
        let mut watch = CollapseWatch::default();
        let even = report(vec![0.25; 8]);
        let collapsed = report(vec![1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert!((experts_in_use(&even.load[0]) - 8.0).abs() < 1e-9 && (experts_in_use(&collapsed.load[0]) - 2.0).abs() < 1e-9);
        assert!((0..50).all(|_| watch.step(&even).is_none()));
        let told: Vec<u32> = (0..50).filter(|_| watch.step(&collapsed).is_some()).collect();
        assert_eq!(told, [STEPS - 1]);
    }
}
