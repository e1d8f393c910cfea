//! Several adapters of one base as one: `Σ w_i c_i B_i A_i` is the product of the factors side by side, exact up to the rounding of `w_i c_i B_i`.

use std::collections::BTreeMap;

use serde_json::json;

use super::peft::{Note, PeftAdapter, PeftSite};
use super::recompress::{Cut, recompress_site};
use crate::adapters::Site;
use crate::adapters::patterns::json_number;
use crate::analysis::Factors;
use crate::settings::Map;
use crate::{Error, Result};

/// An adapter of a sum.
#[derive(Debug, Clone, Copy)]
pub struct Weighted<'a> {
    /// What errors and the note call it.
    pub name: &'a str,
    /// The adapter.
    pub adapter: &'a PeftAdapter,
    /// What its update is multiplied by; 1 adds it as it is, negative subtracts it.
    pub weight: f64,
}

/// The sum of some adapters. A site's rank is the sum of theirs, but never more than its weight's smaller size: beyond that, the exact product of
/// fewer rows is taken. One adapter of weight 1 is given back unchanged, but for its note.
///
/// # Errors
/// When there is none, a weight is 0 or not finite, or they do not belong to one base: other base hashes, or other shapes at a site.
pub fn rank_sum(parts: &[Weighted<'_>]) -> Result<PeftAdapter> {
    let Some(first) = parts.first() else {
        return Err(Error::config("adapter", "there is none to merge", "name one adapter folder or more"));
    };
    for part in parts {
        if !part.weight.is_finite() || part.weight == 0.0 {
            let problem = format!("{} for {}", part.weight, part.name);
            return Err(Error::config("weights", problem, "give a number other than 0, or leave that adapter out"));
        }
    }
    let base_hash = check_one_base(parts)?;
    let note = base_hash.map(|base_hash| Note {
        weblora: env!("CARGO_PKG_VERSION").to_owned(),
        base_hash,
        base_format: parts.iter().find_map(|part| Some(part.adapter.note.as_ref()?.base_format.clone())).unwrap_or_default(),
        rows: None,
        // What a file says of its steps may be any number.
        steps: parts.iter().filter_map(|part| part.adapter.note.as_ref()).fold(0, |steps: u64, note| steps.saturating_add(note.steps)),
        config: history(parts),
    });
    if let [Weighted { adapter, weight: 1.0, .. }] = parts {
        return Ok(PeftAdapter { note: adapter.note.clone().or(note), ..(*adapter).clone() });
    }
    let beside = |adapter: &PeftAdapter| match (adapter.norms.is_empty(), &adapter.embeddings) {
        (false, _) => Some(("norms", "merge adapters that were trained without --train-norms")),
        (true, Some(_)) => Some(("embeddings", "merge adapters that were trained without --train-embeddings")),
        (true, None) => None,
    };
    if let Some((part, (what, hint))) = parts.iter().find_map(|part| Some((part, beside(part.adapter)?))) {
        let problem = format!("it has {what} of its own, and {what} of several adapters do not add up");
        return Err(Error::Adapter { adapter: part.name.to_owned(), problem, hint });
    }
    let mut sites: BTreeMap<Site, Vec<(&Weighted<'_>, &PeftSite)>> = BTreeMap::new();
    for part in parts {
        for site in &part.adapter.sites {
            sites.entry(site.site).or_default().push((part, site));
        }
    }
    Ok(PeftAdapter {
        sites: sites.values().map(|own| join(own)).collect::<Result<_>>()?,
        norms: Vec::new(),
        embeddings: None,
        rslora: false,
        blocks: parts.iter().map(|part| part.adapter.blocks).max().unwrap_or(0),
        dropout: first.adapter.dropout,
        base_name: parts.iter().find_map(|part| part.adapter.base_name.clone()),
        note,
    })
}

/// The base hash of those adapters that know theirs.
///
/// # Errors
/// When two know different ones, or a site has another shape than in an adapter before.
pub fn check_one_base(parts: &[Weighted<'_>]) -> Result<Option<String>> {
    let error = |name: &str, problem: String| Error::Adapter { adapter: name.to_owned(), problem, hint: "merge adapters of one base only" };
    let mut shapes: BTreeMap<Site, ((usize, usize), &str)> = BTreeMap::new();
    for part in parts {
        for site in &part.adapter.sites {
            let own = site.factors(part.adapter.rslora)?.shape();
            let (expected, first) = *shapes.entry(site.site).or_insert((own, part.name));
            if own != expected {
                let problem = format!("{} is {} x {}, in {first} it is {} x {}", site.site, own.0, own.1, expected.0, expected.1);
                return Err(error(part.name, problem));
            }
        }
    }
    let mut known = parts.iter().filter_map(|part| Some((part.name, &part.adapter.note.as_ref()?.base_hash)));
    let Some((first, hash)) = known.next() else { return Ok(None) };
    match known.find(|(_, other)| *other != hash) {
        Some((name, other)) => Err(error(name, format!("it was trained on the base {other}, {first} on {hash}"))),
        None => Ok(Some(hash.clone())),
    }
}

/// What the note says of where it comes from.
fn history(parts: &[Weighted<'_>]) -> Map {
    let part = |p: &Weighted<'_>| json!({"adapter": p.name, "weight": json_number(p.weight)});
    let mut map = Map::new();
    map.insert("merged-from".into(), parts.iter().map(part).collect());
    map
}

/// The products of one site side by side; all of one shape.
fn join(own: &[(&Weighted<'_>, &PeftSite)]) -> Result<PeftSite> {
    let products = own.iter().map(|(part, site)| Ok((site.factors(part.adapter.rslora)?, part.weight))).collect::<Result<Vec<_>>>()?;
    let (out, inputs) = products[0].0.shape();
    let row = |o: usize| {
        let product = move |(f, weight): &(Factors<'_>, f64)| -> Vec<f32> {
            let scale = f.scale() * weight;
            f.b()[o * f.rank()..(o + 1) * f.rank()].iter().map(|x| (f64::from(*x) * scale) as f32).collect()
        };
        products.iter().flat_map(product).collect::<Vec<f32>>()
    };
    let rank: usize = products.iter().map(|(f, _)| f.rank()).sum();
    let a = products.iter().flat_map(|(f, _)| f.a().iter().copied()).collect();
    let joined = PeftSite { site: own[0].1.site, rank, alpha: rank as f64, a, b: (0..out).flat_map(row).collect() };
    if rank <= out.min(inputs) {
        return Ok(joined);
    }
    Ok(recompress_site(&joined, false, Cut { max_rank: Some(out.min(inputs)), energy: None })?.0)
}
