//! The modules of MultiLoRA at one site, `ΔW = c Σ_i s_i ⊙ B_i A_i`: how large each one's learnable scale is, and how much of the update it makes.
//!
//! Only a run knows them: the adapter that it saves is their sum. All sums are in f64 and over the factors:
//! `⟨s_i ⊙ B_i A_i, s_j ⊙ B_j A_j⟩ = Σ_kl (B_iᵀ diag(s_i s_j) B_j)_kl (A_i A_jᵀ)_kl`.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::median::median;
use crate::adapters::{AdapterLayout, Site};
use crate::{Error, Result};

/// One module, as a run trains it.
#[derive(Debug, Clone, PartialEq)]
pub struct Module {
    /// A, `[rank, in]`.
    pub a: Vec<f32>,
    /// B, `[out, rank]`, without its scale.
    pub b: Vec<f32>,
    /// The learnable scale s, `[out]` or `[1]`.
    pub scaling: Vec<f32>,
}

/// The modules of one site.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteModules {
    site: Site,
    rank: usize,
    scale: f64,
    modules: Vec<Module>,
}

/// What one module does at one site, or the medians of that over sites.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ModuleReport {
    /// Mean of |s| over the outputs.
    pub mean_scale: f64,
    /// Root of the mean of s².
    pub rms_scale: f64,
    /// Largest |s|.
    pub max_scale: f64,
    /// `‖c s ⊙ B A‖_F`, c being alpha / r.
    pub frobenius: f64,
    /// Its norm over the sum of the modules' norms; 0 while all are 0.
    pub share: f64,
}

/// The modules of one site, side by side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Modules {
    /// `‖ΔW‖_F` of their sum: less than the sum of their norms where they undo each other.
    pub frobenius: f64,
    /// One by one.
    pub each: Vec<ModuleReport>,
}

impl SiteModules {
    /// `scale` is what multiplies all modules: alpha / rank, or alpha / √rank.
    ///
    /// # Errors
    /// When there is none, a length contradicts the rank, or a number is NaN or infinite.
    pub fn new(site: Site, rank: usize, scale: f64, modules: Vec<Module>) -> Result<Self> {
        let error = |problem: String| Error::Adapter {
            adapter: site.to_string(),
            problem,
            hint: "it was damaged or its training diverged; use an earlier one, or train with a lower --lr",
        };
        let first = modules.first().ok_or_else(|| error("it has no module".into()))?;
        let (inputs, out) = (first.a.len(), first.b.len());
        if rank == 0 || inputs == 0 || out == 0 || inputs % rank != 0 || out % rank != 0 {
            return Err(error(format!("A has {inputs} values and B {out}, positive multiples of the rank {rank} were expected")));
        }
        for (i, module) in modules.iter().enumerate() {
            let lengths = (module.a.len(), module.b.len());
            if lengths != (inputs, out) || ![1, out / rank].contains(&module.scaling.len()) {
                let found = format!("A of {}, B of {} and a scale of {} values", lengths.0, lengths.1, module.scaling.len());
                return Err(error(format!("module {i} has {found}; {inputs}, {out} and 1 or {} were expected", out / rank)));
            }
            for (name, values) in [("A", &module.a), ("B", &module.b), ("its scale", &module.scaling)] {
                if let Some(wrong) = values.iter().find(|x| !x.is_finite()) {
                    return Err(error(format!("module {i}: {name} holds {wrong}")));
                }
            }
        }
        if !scale.is_finite() {
            return Err(error(format!("the scale of its modules is {scale}")));
        }
        Ok(Self { site, rank, scale, modules })
    }

    /// The modules in the flat buffer `values` of a run; none where its method has no learnable scales.
    ///
    /// # Errors
    /// As [`SiteModules::new`].
    pub fn of_layout(layout: &AdapterLayout, values: &[f32]) -> Result<Vec<Self>> {
        let hf = |index: usize| layout.params.specs[index].to_hf(values);
        let scaled = layout.sites.iter().filter(|site| !site.scalings.is_empty());
        scaled
            .map(|adapter| {
                let pairs = adapter.slices.iter().zip(&adapter.scalings);
                let modules = pairs.map(|(slice, scaling)| Module { a: hf(slice.a), b: hf(slice.b), scaling: hf(*scaling) }).collect();
                let (rank, scale) = adapter.slices.first().map_or((0, 0.0), |slice| (slice.rank, slice.scale));
                Self::new(adapter.site, rank, scale.into(), modules)
            })
            .collect()
    }

