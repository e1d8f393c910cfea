//! Shifted sparse attention against its authors' two forms: the roll of Algorithm 1 and the segments of their packed one; what lies outside a
//! group is never read; jobs with and without groups share a recording.

use crate::common::{assert_close, gpu, noise};
use serde_json::json;
use weblora::gpu::{Candidate, Gpu, Recorder, Tuner};
use weblora::kernels::attention::documents::table;
use weblora::kernels::attention::{self, AttentionShape, Document, Pass, Visible, attention_twin};

use crate::common::Bench;

/// (rows, group, query heads, key/value heads): even and odd head counts, grouped queries, groups of any even size.
const CASES: [(usize, usize, usize, usize); 8] =
    [(32, 8, 4, 2), (64, 16, 9, 3), (40, 10, 5, 1), (48, 12, 1, 1), (36, 6, 15, 5), (128, 32, 6, 2), (16, 16, 4, 4), (24, 2, 2, 1)];

fn shape(rows: usize, heads: usize, kv_heads: usize) -> AttentionShape {
    AttentionShape { rows: rows as u32, heads: heads as u32, kv_heads: kv_heads as u32, head_dim: 4, window: None }
}

fn grouped(rows: usize, group: usize) -> Document {
    Document { group: Some(group as u32), ..Document::new(0, rows as u32) }
}

/// Attention as Algorithm 1 has it: q, k and v (repeated for every query head) of the second half of the heads are rolled back by half a
/// group, every group of rows is a sequence of its own, and outputs are rolled forth. `leak` keeps what wraps around.
fn rolled(shape: &AttentionShape, group: usize, q: &[f64], k: &[f64], v: &[f64], leak: bool) -> Vec<f64> {
    let (rows, heads, kv, hd) = (shape.rows as usize, shape.heads as usize, shape.kv_heads as usize, shape.head_dim as usize);
    let mut o = vec![0.0; q.len()];
    for head in 0..heads {
        let shift = if head >= heads / 2 { group / 2 } else { 0 };
        // Rolled row r is row (r + shift) mod n.
        let origin = |r: usize| (r + shift) % rows;
        let q_at = |r: usize| (origin(r) * heads + head) * hd;
        let kv_at = |r: usize| (origin(r) * kv + head / (heads / kv)) * hd;
        for begin in (0..rows).step_by(group) {
            for i in begin..begin + group {
                let seen: Vec<usize> = (begin..=i).filter(|j| leak || origin(*j) <= origin(i)).collect();
                let score = |j: &usize| (0..hd).map(|d| q[q_at(i) + d] * k[kv_at(*j) + d]).sum::<f64>() / (hd as f64).sqrt();
                let weights: Vec<f64> = seen.iter().map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, weight) in seen.iter().zip(weights) {
                    (0..hd).for_each(|d| o[q_at(i) + d] += weight / total * v[kv_at(*j) + d]);
                }
            }
        }
    }
    o
}

#[test]
fn the_mask_is_the_roll_without_what_wraps_around() {
    for (rows, group, heads, kv) in CASES {
        let shape = shape(rows, heads, kv);
        let mask = Visible::of(&[grouped(rows, group)], &shape);
        let wide = |seed, width: usize| noise(seed, rows * width * 4).iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (q, k, v) = (wide(1, heads), wide(2, kv), wide(3, kv));
        let (ours, _) = attention_twin(&shape, &mask, &q, &k, &v);
        let far = |theirs: &[f64]| ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let what = format!("{rows} rows, groups of {group}, {heads} heads on {kv}");
        let most = far(&rolled(&shape, group, &q, &k, &v, false));
        assert!(most < 1e-12, "{what}: off by {most}");
        // With the wrap-around the first half group of shifted heads sees the last one.
        assert!(far(&rolled(&shape, group, &q, &k, &v, true)) > 1e-3, "{what}: the leak is not seen");
        let rolled_row = |row: usize| (row + rows - group / 2) % rows;
        for head in 0..heads {
            let leaks = |i: usize, j: usize| {
                let (a, b) = (rolled_row(i), rolled_row(j));
                head >= heads / 2 && b <= a && a / group == b / group && !mask.sees(i, j, head)
            };
            let pairs: Vec<(usize, usize)> =
                (0..rows).flat_map(|i| (0..rows).map(move |j| (i, j))).filter(|(i, j)| leaks(*i, *j)).collect();
            let want = if head >= heads / 2 { (group / 2).pow(2) } else { 0 };
            assert_eq!(pairs.len(), want, "{what}, head {head}");
            assert!(pairs.iter().all(|(i, j)| j > i), "{what}: all of it looks ahead");
        }
    }
}

