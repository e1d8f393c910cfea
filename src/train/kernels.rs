//! Kernel choices that a run's bits depend on: kept in its checkpoints, and taken again where it goes on.
//!
//! What is fastest is measured, and measurements are noisy: two caches of one GPU disagree now and then. Most candidates of a kernel sum in one
//! order and give the same bits; of those that do not, a run repeats the ones that it began with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gpu::{Plan, Tuner};

/// The choices of some recordings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelChoices {
    /// Adapter, driver and version of the kernels: [`Tuner::cache_key`].
    pub device: String,
    /// By tunable case: the candidate that runs.
    pub choices: BTreeMap<String, String>,
}

impl KernelChoices {
    /// Those of `plans`, recorded with `tuner`.
    pub(super) fn of<'p>(plans: impl IntoIterator<Item = &'p Plan>, tuner: &Tuner) -> Self {
        let choices = plans.into_iter().flat_map(|plan| plan.order_choices.clone()).collect();
        Self { device: tuner.cache_key(), choices }
    }

    /// Makes recordings with `tuner` repeat what was `saved` on its device, until [`Tuner::unpin`]. To be called before a run is planned, also of one
    /// that is new: what was pinned for another run is forgotten.
    pub fn repeat<'s>(saved: impl IntoIterator<Item = &'s KernelChoices>, tuner: &mut Tuner) {
        tuner.unpin();
        let device = tuner.cache_key();
        saved.into_iter().filter(|saved| saved.device == device).for_each(|saved| tuner.pin(&saved.choices));
    }

    /// Why a run with these choices, which goes on from `saved`, may not have the bits of an undisturbed one; `None` where it has.
    pub fn difference(&self, saved: &KernelChoices) -> Option<String> {
        const END: &str = "the run goes on, but its last digits may differ from those of one that was not interrupted";
        if self.device != saved.device {
            return Some(format!("the checkpoint was made on {:?}, this is {:?}: {END}", saved.device, self.device));
        }
        let differ = |(key, candidate): (&String, &String)| saved.choices.get(key) != Some(candidate);
        let first = self.choices.iter().find(|choice| differ(*choice)).map(|(key, _)| key);
        let first = first.or_else(|| saved.choices.keys().find(|key| !self.choices.contains_key(*key)))?;
        Some(format!("kernels sum in another order than before the checkpoint ({first:?} is the first): {END}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(device: &str, of: &[(&str, &str)]) -> KernelChoices {
        KernelChoices { device: device.into(), choices: of.iter().map(|(key, candidate)| ((*key).into(), (*candidate).into())).collect() }
    }

    #[test]
    fn differences_name_the_device_or_the_case() {
        let saved = choices("a", &[("x", "1"), ("y", "1")]);
        assert_eq!(saved.difference(&saved), None);
        let said = |now: &KernelChoices| now.difference(&saved).expect("a difference");
        assert!(said(&choices("b", &[("x", "1"), ("y", "1")])).contains(r#"made on "a", this is "b""#));
        assert!(said(&choices("a", &[("x", "1"), ("y", "2")])).contains(r#"("y" is the first)"#));
        assert!(said(&choices("a", &[("x", "1")])).contains(r#"("y" is the first)"#));
        assert!(said(&choices("a", &[("x", "1"), ("y", "1"), ("z", "1")])).contains(r#"("z" is the first)"#));
    }

    #[test]
    fn choices_of_another_device_are_not_taken() {
        let mut tuner = Tuner::none();
        let own = choices(&tuner.cache_key(), &[("x", "1")]);
        KernelChoices::repeat([&own, &choices("another", &[("y", "1")])], &mut tuner);
        assert_eq!(tuner.pinned().keys().collect::<Vec<_>>(), ["x"]);
        KernelChoices::repeat(None, &mut tuner);
        assert!(tuner.pinned().is_empty());
    }
}
