//! Attention of one document, forward and backward: by the mask rule, and as LongLoRA's authors first had it.

use super::super::probe::Probe;
use super::super::scene::Scene;
use super::super::setup::Bench;
use super::form::Form;
use crate::Result;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::attention::{self, AttentionShape, Document, documents};

/// Slower than this, a recording is timed twice, not in rounds; slower than the second number, once.
const SLOW: (f64, f64) = (1.0, 15.0);

/// Heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub query: usize,
    pub kv: usize,
    /// Width of a head.
    pub dim: usize,
}

impl Heads {
    /// Bytes of the queries of so many rows, the largest of all tensors.
    pub fn bytes(self, rows: usize) -> u64 {
        4 * (rows * self.query * self.dim) as u64
    }
}

/// Attention of some heads, and its tensors: queries, what they see, and the gradients of all.
struct Part {
    shape: AttentionShape,
    documents: Tensor,
    /// `[rows, query heads, dim]`: q, dO in; O, dQ out.
    wide: [Tensor; 4],
    /// `[rows, kv heads, dim]`: k, v in; dK, dV out.
    narrow: [Tensor; 4],
    lse: Tensor,
    roll: Option<Roll>,
}

/// Rolled copies of the tensors of a [`Part`].
struct Roll {
    /// Rows that it is rolled by.
    by: usize,
    wide: [Tensor; 4],
    narrow: [Tensor; 4],
}

/// Seconds of forward and backward of one document of `rows`, and the bytes of all tensors.
pub(super) async fn measure(bench: &mut Bench<'_>, heads: Heads, rows: usize, form: Form) -> Result<(f64, u64)> {
    let mut scene = Scene::default();
    let parts = if form == Form::Rolled {
        // Keys and values are repeated for every query head, as the authors have them; that copy is not timed.
        let (first, group) = (heads.query / 2, rows / 4);
        let groups = Document::packed(&[group; 4]);
        let of = |query: usize| Heads { query, kv: query, ..heads };
        let unrolled = Part::declare(&mut scene, "first half", of(first), rows, &groups, None)?;
        vec![unrolled, Part::declare(&mut scene, "second half", of(heads.query - first), rows, &groups, Some(group / 2))?]
    } else {
        let document = Document { group: form.group(rows).map(|group| group as u32), ..Document::new(0, rows as u32) };
        vec![Part::declare(&mut scene, "attention", heads, rows, &[document], None)?]
    };
    let bytes = parts.iter().map(Part::bytes).sum();
    let body = |rec: &mut Recorder| {
        parts.iter().for_each(|part| part.forward(rec));
        parts.iter().for_each(|part| part.backward(rec));
    };
    bench.tune(&body).await?;
    let store = scene.allocate(bench.gpu).await?;
    let mut probe = Probe::new(bench.gpu, bench.tuner, store, &body).await?;
    let once = probe.seconds(bench.gpu).await?;
    if once > SLOW.1 {
        return Ok((once, bytes));
    }
    if once > SLOW.0 {
        return Ok((once.min(probe.seconds(bench.gpu).await?), bytes));
    }
    probe.repeat(bench.gpu, bench.tuner, &body).await?;
    let count = bench.rounds();
    Ok((bench.peak.rounds(bench.gpu, &mut probe, count).await?.seconds, bytes))
}

impl Part {
    fn declare(scene: &mut Scene, name: &str, heads: Heads, rows: usize, documents: &[Document], roll: Option<usize>) -> Result<Part> {
        let Heads { query, kv, dim } = heads;
        let shape = AttentionShape { rows: rows as u32, heads: query as u32, kv_heads: kv as u32, head_dim: dim as u32, window: None };
        let mut table = documents::table(documents);
        table.resize(documents::table_words(rows), 0);
        let documents = scene.words(&format!("{name} documents"), table)?;
        let mut four = |kind: &str, width: usize| -> Result<[Tensor; 4]> {
            let len = rows * width * dim;
            let [a, b] = ["in 0", "in 1"].map(|label| scene.noise(&format!("{name} {kind} {label}"), len));
            let [c, d] = ["out 0", "out 1"].map(|label| scene.zeros(&format!("{name} {kind} {label}"), len));
            Ok([a?, b?, c?, d?])
        };
        let (wide, narrow) = (four("wide", query)?, four("narrow", kv)?);
        let roll = match roll {
            Some(by) => Some(Roll { by, wide: four("rolled wide", query)?, narrow: four("rolled narrow", kv)? }),
            None => None,
        };
        let lse = scene.zeros(&format!("{name} lse"), rows * query)?;
        Ok(Part { shape, documents, wide, narrow, lse, roll })
    }

    /// Of all tensors, with the two that the backward pass makes of `lse`'s size.
    fn bytes(&self) -> u64 {
        let rolled = self.roll.iter().flat_map(|roll| roll.wide.iter().chain(&roll.narrow));
        let own = self.wide.iter().chain(&self.narrow).chain([&self.documents, &self.lse, &self.lse, &self.lse]);
        own.chain(rolled).map(|tensor| tensor.bytes()).sum()
    }

    fn forward(&self, rec: &mut Recorder) {
        let Part { shape, documents, lse, .. } = self;
        let ([q, _, o, _], [k, v, ..]) = (self.wide, self.narrow);
        let Some(roll) = &self.roll else { return attention::forward(rec, "attention", shape, q, k, v, *documents, o, *lse) };
        let ([rolled_q, _, rolled_o, _], [rolled_k, rolled_v, ..]) = (roll.wide, roll.narrow);
        for (from, to) in [(q, rolled_q), (k, rolled_k), (v, rolled_v)] {
            roll.back(rec, shape, from, to);
        }
        attention::forward(rec, "attention", shape, rolled_q, rolled_k, rolled_v, *documents, rolled_o, *lse);
        roll.forth(rec, shape, rolled_o, o);
    }

    fn backward(&self, rec: &mut Recorder) {
        let Part { shape, documents, lse, .. } = self;
        let (wide, narrow) = self.roll.as_ref().map_or((self.wide, self.narrow), |roll| (roll.wide, roll.narrow));
        let ([q, d_o, o, d_q], [k, v, d_k, d_v]) = (wide, narrow);
        if let Some(roll) = &self.roll {
            roll.back(rec, shape, self.wide[1], d_o);
        }
        attention::backward(rec, "attention", shape, q, k, v, *documents, o, *lse, d_o, d_q, d_k, d_v);
        if let Some(roll) = &self.roll {
            for (from, to) in [(d_q, self.wide[3]), (d_k, self.narrow[2]), (d_v, self.narrow[3])] {
                roll.forth(rec, shape, from, to);
            }
        }
    }
}

impl Roll {
    /// Row `by` becomes row 0.
    fn back(&self, rec: &mut Recorder, shape: &AttentionShape, from: Tensor, to: Tensor) {
        roll(rec, from, to, self.by * from.len as usize / shape.rows as usize);
    }

    /// Row 0 becomes row `by`.
    fn forth(&self, rec: &mut Recorder, shape: &AttentionShape, from: Tensor, to: Tensor) {
        roll(rec, from, to, (shape.rows as usize - self.by) * (from.len as usize / shape.rows as usize));
    }
}

/// Word `by` of `from` becomes word 0 of `to`; what is before it goes to the end.
fn roll(rec: &mut Recorder, from: Tensor, to: Tensor, by: usize) {
    let len = from.len as usize;
    rec.copy(from.slice(by..len), to.slice(0..len - by));
    rec.copy(from.slice(0..by), to.slice(len - by..len));
}
