//! What was exported, put to the test: a text is scored with the base, with the adapter over it, and with what was written.

use serde::Serialize;

use super::evaluate::{self, EvalRows, EvalShape};
use super::score;
use super::start::lay_out;
use crate::export::exporters::Made;
use crate::export::peft::PeftAdapter;
use crate::export::request::Exported;
use crate::export::retention::Retention;
use crate::formats::ModelFile;
use crate::gpu::{Gpu, Tuner};
use crate::model::stretch;
use crate::text::{Example, Tokenizer};
use crate::{Error, Result};

/// Enough of everything that any adapter changes some of it: prose, questions, names, numbers, code, a list.
const PROBE: &str = "The capital of France is Paris. Who are you? I am a small language model, and I answer as well as I can.\n\
    Question: Tom has 12 apples and gives 7 away. How many are left? Answer: 5.\n\
    def add(a, b):\n    return a + b\n1. Wash the dishes. 2. Feed the cat. 3. Say \"good night\" to Clara.";
/// Longest probe in tokens.
const TOKENS: usize = 128;

/// The same kernels over the same factors, or over factors times what a common alpha leaves over: their last bits.
const FLOOR_OF_ADAPTERS: f64 = 2e-5;
/// `W + B A` in one matrix adds up in another order than `W` beside `B A`.
const FLOOR_OF_MODELS: f64 = 5e-4;
/// Rounding factors to sixteen bits changes their product by a share of 2⁻⁸ at most; this is twice that.
const SHARE: f64 = 0.01;
/// Rounding of factors up to which they are as they were.
const EXACT: f64 = 1e-6;
/// How far log-probabilities move per share by which rounding moves the weights. Measured on the demo: 25 for bf16, 10 for Q8_0; on SmolLM2 13.
const GAIN: f64 = 40.0;
/// Share of an update beyond which rounding takes it away rather than disturbs it: blocks of few bits.
const COARSE: f64 = 0.25;

/// What was written, opened again.
#[derive(Clone, Copy)]
pub enum Written<'a> {
    /// An adapter for the same base.
    Adapter(&'a PeftAdapter),
    /// A model of its own.
    Model(&'a ModelFile),
}

/// What the test found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// Mean loss of the probe with the base alone, in nats.
    pub base: f64,
    /// With the adapter over the base.
    pub adapter: f64,
    /// With what of the adapter the format has a place for, where that is not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<f64>,
    /// With what was written.
    pub written: f64,
    /// Tokens that were scored.
    pub tokens: usize,
    /// Root mean square change of the tokens' log-probabilities by the adapter.
    pub effect: f64,
    /// Root mean square difference between what was written and the adapter over the base.
    pub difference: f64,
    /// How large that difference may be.
    pub tolerance: f64,
    /// The format's steps are larger than what the adapter changes.
    #[serde(skip)]
    is_coarse: bool,
    /// The format cannot say how the angles were stretched.
    #[serde(skip)]
    loses_angles: bool,
}

impl Proof {
    /// The differences between lists of losses of the same tokens: with the base, with all of the adapter where some of it was left out, with what
    /// was exported of it, with what was written.
    ///
    /// # Panics
    /// When their lengths differ.
    pub fn of(base: &[f32], whole: Option<&[f32]>, adapter: &[f32], written: &[f32], noise: Noise) -> Self {
        assert!(base.len() == adapter.len() && base.len() == written.len(), "losses of the same tokens");
        let n = base.len().max(1) as f64;
        let mean = |x: &[f32]| x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let rms = |x: &[f32], y: &[f32]| (x.iter().zip(y).map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2)).sum::<f64>() / n).sqrt();
        let effect = rms(adapter, base);
        let rounding = noise.floor + noise.of_factors * effect + GAIN * noise.of_weights;
        // Where rounding takes a good part of the update away, which the retention tells, what was written may be about as far off as the base.
        let tolerance = if noise.is_coarse { rounding.max(2.0 * effect) } else { rounding };
        let difference = rms(written, adapter);
        Self {
            base: mean(base),
            adapter: mean(whole.unwrap_or(adapter)),
            part: whole.map(|_| mean(adapter)),
            written: mean(written),
            tokens: base.len(),
            effect,
            difference,
            tolerance,
            is_coarse: noise.is_coarse,
            loses_angles: noise.loses_angles,
        }
    }

    /// The numbers in words.
    pub fn line(&self) -> String {
        let part = self.part.map(|part| format!(" ({part:.4} without what this format has no place for)")).unwrap_or_default();
        format!(
            "opened again, on {} tokens of a probe text: loss {:.4} with the base, {:.4} with the adapter{part}, {:.4} with what was written",
            self.tokens, self.base, self.adapter, self.written
        )
    }

    /// One sentence where the adapter's effect is too small to be told from what the format rounds away.
    ///
    /// # Errors
    /// When the adapter has no effect, or what was written does not do the same.
    pub fn check(&self, name: &str) -> Result<Option<String>> {
        let error =
            |problem: String, hint| Error::Adapter { adapter: name.to_owned(), problem: format!("{problem} ({})", self.line()), hint };
        if self.effect == 0.0 {
            return Err(error(
                "it has no effect: no token's log-probability changes".into(),
                "train it, or see with inspect what it holds",
            ));
        }
        if self.difference.is_nan() || self.difference > self.tolerance {
            let problem = format!(
                "what was written is not the same: log-probabilities differ by {:.2e}, {:.2e} was allowed, and the adapter changes them by {:.2e}",
                self.difference, self.tolerance, self.effect
            );
            if self.loses_angles {
                let problem = format!("{problem}; the likely cause: this format cannot say how the rotary angles were stretched");
                return Err(error(problem, "export with --to merged-safetensors, or train with --rope-scaling linear or yarn"));
            }
            if self.is_coarse {
                let problem = format!(
                    "the steps of this format are larger than what the adapter changes: rounding moves log-probabilities by {:.2e}, the adapter \
                     by {:.2e}",
                    self.difference, self.effect
                );
                return Err(error(problem, "keep the adapter beside the base, or export with --format f16"));
            }
            return Err(error(problem, "report it, with the base and the adapter; nothing was left"));
        }
        let small = self.effect < 2.0 * self.tolerance;
        Ok(small.then(|| {
            format!(
                "the adapter changes the probe's log-probabilities by {:.1e}, and the rounding of this format may move them by {:.1e}: whether it \
                 survives cannot be seen there",
                self.effect, self.tolerance
            )
        }))
    }
}

