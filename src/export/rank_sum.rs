//! Several adapters of one base as one: `Σ w_i c_i B_i A_i` is the product of the factors side by side, exact up to the rounding of `w_i c_i B_i`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

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
/// When there is none, a weight is 0 or not finite, or they do not belong to one base: other base hashes, or other shapes at a site. As [`check_sum`].
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
        angles: first.adapter.note.as_ref().and_then(|note| note.angles.clone()),
        config: history(parts),
    });
    if let [Weighted { adapter, weight: 1.0, .. }] = parts {
        return Ok(PeftAdapter { note: adapter.note.clone().or(note), ..(*adapter).clone() });
    }
    check_sum(parts)?;
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

/// Refuses to put together what is more than products: norms and embeddings replace the base's, and each adapter answers as it was trained only with
/// the rotary angles that it was trained with.
///
/// # Errors
/// Names the adapter that cannot be part of a sum.
pub fn check_sum(parts: &[Weighted<'_>]) -> Result<()> {
    let error = |part: &Weighted<'_>, problem: String, hint| Error::Adapter { adapter: part.name.to_owned(), problem, hint };
    for part in parts {
        let (what, hint) = match (part.adapter.norms.is_empty(), &part.adapter.embeddings) {
            (true, None) => continue,
            (false, _) => {
                ("norms", "merge adapters that were trained without --train-norms, or export this one with --to merged-safetensors")
            }
            (true, Some(_)) => (
                "embeddings",
                "merge adapters that were trained without --train-embeddings, or export this one with --to merged-safetensors",
            ),
        };
        return Err(error(part, format!("it has {what} of its own, which can be neither added to another adapter nor weighted"), hint));
    }
    let [first, rest @ ..] = parts else { return Ok(()) };
    let differs = |part: &&Weighted<'_>| angles(part.adapter) != angles(first.adapter);
    rest.iter().find(differs).map_or(Ok(()), |other| {
        let problem = format!("it was trained for {}, {} for {}", in_words(other.adapter), first.name, in_words(first.adapter));
        Err(error(other, problem, "merge adapters that were trained with one --context and one --rope-scaling"))
    })
}

/// The context that an adapter's angles were stretched to, and how: linearly where neither it nor its model said.
fn angles(adapter: &PeftAdapter) -> Option<(&Value, &str)> {
    let settings = &adapter.note.as_ref()?.config;
    Some((settings.get("context")?, settings.get("rope-scaling").and_then(Value::as_str).unwrap_or("linear")))
}

fn in_words(adapter: &PeftAdapter) -> String {
    angles(adapter).map_or("the model's own context".to_owned(), |(context, scaling)| format!("a context of {context} tokens ({scaling})"))
}

/// What the note says of where it comes from, and the settings that a sum keeps: those of the angles, which are the same for all parts.
fn history(parts: &[Weighted<'_>]) -> Map {
    let part = |p: &Weighted<'_>| json!({"adapter": p.name, "weight": json_number(p.weight)});
    let settings = parts.first().and_then(|part| part.adapter.note.as_ref()).map(|note| &note.config);
    let of_angles = |key: &str| Some((key.to_owned(), settings?.get(key)?.clone()));
    let mut map: Map = ["context", "rope-scaling"].into_iter().filter_map(of_angles).collect();
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
