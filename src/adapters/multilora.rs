//! MultiLoRA (Wang et al. 2023): `y += alpha / r · Σ_i s_i ⊙ B_i A_i dropout(x)`, n modules side by side at every site.
//!
//! A_i and B_i start Kaiming-uniform and the learnable scales s_i at zero, so that the adapter starts at the base although no factor is zero.
//! The sum is one product of rank n·r with `B_eff = [s_1 ⊙ B_1 | … | s_n ⊙ B_n]`: the low-rank kernels read that, and
//! [`crate::kernels::multilora`] makes it and its gradients.

use super::config::{AdapterConfig, MAX_RANK};
use super::layout::{AdapterLayout, SiteAdapter};
use super::lora::{RSLORA, ranked_sites};
use super::method::{Method, OptionKind, OptionSpec};
use super::params::{Init, ParamLayout, ParamSpec, Storage};
use super::product::Rank;
use super::product::Slice;
use super::site::Site;
use crate::config::ModelConfig;
use crate::{Error, Result};

const MODULES: OptionSpec = OptionSpec {
    key: "modules",
    kind: OptionKind::Count { min: 1, max: 64 },
    default: "3",
    help: "Modules side by side at every target, each of --rank",
};
const SCALE: OptionSpec = OptionSpec {
    key: "scale",
    kind: OptionKind::Choice(&["out", "scalar"]),
    default: "out",
    help: "A module's learnable scale: one number per output feature, or one in all",
};
const SCALE_LR: OptionSpec = OptionSpec {
    key: "scale-lr",
    kind: OptionKind::Number { min: 1e-3, max: 1e4 },
    default: "10",
    help: "Learning rate of the scales as a multiple of the factors'",
};
const INIT_B: OptionSpec = OptionSpec {
    key: "init-b",
    kind: OptionKind::Choice(&["kaiming", "zero"]),
    default: "kaiming",
    help: "How B starts: kaiming with scales of zero, or zero with scales of one",
};
const INIT_SCALE: OptionSpec = OptionSpec {
    key: "init-scale",
    kind: OptionKind::Choice(&["auto", "zero", "one"]),
    default: "auto",
    help: "How scales start; auto is the one that fits --init-b",
};

/// Row of the method table.
pub const MULTILORA: Method = Method {
    name: "multilora",
    help: "several products side by side with learnable scales",
    options: &[MODULES, SCALE, SCALE_LR, INIT_B, INIT_SCALE, RSLORA],
    build,
    chain: None,
};

/// How the modules of every site are made.
struct Plan {
    modules: usize,
    scalar: bool,
    scale_lr: f64,
    init_scale: Init,
    kaiming_b: bool,
}

impl Plan {
    fn read(config: &AdapterConfig) -> Result<Self> {
        let kaiming_b = config.text(INIT_B.key)? == "kaiming";
        let init_scale = match (config.text(INIT_SCALE.key)?, kaiming_b) {
            ("auto" | "zero", true) => Init::Zeros,
            ("auto" | "one", false) => Init::Ones,
            ("zero", false) => {
                let problem = "with B zero, too, every gradient is zero for ever";
                return Err(Error::config(INIT_SCALE.key, problem, "leave it out, or start B with --init-b kaiming"));
            }
            _ => {
                let problem = "with B not zero the run would not start at the base model";
                return Err(Error::config(INIT_SCALE.key, problem, "leave it out, or start B with --init-b zero"));
            }
        };
        let (scalar, scale_lr) = (config.text(SCALE.key)? == "scalar", config.number(SCALE_LR.key)?);
        Ok(Self { modules: config.number(MODULES.key)? as usize, scalar, scale_lr, init_scale, kaiming_b })
    }

    /// A module's A and B, without an offset. `module` counts from 0.
    fn factors(&self, site: Site, model: &ModelConfig, rank: usize, module: usize) -> [ParamSpec; 2] {
        let (out, inputs) = site.projection.shape(model);
        let kaiming = |fan_in: usize| Init::Uniform { bound: 1.0 / (fan_in as f64).sqrt() };
        let a = ParamSpec {
            name: format!("{site}.lora_A.{module}"),
            shape: vec![rank, inputs],
            transposed: false,
            offset: 0,
            adjacent: module > 0,
            padding: 0,
            init: kaiming(inputs),
            lr_multiplier: 1.0,
            weight_decay: true,
            trainable: true,
            storage: Storage::F32,
        };
        let init = if self.kaiming_b { kaiming(rank) } else { Init::Zeros };
        let b = ParamSpec { name: format!("{site}.lora_B.{module}"), shape: vec![out, rank], transposed: true, init, ..a.clone() };
        [a, b]
    }

    /// A module's scale: `[out]`, or `[1]`.
    fn scale(&self, site: Site, model: &ModelConfig, module: usize) -> ParamSpec {
        ParamSpec {
            name: format!("{site}.lora_scaling.{module}"),
            shape: vec![if self.scalar { 1 } else { site.projection.shape(model).0 }],
            transposed: false,
            offset: 0,
            adjacent: module > 0,
            padding: 0,
            init: self.init_scale,
            lr_multiplier: self.scale_lr,
            weight_decay: false,
            trainable: true,
            storage: Storage::F32,
        }
    }
}

fn build(config: &AdapterConfig, model: &ModelConfig) -> Result<AdapterLayout> {
    let (plan, rslora) = (Plan::read(config)?, config.switch(RSLORA.key)?);
    let mut params = ParamLayout::default();
    let mut sites = Vec::new();
    for (site, rank, alpha) in ranked_sites(config, model)? {
        let (out, inputs) = site.projection.shape(model);
        let most = out.min(inputs).min(MAX_RANK);
        if plan.modules * rank > most {
            let problem = format!("{} modules of rank {rank} at {site}, whose weight is {out} x {inputs}", plan.modules);
            return Err(Error::config(MODULES.key, problem, format!("keep modules x rank at most {most}")));
        }
        let (stack_a, stack_b): (Vec<ParamSpec>, Vec<ParamSpec>) =
            (0..plan.modules).map(|module| plan.factors(site, model, rank, module).into()).unzip();
        let a: Vec<usize> = stack_a.into_iter().map(|spec| params.push(spec)).collect();
        let b: Vec<usize> = stack_b.into_iter().map(|spec| params.push(spec)).collect();
        let scale = Rank { rank, alpha, rslora }.scale();
        let slices = a.into_iter().zip(b).map(|(a, b)| Slice { a, b, rank, alpha, scale }).collect();
        sites.push(SiteAdapter::new(site, slices));
    }
    // After all factors, so that the optimizer meets two groups and not two a site.
    for adapter in &mut sites {
        adapter.scalings = (0..plan.modules).map(|module| params.push(plan.scale(adapter.site, model, module))).collect();
    }
    Ok(AdapterLayout {
        sites,
        params,
        norms: Vec::new(),
        embeddings: None,
        dropout: config.dropout as f32,
        half: false,
        rslora,
        blocks: model.num_hidden_layers,
        experts: None,
    })
}
