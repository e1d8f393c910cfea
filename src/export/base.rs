//! Whether an adapter belongs to a base, and whether it does anything.

use super::peft::{Note, PeftAdapter};
use crate::formats::{BaseId, file_name};
use crate::{Error, Result};

impl PeftAdapter {
    /// The base that it was trained on, as far as it says.
    pub fn base(&self) -> Option<BaseId> {
        noted(self.note.as_ref(), self.base_name.as_deref())
    }

    /// One sentence where it was trained on another file than `base`. Its shapes have been checked when it was read, so that it can be used all the
    /// same: the adapter of a Q4 file on the F16 file of one model is usual. Without a note nothing is known.
    ///
    /// # Errors
    /// When both are known and differ, and `strict` says that this is no warning.
    pub fn check_base(&self, name: &str, base: &BaseId, strict: bool) -> Result<Option<String>> {
        check(self.base(), name, base, strict)
    }

    /// How far the factors of `other` are from these: the largest difference at a site as a share of the largest number there, with scales in B;
    /// infinite where sites or shapes differ.
    pub fn distance(&self, other: &Self) -> f64 {
        if self.sites.len() != other.sites.len() {
            return f64::INFINITY;
        }
        let mut worst = 0.0f64;
        for (own, theirs) in self.sites.iter().zip(&other.sites) {
            if (own.site, own.rank, own.a.len(), own.b.len()) != (theirs.site, theirs.rank, theirs.a.len(), theirs.b.len()) {
                return f64::INFINITY;
            }
            let scales = (own.scale(self.rslora), theirs.scale(other.rslora));
            worst = worst.max(apart(&own.a, &theirs.a, (1.0, 1.0))).max(apart(&own.b, &theirs.b, scales));
        }
        match (&self.embeddings, &other.embeddings) {
            (Some(own), Some(theirs)) if own.tokens == theirs.tokens => worst.max(apart(&own.delta, &theirs.delta, (1.0, 1.0))),
            // What a format cannot hold is told.
            (_, None) => worst,
            _ => f64::INFINITY,
        }
    }

    /// The largest number of the factor that has the smallest numbers, those of zeros aside: 1 where all are zero.
    pub fn least(&self) -> f64 {
        let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let all = self.sites.iter().flat_map(|site| [largest(&site.a), largest(&site.b)]).filter(|x| *x > 0.0);
        all.reduce(f32::min).map_or(1.0, f64::from)
    }

    /// Whether its update is zero everywhere: it was never trained, or only at a rate of 0.
    pub fn is_zero(&self) -> bool {
        let embeddings = self.embeddings.iter().all(|own| own.delta.iter().all(|x| *x == 0.0));
        embeddings && self.sites.iter().all(|site| site.b.iter().all(|x| *x == 0.0) || site.a.iter().all(|x| *x == 0.0))
    }

    /// What to say of an adapter that [is zero](Self::is_zero).
    pub fn zero_problem(&self) -> Option<String> {
        self.is_zero().then(|| all_zero(self.note.as_ref()))
    }
}

/// The base that a note names.
pub(super) fn noted(note: Option<&Note>, base_name: Option<&str>) -> Option<BaseId> {
    let note = note?;
    let name = base_name.map(file_name).unwrap_or_default();
    Some(BaseId { hash: note.base_hash.clone(), name: name.to_owned(), format: note.base_format.clone() })
}

/// What [`PeftAdapter::check_base`] says of an adapter that was trained on `own`.
pub(super) fn check(own: Option<BaseId>, name: &str, base: &BaseId, strict: bool) -> Result<Option<String>> {
    let Some(own) = own.filter(|own| own.hash != base.hash) else { return Ok(None) };
    if strict {
        return Err(Error::Adapter {
            adapter: name.to_owned(),
            problem: format!("it was trained on the base {own}, this one is {base}"),
            hint: "use the model file that it was trained on",
        });
    }
    Ok(Some(format!(
        "adapter {name} was trained on the base {own}, this one is {base}: the shapes are the same, so it is used; that is right for two \
         files of one model and wrong for two models"
    )))
}

/// What to say of an adapter that changes nothing.
pub(super) fn all_zero(note: Option<&Note>) -> String {
    let steps = note.map(|note| format!(" after {} steps", note.steps)).unwrap_or_default();
    format!("its B is all zero{steps}: it changes nothing")
}

/// The largest difference of two lists as a share of the largest number of the first.
fn apart(x: &[f32], y: &[f32], scales: (f64, f64)) -> f64 {
    let each = || x.iter().zip(y).map(|(x, y)| (f64::from(*x) * scales.0, f64::from(*y) * scales.1));
    let largest = each().fold(0.0f64, |most, (x, _)| most.max(x.abs()));
    let worst = each().fold(0.0f64, |most, (x, y)| most.max((x - y).abs()));
    if worst == 0.0 { 0.0 } else { worst / largest }
}
