//! Chains of adapters as files: one rank-sum LoRA adapter that every program loads as it is, and `chain.json`, which says which ranks
//! are whose, so that links can be listed, dropped, split off, joined and continued later.
//!
//! The adapter is **cumulative**: its folder holds all links, oldest first, and is added to the original base alone. At a site link j owns
//! as many consecutive rows of A and columns of B as its rank there. All functions are pure; a chain that was read is whole.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde::{Deserialize, Serialize};

use super::folder::{CHAIN_FILE, File};
use super::peft::{Note, PeftAdapter, PeftSite};
use crate::adapters::chain::check_range;
use crate::adapters::config::MAX_RANK;
use crate::adapters::embeddings::EmbeddingRows;
use crate::adapters::{AdapterLayout, Site, SiteAdapter, initial_buffer};
use crate::settings::Map;
use crate::{Error, Result};

/// Version of the file; another one is refused.
pub const VERSION: u32 = 1;

const HINT_MANIFEST: &str = "use the chain.json that was saved with this adapter, or remove it and use the adapter as one link";

/// One link, as `chain.json` has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Rank at the sites that `ranks` does not name.
    pub rank: usize,
    /// Ranks of single modules (`model.layers.0.self_attn.q_proj`) where they differ; 0 where the link has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ranks: BTreeMap<String, usize>,
    /// alpha that it was trained with.
    pub alpha: f64,
    /// Its scale was alpha / sqrt(rank), not alpha / rank.
    #[serde(default)]
    pub rslora: bool,
    /// Optimizer steps it was trained for.
    pub steps: u64,
}

impl Link {
    /// Its rank at a site, 0 where it has no part.
    pub fn rank_at(&self, site: Site) -> usize {
        self.ranks.get(&site.module()).copied().unwrap_or(self.rank)
    }
}

/// `chain.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// Identity of the base weights that the whole chain belongs to (`ModelFile::content_hash`), where it is known.
    pub base_hash: Option<String>,
    /// The adapter beside this file holds all links together: it is added to the base alone.
    pub cumulative: bool,
    /// The links, oldest first.
    pub links: Vec<Link>,
}

impl Manifest {
    /// Reads the file; `name` is what errors call the adapter.
    ///
    /// # Errors
    /// When it is no manifest of this version, or holds no link.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self> {
        let error =
            |problem: String| Error::Adapter { adapter: name.to_owned(), problem: format!("{CHAIN_FILE}: {problem}"), hint: HINT_MANIFEST };
        // The version comes first: a later one may hold anything else.
        let any: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| error(format!("not JSON: {e}")))?;
        let version = any.get("version").and_then(serde_json::Value::as_u64);
        if version != Some(u64::from(VERSION)) {
            let found = version.map_or_else(|| "unknown".to_owned(), |v| v.to_string());
            return Err(error(format!("its version is {found}, {VERSION} was expected")));
        }
        let manifest: Self = serde_json::from_value(any).map_err(|e| error(format!("cannot be read: {e}")))?;
        if manifest.links.is_empty() {
            return Err(error("it has no link".to_owned()));
        }
        if !manifest.cumulative {
            return Err(error("`cumulative` is false; one folder with all links was expected".to_owned()));
        }
        Ok(manifest)
    }

    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Only numbers, strings and maps with string keys: nothing that JSON cannot hold.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text.into_bytes()
    }
}

/// A link with its factors, an adapter of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct ChainLink {
    /// What the manifest says of it.
    pub about: Link,
    /// Its sites; where a scale was folded to join the others its alpha is the folded one.
    pub adapter: PeftAdapter,
}

/// A chain in memory, oldest link first; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Chain {
    /// The links.
    pub links: Vec<ChainLink>,
    /// Identity of the base, where it is known.
    pub base_hash: Option<String>,
}

