//! Adapters put together and taken apart: links of a chain listed, dropped and split off, adapters of one base joined or added up, ranks cut.
//! `weblora merge` and the page do the same with it.

use serde::Serialize;

use super::chain::{Chain, Link};
use super::folder::{File, Folder};
use super::peft::PeftAdapter;
use super::rank_sum::{Weighted, check_one_base, check_sum, rank_sum};
use super::recompress::{Cut, Recompressed, recompress};
use crate::config::ModelConfig;
use crate::formats::BaseId;
use crate::{Error, Result};

/// An adapter that is to be edited.
#[derive(Debug, Clone)]
pub struct Part<'a> {
    /// What errors call it.
    pub name: &'a str,
    /// The adapter.
    pub adapter: PeftAdapter,
    /// One sentence where it was trained on another file than the base it was read with.
    pub warning: Option<String>,
    /// Its `chain.json`, where it has one.
    manifest: Option<&'a [u8]>,
}

/// What is made of some adapters.
#[derive(Debug, Clone, Default)]
pub struct Edit {
    /// What each adapter's update is multiplied by; empty for 1.
    pub weights: Vec<f64>,
    /// Links to take out of the one chain, from 0, the oldest.
    pub drop: Vec<usize>,
    /// How far ranks are cut in the end.
    pub cut: Cut,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Edited {
    /// The result as one adapter.
    pub adapter: PeftAdapter,
    /// The result link by link, where its links can still be told apart.
    pub chain: Option<Chain>,
    /// What cutting ranks lost, where they were cut.
    pub cut: Option<Recompressed>,
}

/// A link of a chain, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkFacts {
    /// What `chain.json` says of it.
    #[serde(flatten)]
    pub link: Link,
    /// Linear layers that it adapts.
    pub sites: usize,
    /// Numbers in its factors.
    pub parameters: usize,
}

/// A base that adapters are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// Its shapes.
    pub model: &'a ModelConfig,
    /// What it is.
    pub base: &'a BaseId,
    /// Refuse adapters of another file of the base, instead of warning.
    pub strict: bool,
}

/// Reads adapters, and checks them against a base where one is given.
///
/// # Errors
/// A damaged adapter, one of another model, or of another base where that is strict.
pub fn read<'a>(folders: &[Folder<'a>], base: Option<Against<'_>>) -> Result<Vec<Part<'a>>> {
    let mut parts = Vec::with_capacity(folders.len());
    for &folder in folders {
        let adapter = match base {
            Some(Against { model, .. }) => PeftAdapter::read(folder, model)?,
            None => PeftAdapter::read_alone(folder)?,
        };
        let check = |Against { base, strict, .. }| adapter.check_base(folder.name, base, strict);
        let warning = base.map(check).transpose()?.flatten();
        parts.push(Part { name: folder.name, adapter, warning, manifest: folder.chain });
    }
    // An adapter that names single modules does not say how many blocks there are; another one may.
    let known = parts.iter().map(|part| part.adapter.blocks).filter(|&blocks| blocks != usize::MAX).max();
    for part in parts.iter_mut().filter(|part| part.adapter.blocks == usize::MAX) {
        let own = part.adapter.sites.iter().map(|site| site.site.layer + 1).max().unwrap_or(0);
        part.adapter.blocks = known.filter(|&blocks| blocks >= own).unwrap_or(usize::MAX);
    }
    Ok(parts)
}

impl Part<'_> {
    /// Whether its links can be told apart.
    pub fn is_chain(&self) -> bool {
        self.manifest.is_some()
    }

    /// The chain that it is.
    ///
    /// # Errors
    /// When it is no chain, or its manifest does not match.
    pub fn chain(&self) -> Result<Chain> {
        Chain::read_chain(self.name, self.adapter.clone(), self.manifest)
    }

    /// The chain that it is, or of a plain adapter the chain of one link.
    fn as_chain(&self) -> Result<Chain> {
        Chain::read(self.name, self.adapter.clone(), self.manifest)
    }
}