    /// Where.
    pub fn site(&self) -> Site {
        self.site
    }

    /// `⟨c s_i ⊙ B_i A_i, c s_j ⊙ B_j A_j⟩`.
    fn inner(&self, i: usize, j: usize) -> f64 {
        let (x, y, rank) = (&self.modules[i], &self.modules[j], self.rank);
        let (out, inputs) = (x.b.len() / rank, x.a.len() / rank);
        let at = |scaling: &[f32], o: usize| f64::from(scaling[if scaling.len() == 1 { 0 } else { o }]);
        let weights: Vec<f64> = (0..out).map(|o| at(&x.scaling, o) * at(&y.scaling, o)).collect();
        let mut sum = 0.0;
        for k in 0..rank {
            for l in 0..rank {
                let columns = x.b.iter().skip(k).step_by(rank).zip(y.b.iter().skip(l).step_by(rank));
                let b: f64 = columns.zip(&weights).map(|((p, q), w)| w * f64::from(*p) * f64::from(*q)).sum();
                let rows = x.a[k * inputs..(k + 1) * inputs].iter().zip(&y.a[l * inputs..(l + 1) * inputs]);
                sum += b * rows.map(|(p, q)| f64::from(*p) * f64::from(*q)).sum::<f64>();
            }
        }
        self.scale * self.scale * sum
    }

    /// Measures them.
    pub fn report(&self) -> Modules {
        let n = self.modules.len();
        let norms: Vec<f64> = (0..n).map(|i| self.inner(i, i).max(0.0).sqrt()).collect();
        let all: f64 = norms.iter().sum();
        let cross: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| 2.0 * self.inner(i, j)).sum();
        let square = norms.iter().map(|norm| norm * norm).sum::<f64>() + cross;
        let each = self.modules.iter().zip(norms).map(|(module, frobenius)| {
            let scales = || module.scaling.iter().map(|s| f64::from(*s).abs());
            let count = module.scaling.len() as f64;
            ModuleReport {
                mean_scale: scales().sum::<f64>() / count,
                rms_scale: (scales().map(|s| s * s).sum::<f64>() / count).sqrt(),
                max_scale: scales().fold(0.0, f64::max),
                frobenius,
                share: if all > 0.0 { frobenius / all } else { 0.0 },
            }
        });
        Modules { frobenius: square.max(0.0).sqrt(), each: each.collect() }
    }
}

/// The words of a run's flat buffer that hold all learnable scales; `None` where its method has none.
pub fn scale_words(layout: &AdapterLayout) -> Option<Range<usize>> {
    let specs = layout.sites.iter().flat_map(|site| &site.scalings).map(|i| layout.params.specs[*i].range());
    specs.reduce(|all, own| all.start.min(own.start)..all.end.max(own.end))
}

/// Mean |s| of every module, over the outputs of each site and then over the sites: enough to watch while a run trains. `words` are those of
/// [`scale_words`].
///
/// # Panics
/// When they are fewer.
pub fn mean_scales(layout: &AdapterLayout, words: &[f32]) -> Vec<f64> {
    let first = scale_words(layout).map_or(0, |range| range.start);
    let mut sums: Vec<(f64, usize)> = Vec::new();
    for site in &layout.sites {
        for (module, index) in site.scalings.iter().enumerate() {
            let spec = &layout.params.specs[*index];
            let own = &words[spec.offset - first..][..spec.len()];
            let mean = own.iter().map(|s| f64::from(s.abs())).sum::<f64>() / own.len() as f64;
            sums.resize(sums.len().max(module + 1), (0.0, 0));
            sums[module] = (sums[module].0 + mean, sums[module].1 + 1);
        }
    }
    sums.into_iter().map(|(sum, sites)| sum / sites as f64).collect()
}

/// Medians over the sites, module by module.
pub(super) fn summary(sites: &[Modules]) -> Vec<ModuleReport> {
    let modules = sites.iter().map(|site| site.each.len()).max().unwrap_or(0);
    let of = |i: usize, pick: fn(&ModuleReport) -> f64| median(sites.iter().filter_map(|site| site.each.get(i)).map(pick));
    let one = |i: usize| {
        Some(ModuleReport {
            mean_scale: of(i, |m| m.mean_scale)?,
            rms_scale: of(i, |m| m.rms_scale)?,
            max_scale: of(i, |m| m.max_scale)?,
            frobenius: of(i, |m| m.frobenius)?,
            share: of(i, |m| m.share)?,
        })
    };
    (0..modules).filter_map(one).collect()
}