/// Rows that the group does not divide: the segments of the authors' packed form, the last one cut short.
#[test]
fn ragged_rows_have_the_authors_segments() {
    for (rows, group, heads, kv) in
        [(37usize, 8usize, 9usize, 3usize), (5, 8, 4, 2), (4, 8, 5, 5), (65, 16, 3, 1), (3, 2, 2, 2), (1, 4, 4, 1)]
    {
        let mask = Visible::of(&[grouped(rows, group)], &shape(rows, heads, kv));
        for head in 0..heads {
            let first = if head >= heads / 2 { group / 2 } else { group };
            let mut begins = vec![0];
            begins.extend((first..rows).step_by(group));
            let segment = |row: usize| begins.iter().rposition(|begin| *begin <= row);
            for (i, j) in (0..rows).flat_map(|i| (0..rows).map(move |j| (i, j))) {
                let want = j <= i && segment(i) == segment(j);
                assert_eq!(mask.sees(i, j, head), want, "{i} {j}, head {head} of {heads}, {rows} rows in groups of {group}");
            }
        }
    }
}

/// Runs one form of one pass over `documents` and returns its outputs.
fn run(gpu: &Gpu, pass: Pass, form: &Candidate, shape: &AttentionShape, documents: &[Document], data: &Data, parts: u32) -> Vec<Vec<f32>> {
    let mut bench = Bench::new();
    let [q, k, v, d_o, o, lse] = [&data.q, &data.k, &data.v, &data.d_o, &data.o, &data.lse].map(|x| bench.put("input", x));
    let words = bench.put("documents", &table(documents));
    let stats = bench.put("stats", &vec![0f32; 2 * data.lse.len()]);
    let outputs: Vec<_> = match pass {
        Pass::Forward => vec![o, lse],
        Pass::Queries => vec![bench.put("dq", &data.q)],
        Pass::KeysValues => vec![bench.put("dk", &data.k), bench.put("dv", &data.v)],
    };
    let bind = match pass {
        Pass::Forward => vec![q, k, v, words, o, lse],
        _ => [vec![q, k, v, d_o, stats, words], outputs.clone()].concat(),
    };
    bench.run(gpu, &Tuner::none(), &outputs, |rec: &mut Recorder| {
        if pass != Pass::Forward {
            attention::delta(rec, "delta", shape, o, d_o, lse, stats);
        }
        for part in 0..parts {
            let what = attention::part_dispatch(pass, "pass", shape, &bind, (part, parts));
            rec.dispatch(form.spec, form.variant.clone(), form.grid, what);
        }
    })
}

struct Data {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_o: Vec<f32>,
    o: Vec<f32>,
    lse: Vec<f32>,
}

/// NaN in every row that no row of `kept` shares a group with, in any head: whoever reads it writes NaN.
#[test]
fn tiles_outside_a_group_are_never_read() {
    let Some(gpu) = gpu() else { return };
    // Groups are whole tiles of every height, so that a tile of one group meets no other.
    let (rows, group) = (512usize, 256usize);
    let shape = AttentionShape { rows: rows as u32, heads: 4, kv_heads: 2, head_dim: 8, window: None };
    let documents = [grouped(rows, group)];
    let mask = Visible::of(&documents, &shape);
    let clean = |seed, width: usize| noise(seed, rows * width);
    for pass in [Pass::Forward, Pass::Queries, Pass::KeysValues] {
        // Queries look back, gradients of keys come from what looks back at them.
        let kept = if pass == Pass::KeysValues { 0..128 } else { 256..384 };
        let shares = |row: usize| kept.clone().any(|i| (0..4).any(|head| mask.sees(i.max(row), i.min(row), head)));
        let outside: Vec<usize> = (0..rows).filter(|row| !shares(*row)).collect();
        assert_eq!(outside.len(), if pass == Pass::KeysValues { 256 } else { 128 });
        let poison = |mut x: Vec<f32>| {
            let width = x.len() / rows;
            outside.iter().for_each(|row| x[row * width..(row + 1) * width].fill(f32::NAN));
            x
        };
        for form in attention::forms(pass, &shape, Some(gpu.facts())) {
            let data = |poison: &dyn Fn(Vec<f32>) -> Vec<f32>| Data {
                q: poison(clean(1, 32)),
                k: poison(clean(2, 16)),
                v: poison(clean(3, 16)),
                d_o: poison(clean(4, 32)),
                o: poison(clean(5, 32)),
                lse: poison(clean(6, 4)),
            };
            let right = run(gpu, pass, &form, &shape, &documents, &data(&|x| x), 1);
            let beside = run(gpu, pass, &form, &shape, &documents, &data(&poison), 1);
            let full = run(gpu, pass, &form, &shape, &[Document::new(0, rows as u32)], &data(&poison), 1);
            for ((right, beside), full) in right.iter().zip(&beside).zip(&full) {
                let width = right.len() / rows;
                let rows_of = |x: &[f32]| x[kept.start * width..kept.end * width].to_vec();
                assert!(rows_of(right) == rows_of(beside), "{} {}: reads outside the group", form.spec.name, form.variant.key());
                assert!(rows_of(full).iter().any(|x| x.is_nan()), "{}: full attention would read it", form.spec.name);
            }
        }
    }
}

