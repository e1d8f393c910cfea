//! Attention kernels against their twins, in every form the adapter has, over awkward sizes; twins against finite differences.

use std::collections::BTreeMap;

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise};
use weblora::gpu::device::Facts;
use weblora::gpu::dispatch::Command;
use weblora::gpu::{Candidate, Recorder, Tuner};
use weblora::kernels::attention::documents::table;
use weblora::kernels::attention::{self, AttentionShape, Document, Pass, Visible, attention_backward_twin, attention_twin, decode_twin};

/// Sums of at most a few hundred products of numbers below 1, in another order than the twin's.
const ABSOLUTE: f32 = 2e-5;
const RELATIVE: f32 = 2e-5;

/// A packed batch with everything the twins say about it.
struct Case {
    shape: AttentionShape,
    documents: Vec<Document>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    d_o: Vec<f32>,
    o: Vec<f32>,
    lse: Vec<f32>,
    gradients: [Vec<f32>; 3],
}

impl Case {
    fn new(heads: u32, kv_heads: u32, head_dim: u32, window: Option<u32>, lengths: &[usize]) -> Self {
        Self::of(heads, kv_heads, head_dim, window, &Document::packed(lengths))
    }

    fn of(heads: u32, kv_heads: u32, head_dim: u32, window: Option<u32>, documents: &[Document]) -> Self {
        let rows = documents.last().unwrap().end as usize;
        let shape = AttentionShape { rows: rows as u32, heads, kv_heads, head_dim, window };
        let mask = Visible::of(documents, &shape);
        let (wide, narrow) = (rows * (heads * head_dim) as usize, rows * (kv_heads * head_dim) as usize);
        // Queries of size 4: weights that are far from uniform.
        let q: Vec<f32> = noise(1, wide).iter().map(|x| 4.0 * x).collect();
        let (k, v, d_o) = (noise(2, narrow), noise(3, narrow), noise(4, wide));
        let (o, lse) = attention_twin(&shape, &mask, &q, &k, &v);
        let (d_q, d_k, d_v) = attention_backward_twin(&shape, &mask, &q, &k, &v, &d_o);
        Self { shape, documents: documents.to_vec(), q, k, v, d_o, o, lse, gradients: [d_q, d_k, d_v] }
    }

    /// (o, lse) of one form.
    fn forward(&self, form: &Candidate) -> Vec<Vec<f32>> {
        let mut bench = Bench::new();
        let [q, k, v] = [("q", &self.q), ("k", &self.k), ("v", &self.v)].map(|(n, x)| bench.put(n, x));
        let documents = bench.put("documents", &table(&self.documents));
        let o = bench.put("o", &vec![7f32; self.o.len()]);
        let lse = bench.put("lse", &vec![7f32; self.lse.len()]);
        let what = attention::pass_dispatch(Pass::Forward, "forward", &self.shape, &[q, k, v, documents, o, lse]);
        bench.run(gpu().unwrap(), &Tuner::none(), &[o, lse], |rec| rec.dispatch(form.spec, form.variant.clone(), form.grid, what))
    }

    /// dq, or (dk, dv), of one form; stats come from the delta kernel.
    fn backward(&self, pass: Pass, form: &Candidate) -> Vec<Vec<f32>> {
        let mut bench = Bench::new();
        let [q, k, v, d_o] = [("q", &self.q), ("k", &self.k), ("v", &self.v), ("d_o", &self.d_o)].map(|(n, x)| bench.put(n, x));
        let [o, lse] = [("o", &self.o), ("lse", &self.lse)].map(|(n, x)| bench.put(n, x));
        let documents = bench.put("documents", &table(&self.documents));
        let stats = bench.put("stats", &vec![7f32; 2 * self.lse.len()]);
        let wanted = if pass == Pass::Queries { &self.gradients[..1] } else { &self.gradients[1..] };
        let outputs: Vec<_> = wanted.iter().map(|g| bench.put("gradient", &vec![7f32; g.len()])).collect();
        let bind = [vec![q, k, v, d_o, stats, documents], outputs.clone()].concat();
        let what = attention::pass_dispatch(pass, "backward", &self.shape, &bind);
        bench.run(gpu().unwrap(), &Tuner::none(), &outputs, |rec| {
            attention::delta(rec, "delta", &self.shape, o, d_o, lse, stats);
            rec.dispatch(form.spec, form.variant.clone(), form.grid, what);
        })
    }