impl Edit {
    /// Refuses what contradicts itself, for so many adapters, before anything is read.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self, adapters: usize) -> Result<()> {
        if !self.drop.is_empty() && adapters > 1 {
            let problem = format!("links of one chain cannot be dropped from {adapters} adapters");
            return Err(Error::config("drop", problem, "drop links of one chain at a time"));
        }
        if !self.weights.is_empty() && self.weights.len() != adapters {
            let problem = format!("{} weights for {adapters} adapters", self.weights.len());
            return Err(Error::config("weights", problem, "give one number per adapter, separated by commas"));
        }
        Ok(())
    }

    fn weight(&self, part: usize) -> f64 {
        self.weights.get(part).copied().unwrap_or(1.0)
    }

    /// Makes it of `parts`. The result is a chain, whose links can be told apart later, where nothing is weighted or cut and every link fits.
    ///
    /// # Errors
    /// Parts of several bases, links that are not there, weights and cuts that mean nothing.
    pub fn apply(&self, parts: &[Part<'_>]) -> Result<Edited> {
        self.check(parts.len())?;
        let chain = self.as_chain(parts)?;
        let adapter = match &chain {
            Some(chain) => chain.merged(),
            None => rank_sum(&self.weighted(parts))?,
        };
        if self.cut.is_none() {
            return Ok(Edited { adapter, chain, cut: None });
        }
        let (adapter, report) = recompress(&adapter, self.cut)?;
        Ok(Edited { adapter, chain: None, cut: Some(report) })
    }

    fn weighted<'a>(&self, parts: &'a [Part<'_>]) -> Vec<Weighted<'a>> {
        let weighted = |(i, part): (usize, &'a Part<'_>)| Weighted { name: part.name, adapter: &part.adapter, weight: self.weight(i) };
        parts.iter().enumerate().map(weighted).collect()
    }

    /// The result as a chain; `None` where weights, or ranks beyond a weight's size, leave no links.
    fn as_chain(&self, parts: &[Part<'_>]) -> Result<Option<Chain>> {
        if let ([one], false) = (parts, self.drop.is_empty()) {
            return drop_links(one, &self.drop).map(Some);
        }
        if self.weights.iter().any(|&weight| weight != 1.0) {
            return Ok(None);
        }
        check_one_base(&self.weighted(parts))?;
        let [first, rest @ ..] = parts else { return Ok(None) };
        if rest.is_empty() {
            // Without a manifest it stays a plain adapter.
            return first.manifest.map(|_| first.as_chain()).transpose();
        }
        // A chain has the newest link's norms, embeddings and angles: those of the others would be lost.
        check_sum(&self.weighted(parts))?;
        let mut chain = first.as_chain()?;
        for part in rest {
            chain.extend(part.name, part.as_chain()?)?;
        }
        let fits = chain.merged().sites.iter().all(|site| site.rank <= (site.a.len() / site.rank).min(site.b.len() / site.rank));
        Ok(fits.then_some(chain))
    }
}

fn drop_links(part: &Part<'_>, links: &[usize]) -> Result<Chain> {
    let mut chain = part.chain()?;
    let mut links = links.to_vec();
    links.sort_unstable();
    links.dedup();
    let count = chain.links.len();
    if let Some(beyond) = links.iter().find(|&&link| link >= count) {
        return Err(Error::config("drop", format!("there is no link {beyond}"), format!("name links from 0 to {}", count - 1)));
    }
    if links.len() == count {
        return Err(Error::config("drop", format!("all {count} links of {} are named", part.name), "leave one at least"));
    }
    // From the end, so that the numbers of those before stay.
    links.iter().rev().try_for_each(|&link| chain.drop_link(link).map(drop))?;
    Ok(chain)
}

impl Chain {
    /// Its links as they are shown, oldest first.
    pub fn facts(&self) -> Vec<LinkFacts> {
        let facts = |link: &super::chain::ChainLink| LinkFacts {
            link: link.about.clone(),
            sites: link.adapter.sites.len(),
            parameters: link.adapter.parameters(),
        };
        self.links.iter().map(facts).collect()
    }
}

impl LinkFacts {
    /// The link in words.
    pub fn line(&self, number: usize) -> String {
        let Self { link, sites, parameters } = self;
        let kind = if link.rslora { ", rsLoRA" } else { "" };
        let (rank, alpha, steps) = (link.rank, link.alpha, link.steps);
        format!("  link {number}: rank {rank}, alpha {alpha}{kind}, {steps} steps, {sites} sites, {parameters} parameters")
    }
}

impl Edited {
    /// Its files.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn to_files(&self, name: &str) -> Result<Vec<File>> {
        match &self.chain {
            Some(chain) => chain.to_files(name),
            None => self.adapter.to_files(name),
        }
    }

    /// One sentence where nothing says which base the parts were trained on.
    pub fn warning(&self) -> Option<&'static str> {
        let sentence = "none of the adapters says which base it was trained on, so that could not be checked";
        self.adapter.note.is_none().then_some(sentence)
    }
}
