//! Attention over long rows, forward and backward: full, and in the shifted groups of LongLoRA. Time and memory by length, with fitted exponents.

use super::probe::Probe;
use super::record::{AttentionFitRecord, AttentionRecord, Record};
use super::scene::Scene;
use super::setup::Bench;
use crate::Result;
use crate::gpu::Recorder;
use crate::kernels::attention::{self, AttentionShape, Document, documents};

/// Query heads, key/value heads and their width in SmolLM2-135M and Llama-3.2-1B.
const HEADS: [(&str, usize, usize, usize); 2] = [("SmolLM2-135M", 9, 3, 64), ("Llama-3.2-1B", 32, 8, 64)];
/// Rows of one document.
const LENGTHS: [usize; 7] = [512, 1024, 2048, 4096, 8192, 16_384, 32_768];
/// Longer rows are left out where these already take so many seconds: the next take two to four times as long.
const LONGEST: f64 = 10.0;
/// Rows of the groups that do not grow with the row.
const GROUP: usize = 512;

/// What is compared with full attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Full,
    /// Groups of a quarter of the row, as LongLoRA has them.
    Quarter,
    /// Groups of [`GROUP`] rows.
    Fixed,
}

impl Form {
    const ALL: [Form; 3] = [Form::Full, Form::Quarter, Form::Fixed];

    fn name(self) -> &'static str {
        ["full", "groups of 1/4", "groups of 512"][self as usize]
    }

    fn group(self, length: usize) -> Option<u32> {
        match self {
            Form::Full => None,
            Form::Quarter => Some(length as u32 / 4),
            Form::Fixed => Some(GROUP as u32),
        }
    }
}

/// Length of a row, seconds of each form, bytes.
type Measured = (usize, [f64; 3], u64);

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    for (model, heads, kv_heads, head_dim) in HEADS {
        let mut found: Vec<Measured> = Vec::new();
        let lengths = if bench.options.quick { &LENGTHS[..3] } else { &LENGTHS[..] };
        for &length in lengths {
            if found.last().is_some_and(|(_, seconds, _)| seconds[0] > LONGEST) {
                break;
            }
            let mut seconds = [0.0; 3];
            let mut bytes = 0;
            for form in Form::ALL {
                (seconds[form as usize], bytes) = measure(bench, (heads, kv_heads, head_dim), length, form).await?;
                (bench.report)(&Record::Attention(AttentionRecord {
                    heads: model,
                    tokens: length,
                    form: form.name(),
                    ms: seconds[form as usize] * 1e3,
                    of_full: seconds[form as usize] / seconds[0],
                    bytes,
                }))?;
            }
            found.push((length, seconds, bytes));
        }
        for form in Form::ALL {
            let of = |value: &dyn Fn(&Measured) -> f64| {
                // What does not grow with the row hides the exponent of short ones.
                let long: Vec<(f64, f64)> = found.iter().rev().take(4).map(|one| ((one.0 as f64).ln(), value(one).ln())).collect();
                slope(&long)
            };
            let faster = found.iter().find(|(_, seconds, _)| form != Form::Full && seconds[form as usize] < seconds[0]);
            (bench.report)(&Record::AttentionFit(AttentionFitRecord {
                heads: model,
                form: form.name(),
                time_exponent: of(&|one| one.1[form as usize]),
                memory_exponent: of(&|one| one.2 as f64),
                faster_from: faster.map(|(length, ..)| *length),
            }))?;
        }
    }
    Ok(())
}

/// Seconds of forward and backward of one document, and the bytes of all its tensors.
async fn measure(bench: &mut Bench<'_>, (h, kv, hd): (usize, usize, usize), rows: usize, form: Form) -> Result<(f64, u64)> {
    let shape = AttentionShape { rows: rows as u32, heads: h as u32, kv_heads: kv as u32, head_dim: hd as u32, window: None };
    let document = Document { group: form.group(rows), ..Document::new(0, rows as u32) };
    let (wide, narrow) = (rows * h * hd, rows * kv * hd);
    let mut scene = Scene::default();
    let [q, d_o] = [scene.noise("q", wide)?, scene.noise("do", wide)?];
    let [k, v] = [scene.noise("k", narrow)?, scene.noise("v", narrow)?];
    let mut table = documents::table(&[document]);
    table.resize(documents::table_words(rows), 0);
    let documents = scene.words("documents", table)?;
    let [o, d_q, lse] = [scene.zeros("o", wide)?, scene.zeros("dq", wide)?, scene.zeros("lse", rows * h)?];
    let [d_k, d_v] = [scene.zeros("dk", narrow)?, scene.zeros("dv", narrow)?];
    let bytes = 4 * [q, d_o, o, d_q, k, v, d_k, d_v, lse, lse, lse, documents].iter().map(|t| u64::from(t.len)).sum::<u64>();
    let body = |rec: &mut Recorder| {
        attention::forward(rec, "attention", &shape, q, k, v, documents, o, lse);
        attention::backward(rec, "attention", &shape, q, k, v, documents, o, lse, d_o, d_q, d_k, d_v);
    };
    bench.tune(&body).await?;
    let store = scene.allocate(bench.gpu).await?;
    let mut probe = Probe::new(bench.gpu, bench.tuner, store, &body).await?;
    let once = probe.seconds(bench.gpu).await?;
    if once > LONGEST / 10.0 {
        return Ok((once.min(probe.seconds(bench.gpu).await?), bytes));
    }
    probe.repeat(bench.gpu, bench.tuner, &body).await?;
    let count = bench.rounds();
    Ok((bench.peak.rounds(bench.gpu, &mut probe, count).await?.seconds, bytes))
}

/// Of the line through these points by least squares.
fn slope(points: &[(f64, f64)]) -> f64 {
    let n = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let (above, below) = points.iter().fold((0.0, 0.0), |(a, b), p| (a + (p.0 - x) * (p.1 - y), b + (p.0 - x).powi(2)));
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_has_its_exponent() {
        let points: Vec<(f64, f64)> = LENGTHS.iter().map(|n| ((*n as f64).ln(), (3.0 * (*n as f64).powf(1.5)).ln())).collect();
        assert!((slope(&points) - 1.5).abs() < 1e-9);
        assert_eq!((Form::Quarter.group(8192), Form::Fixed.group(8192), Form::Full.group(8192)), (Some(2048), Some(512), None));
    }
}