    fn check(&self) {
        let facts = gpu().unwrap().facts();
        let say = |form: &Candidate| format!("{} {} {:?} {:?}", form.spec.name, form.variant.key(), self.shape, self.documents);
        for form in attention::forms(Pass::Forward, &self.shape, Some(facts)) {
            let got = self.forward(&form);
            assert_close(&format!("o, {}", say(&form)), &got[0], &self.o, ABSOLUTE, RELATIVE);
            assert_close(&format!("lse, {}", say(&form)), &got[1], &self.lse, ABSOLUTE, RELATIVE);
        }
        for form in attention::forms(Pass::Queries, &self.shape, Some(facts)) {
            let got = self.backward(Pass::Queries, &form);
            assert_close(&format!("dq, {}", say(&form)), &got[0], &self.gradients[0], ABSOLUTE, RELATIVE);
        }
        for form in attention::forms(Pass::KeysValues, &self.shape, Some(facts)) {
            let got = self.backward(Pass::KeysValues, &form);
            assert_close(&format!("dk, {}", say(&form)), &got[0], &self.gradients[1], ABSOLUTE, RELATIVE);
            assert_close(&format!("dv, {}", say(&form)), &got[1], &self.gradients[2], ABSOLUTE, RELATIVE);
        }
    }
}

#[test]
fn every_form_matches_the_twin_over_awkward_rows() {
    let Some(_) = gpu() else { return };
    for rows in [1, 2, 7, 31, 32, 33, 65, 127] {
        Case::new(4, 2, 12, None, &[rows]).check();
    }
}

#[test]
fn packed_documents_and_windows() {
    let Some(_) = gpu() else { return };
    let packs: [&[usize]; 4] = [&[1, 1, 1], &[31, 1, 33], &[8, 24, 5, 40], &[70, 2]];
    for lengths in packs {
        for window in [None, Some(1), Some(7), Some(32), Some(1000)] {
            Case::new(4, 2, 12, window, lengths).check();
        }
    }
}

#[test]
fn groups_that_are_shifted_for_half_the_heads() {
    let Some(_) = gpu() else { return };
    // Odd head counts, more and fewer rows than a group, groups that do not divide the rows, a document without groups beside one with.
    for (heads, kv_heads) in [(4, 2), (3, 1), (5, 5)] {
        for group in [2, 8, 20, 64] {
            let with_groups = |lengths: &[usize]| -> Vec<Document> {
                Document::packed(lengths).into_iter().map(|doc| Document { group: Some(group), ..doc }).collect()
            };
            Case::of(heads, kv_heads, 12, None, &with_groups(&[1, 45, 19])).check();
            let mut mixed = with_groups(&[33, 40]);
            mixed[0].group = None;
            Case::of(heads, kv_heads, 12, Some(9), &mixed).check();
        }
    }
}

/// The segments that the authors of LongLoRA cut a row of `length` tokens into, for heads that are not shifted and for those that are.
#[test]
fn groups_are_those_of_the_authors() {
    for (length, group) in [(32usize, 8usize), (64, 16), (40, 10), (48, 12)] {
        for heads in [1u32, 2, 5, 9] {
            let shape = AttentionShape { rows: length as u32, heads, kv_heads: 1, head_dim: 4, window: None };
            let document = Document { group: Some(group as u32), ..Document::new(0, length as u32) };
            let mask = Visible::of(&[document], &shape);
            for head in 0..heads as usize {
                let shifted = head >= heads as usize / 2;
                let first = if shifted { group / 2 } else { group };
                let ends: Vec<usize> = (first..length).step_by(group).chain([length]).collect();
                let segment = |row: usize| ends.iter().position(|end| row < *end);
                for (i, j) in (0..length).flat_map(|i| (0..length).map(move |j| (i, j))) {
                    let want = j <= i && segment(i) == segment(j);
                    assert_eq!(mask.sees(i, j, head), want, "{i} {j}, head {head} of {heads}, {length} tokens in groups of {group}");
                }
            }
        }
    }
}

#[test]
fn more_documents_than_workgroups() {
    let Some(_) = gpu() else { return };
    let lengths: Vec<usize> = (0..90).map(|i| 1 + i % 3).collect();
    Case::new(4, 2, 12, None, &lengths).check();
    // Rows that packing leaves over: one document, each of whose rows sees itself.
    let mut documents = Document::packed(&[20, 45]);
    documents[1].window = Some(1);
    Case::of(4, 2, 12, None, &documents).check();
}

