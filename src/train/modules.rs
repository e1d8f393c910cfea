//! The modules of a MultiLoRA run in its checkpoint, which is the only file that has them apart.

use super::checkpoint::Checkpoint;
use super::config::TrainConfig;
use crate::Result;
use crate::adapters::Site;
use crate::adapters::lora::RSLORA;
use crate::adapters::product::Rank;
use crate::analysis::{Module, SiteModules};

impl Checkpoint<'_> {
    /// The modules at every site, in the model's order; none where the run trains no learnable scales. Shapes are the tensors' own, so that no model is
    /// needed.
    ///
    /// # Errors
    /// Settings or tensors that do not belong together.
    pub fn modules(&self) -> Result<Vec<SiteModules>> {
        let mut sites: Vec<Site> = self.parameters().filter_map(|name| Site::parse(name.strip_suffix(".lora_scaling.0")?)).collect();
        if sites.is_empty() {
            return Ok(Vec::new());
        }
        sites.sort();
        let adapter = TrainConfig::from_map(&self.state.config)?.adapter;
        let (rslora, alphas) = (adapter.switch(RSLORA.key)?, adapter.alpha_pattern.compile("alpha-pattern")?);
        let of = |site: Site| {
            let mut rank = 0;
            let mut modules = Vec::new();
            for i in 0.. {
                let values = |which: &str| self.parameter(&format!("{site}.{which}.{i}"));
                let Ok((shape, a)) = values("lora_A") else { break };
                rank = shape.first().copied().unwrap_or(0);
                modules.push(Module { a, b: values("lora_B")?.1, scaling: values("lora_scaling")?.1 });
            }
            let alpha = alphas.find(&site.module())?.unwrap_or(adapter.alpha);
            SiteModules::new(site, rank, Rank { rank: rank.max(1), alpha, rslora }.scale().into(), modules)
        };
        sites.into_iter().map(of).collect()
    }
}