/// How much rounding an exporter adds, as shares of what it rounds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Noise {
    floor: f64,
    of_factors: f64,
    of_weights: f64,
    is_coarse: bool,
    loses_angles: bool,
}

impl Noise {
    /// Of an adapter whose factors are moved by `rounding` at most ([`crate::export::same::rounding`]), or of a model whose weights the
    /// exporter has measured.
    pub fn of(made: Made, rounding: f64, exported: &Exported) -> Self {
        match made {
            Made::PeftFolder | Made::MixLoraFolder => Self { floor: FLOOR_OF_ADAPTERS, ..Self::default() },
            Made::GgufAdapter => {
                Self { floor: FLOOR_OF_ADAPTERS, of_factors: if rounding > EXACT { SHARE.max(rounding) } else { 0.0 }, ..Self::default() }
            }
            Made::ModelFolder | Made::ModelFile => {
                let mut all = Retention::default();
                exported.tensors.iter().for_each(|tensor| all.merge(&tensor.sums));
                let is_coarse = all.relative_error() > COARSE;
                Self {
                    floor: FLOOR_OF_MODELS,
                    of_factors: 0.0,
                    of_weights: all.relative_error() * all.relative_size(),
                    is_coarse,
                    loses_angles: exported.loses_angles,
                }
            }
        }
    }
}

/// The probe for a model: the text in its tokens, or tokens at regular distances where it has no tokenizer.
fn probe(file: &ModelFile) -> Example {
    let longest = file.config.max_position_embeddings.clamp(2, TOKENS);
    let vocabulary = file.config.vocab_size;
    let fits = |tokens: &Vec<u32>| tokens.len() > 1 && tokens.iter().all(|id| (*id as usize) < vocabulary);
    let text = Tokenizer::of_model(file).and_then(|tokenizer| tokenizer.encode(PROBE, true)).ok().filter(fits);
    let mut tokens = text.unwrap_or_else(|| (0..longest).map(|i| (i * 7919 % vocabulary) as u32).collect());
    tokens.truncate(longest);
    let targets = (0..tokens.len()).map(|i| i > 0).collect();
    Example { tokens, targets, row: 1, rejected: None }
}

/// Scores the probe with each, with the angles that the adapter was trained with. `adapter` is what was exported, `whole` all of it where some was
/// left out. `progress` gets bytes of weights done and in all.
///
/// # Errors
/// What the device makes impossible; damaged weights.
pub async fn prove(
    gpu: &Gpu,
    base: &ModelFile,
    adapter: &PeftAdapter,
    whole: Option<&PeftAdapter>,
    written: Written<'_>,
    noise: Noise,
    tuner: &mut Tuner,
    mut progress: impl FnMut(u64, u64),
) -> Result<Proof> {
    let example = probe(base);
    let rows = EvalRows { examples: vec![example.clone()], ..EvalRows::default() };
    let how = EvalShape { tokens: example.tokens.len(), quantize: None, measure: false };
    let mut adapters = vec![lay_out("the adapter", adapter, &base.config)?];
    if let Written::Adapter(written) = written {
        adapters.push(lay_out("what was written", written, &base.config)?);
    }
    let all = whole.map(|_| adapters.len());
    if let Some(whole) = whole {
        adapters.push(lay_out("the adapter", whole, &base.config)?);
    }
    // As it was trained; what was written as a model has these angles itself.
    let trained = adapter.note.as_ref().map_or_else(|| Ok(base.config.clone()), |note| stretch::of_settings(&base.config, &note.config))?;
    let planned = evaluate::plan_as(gpu, base, &trained, None, &adapters, &rows, how, tuner)?;
    let mut session = evaluate::open(gpu, base, planned, &adapters, how, tuner, &mut progress).await?;
    let alone = score::by_token(&mut session, gpu, &example, None).await?;
    let with = score::by_token(&mut session, gpu, &example, Some(0)).await?;
    let whole = match all {
        Some(at) => Some(score::by_token(&mut session, gpu, &example, Some(at)).await?),
        None => None,
    };
    let again = match written {
        Written::Adapter(_) => score::by_token(&mut session, gpu, &example, Some(1)).await?,
        Written::Model(model) => {
            drop(session); // two models need not fit the device together
            let planned = evaluate::plan(gpu, model, None, &[], &rows, how, tuner)?;
            let mut session = evaluate::open(gpu, model, planned, &[], how, tuner, &mut progress).await?;
            score::by_token(&mut session, gpu, &example, None).await?
        }
    };
    Ok(Proof::of(&alone, whole.as_deref(), &with, &again, noise))
}