/// Long passes are recorded in parts of the tiles: together they are the pass, bit for bit, also where there are more parts than tiles.
#[test]
fn parts_of_a_pass_are_the_pass() {
    let Some(gpu) = gpu() else { return };
    let mut documents = Document::packed(&[70, 33, 5, 90]);
    documents[3].group = Some(16);
    let shape = AttentionShape { rows: 198, heads: 6, kv_heads: 3, head_dim: 12, window: None };
    let data = Data {
        q: noise(1, 198 * 72),
        k: noise(2, 198 * 36),
        v: noise(3, 198 * 36),
        d_o: noise(4, 198 * 72),
        o: noise(5, 198 * 72),
        lse: noise(6, 198 * 6),
    };
    for pass in [Pass::Forward, Pass::Queries, Pass::KeysValues] {
        let form = attention::candidates(pass, &shape, Some(gpu.facts())).remove(0);
        let whole = run(gpu, pass, &form, &shape, &documents, &data, 1);
        for parts in [2, 3, 40] {
            assert!(run(gpu, pass, &form, &shape, &documents, &data, parts) == whole, "{pass:?} in {parts} parts");
        }
    }
}

#[test]
fn a_ragged_batch_of_documents_with_and_without_groups_matches_the_twin() {
    let Some(gpu) = gpu() else { return };
    let mut documents = Document::packed(&[70, 33, 5, 90]);
    (documents[0].group, documents[1].group, documents[3].group) = (Some(24), Some(64), Some(16));
    let shape = AttentionShape { rows: 198, heads: 9, kv_heads: 3, head_dim: 12, window: None };
    let mask = Visible::of(&documents, &shape);
    let (q, k, v) = (noise(1, 198 * 108), noise(2, 198 * 36), noise(3, 198 * 36));
    let (o, lse) = attention_twin(&shape, &mask, &q, &k, &v);
    for form in attention::forms(Pass::Forward, &shape, Some(gpu.facts())) {
        let zeros = |x: &[f32]| vec![0.0; x.len()];
        let data = Data { q: q.clone(), k: k.clone(), v: v.clone(), d_o: zeros(&q), o: zeros(&o), lse: zeros(&lse) };
        let got = run(gpu, Pass::Forward, &form, &shape, &documents, &data, 1);
        assert_close(&format!("o, {}", form.variant.key()), &got[0], &o, 2e-5, 2e-5);
        assert_close(&format!("lse, {}", form.variant.key()), &got[1], &lse, 2e-5, 2e-5);
    }
}

#[test]
fn jobs_with_and_without_groups_train_beside_each_other_as_they_do_alone() {
    let Some(gpu) = gpu() else { return };
    let jobs = [
        ("full", json!({ "rank": 4 })),
        ("grouped", json!({ "rank": 4, "group": 4, "eval-every": 2, "eval-group": true })),
        ("chain", json!({ "method": "cola", "links": [2, 3], "group-ratio": 0.25 })),
        ("modules", json!({ "method": "multilora", "modules": 2, "rank": 2, "group": 6 })),
        ("experts", json!({ "method": "mixlora", "experts": 3, "rank": 2, "group": 4 })),
    ];
    let together = crate::fleet::run_all(gpu, &jobs);
    for (name, _) in &jobs {
        let alone = crate::fleet::run_one(gpu, &jobs, name);
        assert_eq!(together.losses(name), alone.losses(name), "{name}: losses");
        assert!(together.adapter(name) == alone.adapter(name), "{name}: the adapter's bytes");
    }
    // The same job without groups learns something else.
    let mut other = jobs.clone();
    other[1].1 = json!({ "rank": 4, "eval-every": 2 });
    let full = crate::fleet::run_all(gpu, &other);
    assert_eq!(full.losses("full"), together.losses("full"));
    assert_ne!(full.losses("grouped"), together.losses("grouped"), "groups change nothing");
    let both = together.evaluations("grouped");
    assert!(!both.is_empty() && both.iter().all(|(loss, grouped)| grouped.is_some_and(|g| g != *loss)), "{both:?}");
    assert!(together.evaluations("full").iter().all(|(_, grouped)| grouped.is_none()));
}
