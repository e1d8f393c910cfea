//! Attention in obvious loops with explicit scores, for tests.

use super::{AttentionShape, Document};
use crate::kernels::real::Real;

/// The mask, written down a second time: which key rows a query row of a head sees.
#[derive(Debug, Clone)]
pub struct Visible {
    /// Each row's document. `[t]`
    document: Vec<Document>,
    /// Rows a query sees in every document, itself included.
    window: usize,
    /// Query heads.
    heads: usize,
}

impl Visible {
    /// Documents of these lengths, packed, seen through `shape`'s window.
    pub fn new(lengths: &[usize], shape: &AttentionShape) -> Self {
        Self::of(&Document::packed(lengths), shape)
    }

    /// These documents, seen through `shape`'s window.
    pub fn of(documents: &[Document], shape: &AttentionShape) -> Self {
        let document = documents.iter().flat_map(|doc| (doc.first..doc.end).map(|_| *doc)).collect();
        Self { document, window: shape.window.map_or(usize::MAX, |w| w as usize), heads: shape.heads as usize }
    }

    /// True if query row `i` of head `head` sees key row `j`.
    pub fn sees(&self, i: usize, j: usize, head: usize) -> bool {
        let doc = self.document[i];
        let grouped = |row: usize, group: usize| {
            let shift = if head >= self.heads / 2 { group / 2 } else { 0 };
            (row - doc.first as usize + shift) / group
        };
        let window = self.window.min(doc.window.map_or(usize::MAX, |w| w as usize));
        j <= i
            && j >= doc.first as usize
            && i - j < window
            && doc.group.is_none_or(|group| grouped(i, group as usize) == grouped(j, group as usize))
    }
}

/// Index helper: where head `head` of row `row` starts among `heads` heads.
fn at(row: usize, heads: usize, head: usize, head_dim: usize) -> usize {
    (row * heads + head) * head_dim
}

fn dot<R: Real>(a: &[R], b: &[R]) -> R {
    let mut sum = R::default();
    for d in 0..a.len() {
        sum += a[d] * b[d];
    }
    sum
}

/// (lse, weights over all rows, zero where unseen) of one query row and head.
fn weights<R: Real>(scores: impl Fn(usize) -> Option<R>, rows: usize) -> (R, Vec<R>) {
    let mut seen: Vec<Option<R>> = Vec::with_capacity(rows);
    let mut highest: Option<R> = None;
    for j in 0..rows {
        let score = scores(j);
        if let Some(s) = score {
            highest = Some(highest.map_or(s, |h| h.max(s)));
        }
        seen.push(score);
    }
    let highest = highest.unwrap_or_default();
    let exp: Vec<R> = seen.iter().map(|s| s.map_or(R::default(), |s| (s - highest).exp())).collect();
    let total: R = exp.iter().copied().sum();
    (highest + total.ln(), exp.iter().map(|e| *e / total).collect())
}

/// o `[t, h*hd]` and lse `[t, h]`.
pub fn attention_twin<R: Real>(shape: &AttentionShape, mask: &Visible, q: &[R], k: &[R], v: &[R]) -> (Vec<R>, Vec<R>) {
    let (rows, heads, kv, hd) = sizes(shape);
    let scale = R::of(f64::from(shape.head_dim)).sqrt();
    let mut o = vec![R::default(); rows * heads * hd];
    let mut lse = vec![R::default(); rows * heads];
    for i in 0..rows {
        for h in 0..heads {
            let (qi, kv_head) = (at(i, heads, h, hd), h / (heads / kv));
            let row = |j: usize| at(j, kv, kv_head, hd);
            let score = |j: usize| mask.sees(i, j, h).then(|| dot(&q[qi..qi + hd], &k[row(j)..row(j) + hd]) / scale);
            let (log_sum, w) = weights(score, rows);
            lse[i * heads + h] = log_sum;
            // Zero times what is not finite would be seen.
            for j in (0..=i).filter(|j| mask.sees(i, *j, h)) {
                for d in 0..hd {
                    o[qi + d] += w[j] * v[row(j) + d];
                }
            }
        }
    }
    (o, lse)
}

/// (dq, dk, dv) of [`attention_twin`] for the gradient `d_o` of its output.
pub fn attention_backward_twin<R: Real>(
    shape: &AttentionShape,
    mask: &Visible,
    q: &[R],
    k: &[R],
    v: &[R],
    d_o: &[R],
) -> (Vec<R>, Vec<R>, Vec<R>) {
    let (rows, heads, kv, hd) = sizes(shape);
    let scale = R::of(f64::from(shape.head_dim)).sqrt();
    let (mut d_q, mut d_k, mut d_v) = (vec![R::default(); q.len()], vec![R::default(); k.len()], vec![R::default(); v.len()]);
    for i in 0..rows {
        for h in 0..heads {
            let (qi, kv_head) = (at(i, heads, h, hd), h / (heads / kv));
            let row = |j: usize| at(j, kv, kv_head, hd);
            let score = |j: usize| mask.sees(i, j, h).then(|| dot(&q[qi..qi + hd], &k[row(j)..row(j) + hd]) / scale);
            let (_, w) = weights(score, rows);
            let seen: Vec<usize> = (0..=i).filter(|j| mask.sees(i, *j, h)).collect();
            let d_w: Vec<R> = (0..rows).map(|j| dot(&d_o[qi..qi + hd], &v[row(j)..row(j) + hd])).collect();
            let delta: R = seen.iter().map(|j| w[*j] * d_w[*j]).sum();
            for j in seen {
                let d_s = w[j] * (d_w[j] - delta) / scale;
                for d in 0..hd {
                    d_q[qi + d] += d_s * k[row(j) + d];
                    d_k[row(j) + d] += d_s * q[qi + d];
                    d_v[row(j) + d] += w[j] * d_o[qi + d];
                }
            }
        }
    }
    (d_q, d_k, d_v)
}

/// o `[n, h*hd]` of the last `n = shape.rows` rows of a sequence of `length` rows, against all its keys and values `[length.., kv*hd]`.
pub fn decode_twin<R: Real>(shape: &AttentionShape, length: usize, q: &[R], k: &[R], v: &[R]) -> Vec<R> {
    let (rows, heads, kv, hd) = sizes(shape);
    let whole = AttentionShape { rows: length as u32, ..*shape };
    let mut all = vec![R::default(); length * heads * hd];
    let skipped = (length - rows) * heads * hd;
    all[skipped..].copy_from_slice(&q[..rows * heads * hd]);
    let (o, _) = attention_twin(&whole, &Visible::new(&[length], &whole), &all, &k[..length * kv * hd], &v[..length * kv * hd]);
    o[skipped..].to_vec()
}

fn sizes(shape: &AttentionShape) -> (usize, usize, usize, usize) {
    (shape.rows as usize, shape.heads as usize, shape.kv_heads as usize, shape.head_dim as usize)
}