impl Chain {
    /// Cuts a rank-sum adapter into the links of its manifest.
    ///
    /// # Errors
    /// When the manifest does not match the tensors or names another base than the adapter's note.
    pub fn from_adapter(name: &str, adapter: &PeftAdapter, manifest: &Manifest) -> Result<Self> {
        let error =
            |problem: String| Error::Adapter { adapter: name.to_owned(), problem: format!("{CHAIN_FILE}: {problem}"), hint: HINT_MANIFEST };
        let noted = adapter.note.as_ref().map(|note| &note.base_hash);
        if let (Some(noted), Some(own)) = (noted, &manifest.base_hash)
            && noted != own
        {
            return Err(error(format!("it belongs to the base {own}, the adapter to {noted}")));
        }
        let modules: HashSet<String> = adapter.sites.iter().map(|site| site.site.module()).collect();
        if let Some(unknown) = manifest.links.iter().flat_map(|link| link.ranks.keys()).find(|module| !modules.contains(*module)) {
            return Err(error(format!("it names {unknown}, which the adapter does not have")));
        }
        for site in &adapter.sites {
            let ranks: Vec<usize> = manifest.links.iter().map(|link| link.rank_at(site.site)).collect();
            if ranks.iter().try_fold(0usize, |sum, &rank| sum.checked_add(rank)) != Some(site.rank) {
                return Err(error(format!("links of ranks {ranks:?} at {}, whose tensors have rank {}", site.site, site.rank)));
            }
        }
        let mut first = vec![0; adapter.sites.len()];
        let mut links = Vec::with_capacity(manifest.links.len());
        for about in &manifest.links {
            let mut sites = Vec::new();
            for (site, first) in adapter.sites.iter().zip(&mut first) {
                let rank = about.rank_at(site.site);
                if rank > 0 {
                    sites.push(cut(site, adapter.rslora, *first, rank));
                }
                *first += rank;
            }
            if sites.is_empty() {
                return Err(error("a link has rank 0 everywhere".to_owned()));
            }
            let note = adapter.note.as_ref().map(|note| Note { steps: about.steps, ..note.clone() });
            links.push(ChainLink {
                about: about.clone(),
                adapter: PeftAdapter { norms: Vec::new(), embeddings: None, ..adapter.with(sites, note) },
            });
        }
        if let Some(newest) = links.last_mut() {
            newest.adapter.norms.clone_from(&adapter.norms);
            newest.adapter.embeddings.clone_from(&adapter.embeddings);
        }
        Ok(Self { links, base_hash: manifest.base_hash.clone().or_else(|| noted.cloned()) })
    }

    /// An adapter without a manifest as a chain of one link.
    pub fn of_one(adapter: PeftAdapter) -> Self {
        let config = adapter.config();
        let others = adapter.sites.iter().filter(|site| site.rank != config.r).map(|site| (site.site.module(), site.rank));
        let about = Link {
            rank: config.r,
            ranks: others.collect(),
            alpha: config.lora_alpha,
            rslora: adapter.rslora,
            steps: adapter.note.as_ref().map_or(0, |note| note.steps),
        };
        let base_hash = adapter.note.as_ref().map(|note| note.base_hash.clone());
        Self { links: vec![ChainLink { about, adapter }], base_hash }
    }

    /// An adapter as a chain: cut by its manifest, or one link without.
    ///
    /// # Errors
    /// As [`Manifest::parse`] and [`Self::from_adapter`].
    pub fn read(name: &str, adapter: PeftAdapter, manifest: Option<&[u8]>) -> Result<Self> {
        match manifest {
            Some(bytes) => Self::from_adapter(name, &adapter, &Manifest::parse(name, bytes)?),
            None => Ok(Self::of_one(adapter)),
        }
    }

    /// As [`Self::read`], for what needs several links (listing, splitting, dropping).
    ///
    /// # Errors
    /// When there is no manifest, too.
    pub fn read_chain(name: &str, adapter: PeftAdapter, manifest: Option<&[u8]>) -> Result<Self> {
        if manifest.is_none() {
            return Err(Error::Adapter {
                adapter: name.to_owned(),
                problem: format!("it is no chain: it has no {CHAIN_FILE}"),
                hint: "name an adapter that --method cola trained or that was joined from several",
            });
        }
        Self::read(name, adapter, manifest)
    }