/// o, lse, dq, dk and dv of the rows of one document, in every form.
fn everything(case: &Case, rows: std::ops::Range<usize>) -> Vec<Vec<f32>> {
    let facts = gpu().unwrap().facts();
    let mut all = Vec::new();
    let mut add = |outputs: Vec<Vec<f32>>| {
        all.extend(outputs.into_iter().map(|x| {
            let width = x.len() / case.shape.rows as usize;
            x[rows.start * width..rows.end * width].to_vec()
        }));
    };
    attention::forms(Pass::Forward, &case.shape, Some(facts)).iter().for_each(|form| add(case.forward(form)));
    for pass in [Pass::Queries, Pass::KeysValues] {
        attention::forms(pass, &case.shape, Some(facts)).iter().for_each(|form| add(case.backward(pass, form)));
    }
    all
}

#[test]
fn forms_that_sum_in_the_same_order_give_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    for (heads, kv_heads, window, group) in [(4, 2, None, None), (6, 2, Some(11), None), (5, 5, None, Some(16))] {
        let documents: Vec<Document> = Document::packed(&[43, 5, 70]).into_iter().map(|doc| Document { group, ..doc }).collect();
        let case = Case::of(heads, kv_heads, 12, window, &documents);
        for pass in [Pass::Forward, Pass::Queries, Pass::KeysValues] {
            let mut first: BTreeMap<&str, Vec<Vec<f32>>> = BTreeMap::new();
            for form in attention::forms(pass, &case.shape, Some(gpu.facts())) {
                let got = if pass == Pass::Forward { case.forward(&form) } else { case.backward(pass, &form) };
                let known = first.entry(form.order()).or_insert_with(|| got.clone());
                assert!(*known == got, "{pass:?} {} {}, window {window:?}, group {group:?}", form.order(), form.variant.key());
            }
            assert_eq!(first.len(), 2, "{pass:?}: tiles and lanes have an order each");
        }
    }
}

#[test]
fn a_document_has_the_same_bits_wherever_it_lies_and_whatever_its_neighbours_hold() {
    let Some(_) = gpu() else { return };
    let length = 43;
    for (window, group) in [(None, None), (Some(11), None), (None, Some(16))] {
        // The document behind others of these lengths, with its own numbers and others in the rest.
        let at = |before: &[usize], after: &[usize], rest: f32| {
            let lengths = [before, &[length], after].concat();
            let documents: Vec<Document> = Document::packed(&lengths).into_iter().map(|doc| Document { group, ..doc }).collect();
            let mut case = Case::of(6, 3, 12, window, &documents);
            let (begin, all) = (before.iter().sum::<usize>(), lengths.iter().sum::<usize>());
            let put = |x: &mut Vec<f32>, seed: u64, factor: f32| {
                let width = x.len() / all;
                x.fill(rest);
                x[begin * width..(begin + length) * width].iter_mut().zip(noise(seed, length * width)).for_each(|(x, n)| *x = factor * n);
            };
            put(&mut case.q, 1, 4.0);
            put(&mut case.k, 2, 1.0);
            put(&mut case.v, 3, 1.0);
            put(&mut case.d_o, 4, 1.0);
            let mask = Visible::of(&documents, &case.shape);
            (case.o, case.lse) = attention_twin(&case.shape, &mask, &case.q, &case.k, &case.v);
            everything(&case, begin..begin + length)
        };
        let alone = at(&[], &[], 0.0);
        assert!(alone.iter().all(|x| x.iter().all(|x| x.is_finite())));
        let places: [(&[usize], &[usize]); 4] = [(&[1], &[]), (&[7, 30], &[2]), (&[33], &[40]), (&[5, 64, 1], &[1, 1])];
        for (before, after) in places {
            assert!(at(before, after, 0.5) == alone, "other bits behind {before:?}, window {window:?}, group {group:?}");
            assert!(at(before, after, f32::NAN) == alone, "NaN of {before:?} and {after:?} gets in, window {window:?}, group {group:?}");
        }
    }
}

