//! The settings of long contexts: how far a run looks, in what groups (LongLoRA's shifted sparse attention), and with what positions.

use serde::Serialize;

use super::batch::MAX_ROWS;
use crate::config::ModelConfig;
use crate::model::stretch::{self, Stretch};
use crate::settings::Settings;
use crate::{Error, Result};

/// What a run does about long contexts; all of it is off by default. Serialises with the keys of run files.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ContextConfig {
    /// Tokens that the model is to read after the run; `seq` where that is not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<usize>,
    /// Rows of a group in training; without it and without a ratio attention is full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<usize>,
    /// Rows of a group as a share of `seq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_ratio: Option<f64>,
    /// Evaluations tell the loss under the groups, too; default false.
    pub eval_group: bool,
    /// How rotary angles are stretched where the context is longer than the model's; default: as the model's are, else linearly.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "by_name")]
    pub rope_scaling: Option<Stretch>,
    /// Positions of training rows.
    pub positions: Positions,
}

/// Positions of training rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// A token's place in its row.
    #[default]
    Row,
    /// Skipped positions: `pose.rs`.
    Pose,
}

impl Positions {
    /// Names in settings.
    pub const TABLE: &'static [(&'static str, Self)] = &[("row", Self::Row), ("pose", Self::Pose)];
}

// serde's signature for `serialize_with`.
#[expect(clippy::ref_option)]
fn by_name<S: serde::Serializer>(method: &Option<Stretch>, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    method.map(Stretch::name).serialize(serializer)
}

impl ContextConfig {
    /// Reads the keys.
    ///
    /// # Errors
    /// Names the key whose value cannot work.
    pub fn read(s: &mut Settings<'_>) -> Result<Self> {
        let ratio = s.numbers("group-ratio", "a share of --seq up to 1, such as 0.25", |x| x > 0.0 && x <= 1.0)?;
        Ok(Self {
            context: s.count_or_none("context", 2..=MAX_ROWS as u64)?.map(|n| n as usize),
            group: s.count_or_none("group", 2..=MAX_ROWS as u64)?.map(|n| n as usize),
            group_ratio: ratio.map(|ratio| ratio[0]),
            eval_group: s.flag("eval-group", false)?,
            rope_scaling: s.choice(
                "rope-scaling",
                None,
                &Stretch::TABLE.iter().map(|(name, one)| (*name, Some(*one))).collect::<Vec<_>>(),
            )?,
            positions: s.choice("positions", Positions::default(), Positions::TABLE)?,
        })
    }

    /// Rows of a group for rows of up to `seq` tokens; `None` is full attention. The same for every row, however short: a row that is no
    /// longer than half a group is seen whole.
    ///
    /// # Errors
    /// A group that is odd or longer than a row, a ratio that gives no even number of rows, both at once, or evaluation under no groups.
    pub fn group(&self, seq: usize) -> Result<Option<u32>> {
        let shifted = "half of the heads are shifted by half a group";
        let group = match (self.group, self.group_ratio) {
            (Some(_), Some(_)) => return Err(Error::config("group-ratio", "given together with `group`", "give one of the two")),
            (None, None) if self.eval_group => {
                return Err(Error::config("eval-group", "there are no groups", "give --group or --group-ratio, too"));
            }
            (None, None) => return Ok(None),
            (Some(group), None) if group > seq => {
                let problem = format!("{group} rows are more than the longest row of {seq} tokens");
                return Err(Error::config("group", problem, format!("use --group {} or less, or leave it out", seq / 2 * 2)));
            }
            (Some(group), None) if !group.is_multiple_of(2) => {
                let problem = format!("is {group}, and {shifted}");
                return Err(Error::config("group", problem, format!("give an even number, such as {} or {}", group - 1, group + 1)));
            }
            (Some(group), None) => group,
            (None, Some(ratio)) => {
                let rows = ratio * seq as f64;
                let even = 2.0 * (rows / 2.0).round();
                if (rows - even).abs() > 1e-9 * rows || even < 2.0 {
                    let problem = format!("{ratio} of {seq} tokens are {rows} rows, and {shifted}");
                    // Of two that are equally near the smaller one, which is never longer than a row.
                    let near = (2.0 * (rows / 2.0 - 0.5).ceil()).max(2.0);
                    return Err(Error::config("group-ratio", problem, format!("give --group {near} or another --seq")));
                }
                even as usize
            }
        };
        Ok(u32::try_from(group).ok())
    }
}