    /// Appends the links of `other`, which were trained on the same base (with this chain beside it, or not: the sum is what counts).
    ///
    /// # Errors
    /// When the bases are known and differ, the models have another shape, or the chain becomes longer than any buffer.
    pub fn extend(&mut self, name: &str, other: Self) -> Result<()> {
        let error = |problem: String, hint| Error::Adapter { adapter: name.to_owned(), problem, hint };
        if let (Some(ours), Some(theirs)) = (&self.base_hash, &other.base_hash)
            && ours != theirs
        {
            return Err(error(format!("it belongs to the base {theirs}, the chain to {ours}"), "join adapters of one base only"));
        }
        let shape = |chain: &Self| chain.links.first().map(|link| link.adapter.blocks);
        if shape(self) != shape(&other) {
            return Err(error("it belongs to a model of another number of blocks".to_owned(), "join adapters of one base only"));
        }
        let size = |site: &PeftSite| (site.b.len() / site.rank, site.a.len() / site.rank);
        let ours: BTreeMap<Site, (usize, usize)> =
            self.links.iter().flat_map(|link| &link.adapter.sites).map(|site| (site.site, size(site))).collect();
        let differs = |site: &&PeftSite| ours.get(&site.site).is_some_and(|own| *own != size(site));
        if let Some(site) = other.links.iter().flat_map(|link| &link.adapter.sites).find(differs) {
            let (out, inputs) = size(site);
            return Err(error(
                format!("{} is {out} x {inputs}, in the chain it is another size", site.site),
                "join adapters of one base only",
            ));
        }
        let before = self.links.len();
        self.base_hash = self.base_hash.take().or(other.base_hash);
        self.links.extend(other.links);
        let longest = self.merged().max_rank();
        if longest > MAX_RANK {
            self.links.truncate(before);
            let problem = format!("the ranks of the joined chain add up to {longest}, {MAX_RANK} is the most");
            return Err(error(problem, "recompress one of the adapters first"));
        }
        Ok(())
    }

    /// Takes link `index` (from 0, the oldest) out.
    ///
    /// # Errors
    /// When there is no such link, or it is the only one.
    pub fn drop_link(&mut self, index: usize) -> Result<ChainLink> {
        let links = self.links.len();
        if index >= links || links == 1 {
            let problem = if links == 1 { "the chain has one link only".to_owned() } else { format!("there is no link {index}") };
            return Err(Error::config("link", problem, format!("name a link from 0 to {} of a chain of several", links - 1)));
        }
        Ok(self.links.remove(index))
    }

    /// The links as adapters of their own, oldest first. Each but the first was trained with those before it in place.
    pub fn split(self) -> Vec<PeftAdapter> {
        self.links.into_iter().map(|link| link.adapter).collect()
    }

    /// The rank-sum adapter. Where links have one scale it stays, and their factors keep their bits; else it becomes the newest link's at that
    /// site, and the others' B take the quotient.
    pub fn merged(&self) -> PeftAdapter {
        let mut parts: BTreeMap<Site, Vec<(&PeftSite, f64)>> = BTreeMap::new();
        for link in &self.links {
            for site in &link.adapter.sites {
                parts.entry(site.site).or_default().push((site, site.scale(link.adapter.rslora)));
            }
        }
        let join = |(site, parts): (Site, Vec<(&PeftSite, f64)>)| {
            let rank: usize = parts.iter().map(|(part, _)| part.rank).sum();
            let scale = parts.last().map_or(1.0, |(_, scale)| *scale);
            let out = parts.first().map_or(0, |(part, _)| part.b.len() / part.rank);
            let row = |o: usize| {
                parts.iter().flat_map(move |(part, own)| {
                    let quotient = (own / scale) as f32;
                    part.b[o * part.rank..(o + 1) * part.rank].iter().map(move |x| x * quotient)
                })
            };
            let a = parts.iter().flat_map(|(part, _)| part.a.iter().copied()).collect();
            PeftSite { site, rank, alpha: scale * rank as f64, a, b: (0..out).flat_map(row).collect() }
        };
        let newest = &self.links[self.links.len() - 1].adapter;
        // What a file says of its steps may be any number.
        let steps = self.links.iter().fold(0, |steps: u64, link| steps.saturating_add(link.about.steps));
        let note = newest.note.clone().map(|note| Note { steps, ..note });
        PeftAdapter { rslora: false, ..newest.with(parts.into_iter().map(join).collect(), note) }
    }