#[test]
fn head_counts_and_widths() {
    let Some(_) = gpu() else { return };
    for (heads, kv_heads, head_dim) in [(1, 1, 8), (8, 1, 16), (9, 3, 20), (5, 5, 4), (3, 1, 36)] {
        Case::new(heads, kv_heads, head_dim, None, &[5, 33, 11]).check();
        Case::new(heads, kv_heads, head_dim, Some(9), &[40]).check();
    }
}

#[test]
fn recorded_passes_at_the_heads_of_real_models() {
    let Some(gpu) = gpu() else { return };
    for (heads, kv_heads, head_dim) in [(9, 3, 64), (8, 2, 80)] {
        let case = Case::new(heads, kv_heads, head_dim, None, &[50, 3, 47]);
        let mut bench = Bench::new();
        let inputs = [("q", &case.q), ("k", &case.k), ("v", &case.v), ("d_o", &case.d_o)].map(|(n, x)| bench.put(n, x));
        let documents = bench.put("documents", &table(&case.documents));
        let outputs = [&case.o, &case.lse, &case.gradients[0], &case.gradients[1], &case.gradients[2]]
            .map(|x| bench.put("output", &vec![7f32; x.len()]));
        let ([q, k, v, d_o], [o, lse, d_q, d_k, d_v]) = (inputs, outputs);
        let got = bench.run(gpu, &Tuner::for_device(gpu), &outputs, |rec: &mut Recorder| {
            attention::forward(rec, "forward", &case.shape, q, k, v, documents, o, lse);
            attention::backward(rec, "backward", &case.shape, q, k, v, documents, o, lse, d_o, d_q, d_k, d_v);
        });
        let want = [&case.o, &case.lse, &case.gradients[0], &case.gradients[1], &case.gradients[2]];
        for (name, (got, want)) in ["o", "lse", "dq", "dk", "dv"].iter().zip(got.iter().zip(want)) {
            assert_close(&format!("{name} {:?}", case.shape), got, want, ABSOLUTE, RELATIVE);
        }
    }
}

/// On cards workgroups take one query head each, and a second pass adds those of a group.
#[test]
fn heads_that_are_apart_are_summed() {
    let Some(gpu) = gpu() else { return };
    let card = Tuner::assuming(Facts { is_cpu: false, is_discrete: true, ..gpu.facts().clone() });
    for (heads, kv_heads, lengths) in [(4, 2, &[31, 1, 33][..]), (3, 1, &[70, 2]), (8, 2, &[5])] {
        let case = Case::new(heads, kv_heads, 12, Some(40), lengths);
        let mut bench = Bench::new();
        let [q, k, v, d_o] = [("q", &case.q), ("k", &case.k), ("v", &case.v), ("d_o", &case.d_o)].map(|(n, x)| bench.put(n, x));
        let [o, lse] = [("o", &case.o), ("lse", &case.lse)].map(|(n, x)| bench.put(n, x));
        let documents = bench.put("documents", &table(&case.documents));
        let [d_q, d_k, d_v] = [0, 1, 2].map(|i| bench.put("gradient", &vec![7f32; case.gradients[i].len()]));
        let got = bench.run(gpu, &card, &[d_q, d_k, d_v], |rec| {
            attention::backward(rec, "backward", &case.shape, q, k, v, documents, o, lse, d_o, d_q, d_k, d_v);
            let sums = |c: &Command| matches!(c, Command::Dispatch { run, .. } if run.spec.name == "sum_parts");
            assert_eq!(rec.commands().iter().filter(|c| sums(c)).count(), 2);
        });
        for (name, (got, want)) in ["dq", "dk", "dv"].iter().zip(got.iter().zip(&case.gradients)) {
            assert_close(&format!("{name} {:?}", case.shape), got, want, ABSOLUTE, RELATIVE);
        }
    }
}