impl ContextConfig {
    /// Refuses what is fine alone and not together, for rows of up to `seq` tokens.
    ///
    /// # Errors
    /// As [`Self::group`]; rows longer than the context, a stretch without one, skipped positions with nothing to skip.
    pub fn check(&self, seq: usize) -> Result<()> {
        self.group(seq)?;
        match self.context {
            Some(context) if context < seq => {
                let problem = format!("rows of {seq} tokens are longer than the context of {context}");
                Err(Error::config("seq", problem, "leave --seq out, or give a longer --context"))
            }
            None if self.rope_scaling.is_some() => {
                Err(Error::config("rope-scaling", "there is no length to stretch to", "give --context, too"))
            }
            context if self.positions == Positions::Pose && context.is_none_or(|context| context == seq) => {
                let problem = format!("is pose, and the context is no longer than the rows of {seq} tokens");
                Err(Error::config("positions", problem, "give a longer --context and the --seq that the model reads now"))
            }
            _ => Ok(()),
        }
    }

    /// One sentence where groups cut less than they seem to, in rows of up to `longest` tokens.
    ///
    /// # Errors
    /// As [`Self::group`].
    pub fn uncut(&self, seq: usize, longest: usize) -> Result<Option<String>> {
        let Some(group) = self.group(seq)?.map(|group| group as usize) else { return Ok(None) };
        let rows = format!("groups of {group} rows, and no training row is longer than {longest} tokens");
        Ok(if longest <= group / 2 {
            Some(format!("{rows}: no row is cut, and attention is full"))
        } else if longest <= group {
            Some(format!("{rows}: only the shifted half of the heads is cut, at half a group"))
        } else {
            None
        })
    }

    /// The model as this run trains it: with stretched angles where its context is longer than the model's.
    ///
    /// # Errors
    /// As [`stretch::stretched`].
    pub fn stretch(&self, model: &ModelConfig) -> Result<ModelConfig> {
        self.context.map_or_else(|| Ok(model.clone()), |context| stretch::stretched(model, context, self.rope_scaling))
    }

    /// Longest position plus one of a run with rows of up to `seq` tokens.
    pub fn reach(&self, seq: usize) -> usize {
        if self.positions == Positions::Pose { self.context.unwrap_or(seq) } else { seq }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::TrainConfig;
    use serde_json::json;

    fn group(settings: serde_json::Value) -> Result<Option<u32>> {
        let config = TrainConfig::from_map(settings.as_object().expect("an object"))?;
        config.context.group(config.seq)
    }

    #[test]
    fn a_group_is_given_or_a_share_of_a_row() {
        assert_eq!(group(json!({})).expect("full"), None);
        assert_eq!(group(json!({"group": 32, "seq": 128})).expect("given"), Some(32));
        assert_eq!(group(json!({"group-ratio": 0.25, "context": 128})).expect("a share"), Some(32));
        assert_eq!(group(json!({"group-ratio": 0.3, "seq": 40})).expect("12.000000000000002 is 12"), Some(12));
        assert_eq!(group(json!({"group": 128, "seq": 128})).expect("a whole row"), Some(128));
    }

    #[test]
    fn groups_that_cut_less_than_they_seem_to_are_told() {
        let context = ContextConfig { group: Some(64), ..ContextConfig::default() };
        let told = |longest| context.uncut(128, longest).expect("a group").unwrap_or_default();
        assert!(told(32).contains("attention is full") && told(33).contains("shifted half") && told(64).contains("shifted half"));
        assert_eq!((told(65), ContextConfig::default().uncut(128, 2).expect("no group")), (String::new(), None));
    }

    #[test]
    fn what_cannot_be_cut_is_refused_before_the_run() {
        let refused = |settings| group(settings).expect_err("refused").to_string();
        let odd = refused(json!({"group": 33}));
        assert!(odd.contains("`group`") && odd.contains("32 or 34"), "{odd}");
        let long = refused(json!({"group": 130, "seq": 128}));
        assert!(long.contains("128 tokens"), "{long}");
        let uneven = refused(json!({"group-ratio": 0.25, "seq": 100}));
        assert!(uneven.contains("25 rows") && uneven.contains("--group 24"), "{uneven}");
        let near = refused(json!({"group-ratio": 0.3, "seq": 64}));
        assert!(near.contains("19.2 rows") && near.contains("--group 20"), "{near}");
        let tiny = refused(json!({"group-ratio": 0.001, "seq": 100}));
        assert!(tiny.contains("`group-ratio`") && tiny.contains("--group 2"), "{tiny}");
        assert!(refused(json!({"group": 32, "group-ratio": 0.5})).contains("one of the two"));
        assert!(refused(json!({"eval-group": true})).contains("--group"));
        assert!(refused(json!({"group-ratio": 1.5})).contains("`group-ratio`"));
        assert!(refused(json!({"context": 64, "seq": 128})).contains("`seq`"));
        assert!(refused(json!({"rope-scaling": "yarn"})).contains("--context"));
        assert!(refused(json!({"positions": "pose"})).contains("longer --context"));
        assert!(refused(json!({"positions": "pose", "context": 128})).contains("`positions`"));
        assert!(refused(json!({"rope-scaling": "cubic", "context": 128})).contains("linear, dynamic, llama3 or yarn"));
    }
}