    /// What `chain.json` says.
    pub fn manifest(&self) -> Manifest {
        let everywhere: BTreeSet<Site> = self.links.iter().flat_map(|link| &link.adapter.sites).map(|site| site.site).collect();
        let complete = |link: &ChainLink| {
            let own: BTreeMap<Site, usize> = link.adapter.sites.iter().map(|own| (own.site, own.rank)).collect();
            let ranks = everywhere.iter().map(|site| (site, own.get(site).copied().unwrap_or(0)));
            let differing = ranks.filter(|(_, rank)| *rank != link.about.rank).map(|(site, rank)| (site.module(), rank));
            Link { ranks: differing.collect(), ..link.about.clone() }
        };
        let links = self.links.iter().map(complete).collect();
        Manifest { version: VERSION, base_hash: self.base_hash.clone(), cumulative: true, links }
    }

    /// The folder's files: the rank-sum adapter and the manifest. `adapter_config.json` is last: a folder that has it is whole.
    ///
    /// # Errors
    /// When a value is not finite.
    pub fn to_files(&self, name: &str) -> Result<Vec<File>> {
        let mut files = self.merged().to_files(name)?;
        files.insert(files.len() - 1, (CHAIN_FILE, self.manifest().to_bytes()));
        Ok(files)
    }

    /// The chain of a run in training: its parameters in `values`, a flat buffer of `layout.params`, whose slices are the link that trains
    /// and then the frozen ones, newest first. `links` are all links, oldest first. Rows that only pad a link to its rank are left out.
    pub fn from_layout(layout: &AdapterLayout, values: &[f32], links: &[Link], base_name: Option<String>, note: Option<Note>) -> Self {
        let hf = |index: usize| layout.params.specs[index].to_hf(values);
        let dropout = layout.dropout.to_string().parse().unwrap_or_default();
        let (blocks, rslora) = (layout.blocks, layout.rslora);
        let link = |(j, about): (usize, &Link)| {
            let slice = |site: &SiteAdapter| site.slices.iter().rev().nth(j).copied();
            let sites = layout.sites.iter().filter_map(|site| {
                let slice = slice(site)?;
                let whole = PeftSite { site: site.site, rank: slice.rank, alpha: slice.alpha, a: hf(slice.a), b: hf(slice.b) };
                let rank = about.rank_at(site.site);
                (rank > 0).then(|| if rank == whole.rank { whole } else { cut(&whole, rslora, 0, rank) })
            });
            // What trains beside the links belongs to the newest.
            let is_newest = j + 1 == links.len();
            let norms = if is_newest { layout.norms.iter().map(|param| hf(*param)).collect() } else { Vec::new() };
            let embeddings = is_newest.then(|| EmbeddingRows::of(layout, values)).flatten();
            let (sites, base_name, note) = (sites.collect(), base_name.clone(), note.clone());
            let adapter = PeftAdapter { sites, norms, embeddings, rslora, blocks, dropout, base_name, note };
            ChainLink { about: about.clone(), adapter }
        };
        let base_hash = note.as_ref().map(|note| note.base_hash.clone());
        Self { links: links.iter().enumerate().map(link).collect(), base_hash }
    }