#[test]
fn a_wrong_mask_or_scale_is_caught() {
    let Some(gpu) = gpu() else { return };
    let right = Case::new(4, 2, 12, Some(7), &[31, 1, 33]);
    let wrong = |change: &dyn Fn(&mut Case)| {
        let mut case = Case::new(4, 2, 12, Some(7), &[31, 1, 33]);
        change(&mut case);
        let mut caught = Vec::new();
        let form = |pass| attention::forms(pass, &case.shape, Some(gpu.facts())).remove(0);
        caught.push(close(&case.forward(&form(Pass::Forward))[0], &right.o, ABSOLUTE, RELATIVE).is_err());
        caught.push(close(&case.backward(Pass::Queries, &form(Pass::Queries))[0], &right.gradients[0], ABSOLUTE, RELATIVE).is_err());
        let got = case.backward(Pass::KeysValues, &form(Pass::KeysValues));
        caught.push(close(&got[0], &right.gradients[1], ABSOLUTE, RELATIVE).is_err());
        caught.push(close(&got[1], &right.gradients[2], ABSOLUTE, RELATIVE).is_err());
        caught
    };
    assert_eq!(wrong(&|_| {}), [false; 4], "the right case passes");
    assert_eq!(wrong(&|case| case.shape.window = Some(8)), [true; 4], "a window one row too long");
    assert_eq!(wrong(&|case| case.documents = Document::packed(&[31, 34])), [true; 4], "a document boundary that is missed");
    assert_eq!(wrong(&|case| case.documents = Document::packed(&[30, 2, 33])), [true; 4], "a document boundary one row too early");
    assert_eq!(wrong(&|case| case.documents[2].group = Some(4)), [true; 4], "groups where there are none");
    let scaled = |case: &mut Case| case.q.iter_mut().for_each(|x| *x *= 1.001);
    assert_eq!(wrong(&scaled)[..3], [true; 3], "a scale that is wrong by a thousandth");
}

#[test]
fn twin_gradients_match_finite_differences() {
    for (window, group) in [(None, None), (Some(3), None), (None, Some(4))] {
        let documents = Document::packed(&[4, 1, 6]).into_iter().map(|doc| Document { group, ..doc }).collect::<Vec<_>>();
        let shape = AttentionShape { rows: 11, heads: 4, kv_heads: 2, head_dim: 4, window };
        let mask = Visible::of(&documents, &shape);
        let wide = |seed, len| noise(seed, len).iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let (q, k, v, d_o) = (wide(1, 11 * 16), wide(2, 11 * 8), wide(3, 11 * 8), wide(4, 11 * 16));
        let loss = |q: &[f64], k: &[f64], v: &[f64]| -> f64 {
            attention_twin(&shape, &mask, q, k, v).0.iter().zip(&d_o).map(|(o, g)| o * g).sum()
        };
        let (d_q, d_k, d_v) = attention_backward_twin(&shape, &mask, &q, &k, &v, &d_o);
        gradcheck("q", &q, &d_q, 1, |x| loss(x, &k, &v));
        gradcheck("k", &k, &d_k, 1, |x| loss(&q, x, &v));
        gradcheck("v", &v, &d_v, 1, |x| loss(&q, &k, x));
    }
}

#[test]
fn decoding_matches_the_last_rows_of_the_whole() {
    let Some(gpu) = gpu() else { return };
    let max_len = 300;
    for (heads, kv_heads, head_dim, window) in [(9, 3, 20, None), (4, 4, 12, Some(33)), (8, 1, 128, None)] {
        for (rows, length) in [(1, 1), (1, 2), (1, 64), (3, 65), (8, 8), (1, 257), (2, 300)] {
            let shape = AttentionShape { rows, heads, kv_heads, head_dim, window };
            let cached = (max_len * kv_heads * head_dim) as usize;
            let (query, keys, values) = (noise(1, (rows * heads * head_dim) as usize), noise(2, cached), noise(3, cached));
            let want = decode_twin(&shape, length, &query, &keys, &values);
            for form in attention::decode_candidates(&shape, max_len, Some(gpu.facts())) {
                let mut tuner = Tuner::for_device(gpu);
                tuner.force(&attention::decode_key(&shape, max_len), &form);
                let mut bench = Bench::new();
                let [q, k, v] = [("q", &query), ("k", &keys), ("v", &values)].map(|(n, x)| bench.put(n, x));
                let state = bench.put("state", &[length as u32]);
                let o = bench.put("o", &vec![7f32; want.len()]);
                let got = bench.run(gpu, &tuner, &[o], |rec| attention::decode(rec, "decode", &shape, max_len, q, k, v, state, o));
                let what = format!("{} {shape:?} length {length}", form.spec.name);
                assert_close(&what, &got[0], &want, ABSOLUTE, RELATIVE);
                if length > rows as usize {
                    let shorter = decode_twin(&shape, length - 1, &query, &keys, &values);
                    assert!(close(&got[0], &shorter, ABSOLUTE, RELATIVE).is_err(), "{what}: one row of the cache too few is not seen");
                }
            }
        }
    }
}