    /// The settings of a run that goes on from this chain with new links: its sites, and the scale and kind of its newest link.
    pub fn settings(&self) -> Map {
        let largest = |link: &ChainLink| link.adapter.max_rank();
        let newest = &self.links[self.links.len() - 1].about;
        let mut map = Map::new();
        map.insert("inherited-ranks".into(), self.links.iter().map(largest).collect());
        map.insert("targets".into(), self.merged().config().target_modules.into());
        map.insert("rslora".into(), newest.rslora.into());
        if self.links.iter().any(|link| !link.adapter.norms.is_empty()) {
            map.insert("train-norms".into(), true.into());
        }
        if self.links.iter().any(|link| link.adapter.embeddings.is_some()) {
            map.insert("train-embeddings".into(), true.into());
        }
        map
    }

    /// The values of a run that goes on from this chain with new links: its first `links` links are these, padded with zero rows to one rank
    /// at all sites.
    ///
    /// # Errors
    /// When a link has a site that the run does not target, or a rank larger than the run's.
    pub fn to_buffer(&self, name: &str, layout: &AdapterLayout, seed: u64) -> Result<Vec<f32>> {
        let error = |problem: String, hint| Error::Adapter { adapter: name.to_owned(), problem, hint };
        let mut buffer = initial_buffer(&layout.params, seed);
        if let Some(newest) = self.links.last() {
            newest.adapter.put_beside(name, layout, &mut buffer)?;
        }
        let places: BTreeMap<Site, &SiteAdapter> = layout.sites.iter().map(|site| (site.site, site)).collect();
        for (j, link) in self.links.iter().enumerate() {
            for theirs in &link.adapter.sites {
                let ours = places.get(&theirs.site).ok_or_else(|| {
                    error(format!("it adapts {}, the run does not", theirs.site), "add it to --targets, or leave out --targets")
                })?;
                let slice = ours.slices.iter().rev().nth(j).filter(|slice| slice.rank >= theirs.rank);
                let slice = slice.ok_or_else(|| {
                    error(
                        format!("link {j} has rank {} at {}, the run has no room", theirs.rank, theirs.site),
                        "leave out --inherited-ranks",
                    )
                })?;
                let (a, b) = (&layout.params.specs[slice.a], &layout.params.specs[slice.b]);
                let quotient = (theirs.scale(link.adapter.rslora) / f64::from(slice.scale)) as f32;
                let mut padded_a = vec![0.0; a.len()];
                padded_a[..theirs.a.len()].copy_from_slice(&theirs.a);
                let mut padded_b = vec![0.0; b.len()];
                for (row, own) in padded_b.chunks_exact_mut(slice.rank).zip(theirs.b.chunks_exact(theirs.rank)) {
                    row.iter_mut().zip(own).for_each(|(x, own)| *x = own * quotient);
                }
                for (spec, values) in [(a, padded_a), (b, padded_b)] {
                    check_range(spec, &values)?;
                    spec.put_hf(&values, &mut buffer);
                }
            }
            // Sites that this link does not have.
            let theirs: BTreeSet<Site> = link.adapter.sites.iter().map(|theirs| theirs.site).collect();
            for ours in layout.sites.iter().filter(|ours| !theirs.contains(&ours.site)) {
                if let Some(slice) = ours.slices.iter().rev().nth(j) {
                    [slice.a, slice.b].into_iter().for_each(|index| buffer[layout.params.specs[index].range()].fill(0.0));
                }
            }
        }
        Ok(buffer)
    }
}

/// Ranks `first..first + rank` of a site, with the site's scale.
fn cut(site: &PeftSite, rslora: bool, first: usize, rank: usize) -> PeftSite {
    let inputs = site.a.len() / site.rank;
    let divisor = |rank: usize| if rslora { (rank as f64).sqrt() } else { rank as f64 };
    PeftSite {
        site: site.site,
        rank,
        alpha: site.scale(rslora) * divisor(rank),
        a: site.a[first * inputs..(first + rank) * inputs].to_vec(),
        b: site.b.chunks_exact(site.rank).flat_map(|row| row[first..first + rank].iter().copied()).collect(),
    }
}
