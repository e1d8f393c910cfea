//! Experts: the routing kernels against their twin, the twin against finite differences, and one model in training, evaluation and generation.

mod products;

use serde_json::{Value, json};
use weblora::adapters::{AdapterConfig, AdapterLayout, initial_buffer};
use weblora::demo;
use weblora::generate::Generator;
use weblora::gpu::{Class, Tensor, Tuner};
use weblora::kernels::attention::documents::{self, Document};
use weblora::kernels::lowrank::Segment;
use weblora::kernels::moe::twin::{Route, balance_loss, route, route_backward};
use weblora::kernels::moe::{Combine, Moe, MoeShape, Routed, RouterRow, Stats, strategy};
use weblora::rng::fill_uniform;
use weblora::settings::Settings;
use weblora::text::Example;
use weblora::train::evaluate::{self, EvalRows, EvalShape};

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise};

const NONE: u32 = u32::MAX;

fn router(first: u32, experts: u32, choices: u32) -> RouterRow {
    RouterRow {
        first_segment: first,
        experts,
        strategy: strategy::TOP_K,
        choices,
        top_p: 1.0,
        temperature: 1.0,
        renormalize: 1,
        capacity: 0,
        aux_coef: 0.3,
        z_coef: 0.2,
        layers: 1,
        keep: 1.0,
        ..RouterRow::default()
    }
}

/// Four kinds of jobs and one without a router; rows of nobody come last.
struct Batch {
    routers: Vec<RouterRow>,
    jobs: Vec<Segment>,
    row_job: Vec<u32>,
    documents: Vec<Document>,
    shape: MoeShape,
}

fn batch() -> Batch {
    let routers = vec![
        // Half of the inputs of its experts are dropped, where a kernel looks at that.
        RouterRow { dropout_threshold: 1 << 31, keep: 2.0, ..router(0, 4, 2) },
        RouterRow::default(),
        RouterRow { strategy: strategy::SWITCH, renormalize: 0, capacity: 2, ..router(4, 3, 1) },
        RouterRow { strategy: strategy::TOP_P, renormalize: 0, top_p: 0.6, temperature: 0.5, ..router(7, 6, 6) },
        RouterRow { strategy: strategy::TOP_P, top_p: 0.7, ..router(13, 40, 6) },
    ];
    let lengths = [70usize, 9, 40, 61, 5];
    let mut next = 0;
    let mut jobs = Vec::new();
    let mut row_job = Vec::new();
    for (job, length) in lengths.iter().enumerate() {
        jobs.push(Segment::new(next..next + length).accumulated(job + 1));
        row_job.resize(next + length, job as u32);
        next += length;
    }
    row_job.resize(next + 3, NONE);
    // The switch job's rows are documents of 15, 10 and 15 rows.
    let documents = Document::packed(&[70, 9, 15, 10, 15, 61, 5, 3]);
    let shape =
        MoeShape { rows: row_job.len(), jobs: 5, segments: 53 + 3, choices: 6, experts: 40, layers: 1, layer_probs: 0, training: true };
    Batch { routers, jobs, row_job, documents, shape }
}

/// What the kernels left, as numbers and as words.
struct Found {
    floats: Vec<Vec<f32>>,
    places: Vec<u32>,
    slot_row: Vec<u32>,
    slot_segment: Vec<u32>,
    segments: Vec<u32>,
    chosen: Vec<u32>,
}

fn words(floats: &[f32]) -> Vec<u32> {
    floats.iter().map(|x| x.to_bits()).collect()
}

impl Batch {
    /// Routes by the logits and goes back from `dweight` `[slots + rows]`, where `others` adds what a test wants between; its tensors are read, too.
    fn run(
        &self,
        logits: &[f32],
        dweight: &[f32],
        others: impl FnOnce(&mut Bench) -> Vec<Tensor>,
        body: impl FnOnce(&Moe, &mut weblora::gpu::Recorder, &[Tensor]),
    ) -> Option<Found> {
        let gpu = gpu()?;
        let s = &self.shape;
        let mut bench = Bench::new();
        let mut empty = |label: &str, len: usize| bench.store.declare(label, Class::Io, len).unwrap();
        let routed = Routed {
            probs: empty("probs", s.rows * s.prob_stride()),
            places: empty("places", 2 * s.rows * s.choices),
            weight: empty("weight", s.rows * s.choices),
            slots: empty("slots", s.slot_words()),
            segments: empty("segments", 8 * s.segments),
            chosen: empty("chosen", s.segments),
            aux: empty("aux", s.segments + s.jobs),
        };
        let (stats, dlogits) = (empty("stats", s.stat_words()), empty("dlogits", s.rows * s.stride()));
        let (jobs, routers) = (bench.put("jobs", &self.jobs), bench.put("routers", &self.routers));
        let (row_job, documents) = (bench.put("row_job", &self.row_job), bench.put("documents", &documents::table(&self.documents)));
        let (logits, dweight) = (bench.put("logits", logits), bench.put("dweight", dweight));
        let moe = Moe { shape: *s, layer: 0, row_job, jobs, routers, documents, routed };
        let more = others(&mut bench);
        let r = routed;
        let outputs =
            [&[r.probs, r.weight, stats, dlogits, r.places, moe.slot_row(), moe.slot_segment(), r.segments, r.chosen][..], &more].concat();
        let mut floats = bench.run(gpu, &Tuner::for_device(gpu), &outputs, |rec| {
            moe.route(rec, "test", logits);
            s.balance(rec, jobs, routers, Stats { probs: r.probs, chosen: r.chosen, aux: r.aux, stats });
            moe.route_backward(rec, "test", dweight, dlogits);
            body(&moe, rec, &more);
        });
        let tables: Vec<Vec<u32>> = floats.splice(4..9, []).map(|table| words(&table)).collect();
        let [places, slot_row, slot_segment, segments, chosen] = tables.try_into().unwrap();
        Some(Found { floats, places, slot_row, slot_segment, segments, chosen })
    }

    /// A job's routes by the twin.
    fn routes(&self, job: usize, logits: &[f32]) -> Vec<Route<f32>> {
        let row = &self.jobs[job];
        let experts = self.routers[job].experts as usize;
        let of = |t: u32| route(&self.routers[job], &logits[t as usize * self.shape.stride()..][..experts]);
        (row.row_begin..row.row_end).map(of).collect()
    }
}

#[test]
fn rows_are_routed_as_the_twin_says_and_slots_lie_by_segment() {
    let batch = batch();
    let s = batch.shape;
    let logits: Vec<f32> = noise(3, s.rows * s.stride()).iter().map(|x| 3.0 * x).collect();
    let dweight = noise(4, s.slots() + s.rows);
    let Some(found) = batch.run(&logits, &dweight, |_| Vec::new(), |_, _, _| {}) else { return };
    let [probs, weight, stats, dlogits] = &found.floats[..] else { panic!("four tensors") };
    let slot_of = |t: usize, j: usize| found.places[(t * s.choices + j) * 2 + 1];
    let mut used = 0;
    for (job, router) in batch.routers.iter().enumerate() {
        let (rows, experts) = (batch.jobs[job].row_begin as usize..batch.jobs[job].row_end as usize, router.experts as usize);
        if experts == 0 {
            assert!(rows.clone().all(|t| (0..s.choices).all(|j| slot_of(t, j) == NONE && weight[t * s.choices + j] == 0.0)));
            continue;
        }
        let routes = batch.routes(job, &logits);
        let mut chosen = vec![0; experts];
        let mut kept = vec![Vec::new(); experts];
        for (t, route) in rows.clone().zip(&routes) {
            assert_close("probabilities", &probs[t * s.prob_stride()..][..experts], &route.probs, 1e-6, 1e-5);
            assert!((probs[t * s.prob_stride() + s.stride()] - route.lse).abs() < 1e-5);
            for j in 0..s.choices {
                let place = found.places[(t * s.choices + j) * 2];
                let Some((expert, w)) = route.chosen.get(j) else {
                    assert_eq!((place, slot_of(t, j)), (NONE, NONE), "row {t}, choice {j}");
                    continue;
                };
                assert_eq!(place, *expert as u32, "row {t}, choice {j}");
                assert!((weight[t * s.choices + j] - w).abs() < 1e-5, "row {t}, choice {j}: {} and {w}", weight[t * s.choices + j]);
                chosen[*expert] += 1;
                let begin = batch.documents.iter().find(|d| (d.first..d.end).contains(&(t as u32))).unwrap().first as usize;
                let same = |u: usize| found.places[u * s.choices * 2] == place;
                let full = router.strategy == strategy::SWITCH && (begin..t).filter(|u| same(*u)).count() >= router.capacity as usize;
                assert_eq!(slot_of(t, j) == NONE, full, "row {t}: an expert takes the first rows of a document");
                if !full {
                    kept[*expert].push((t * s.choices + j) as u32);
                }
            }
        }
        for (expert, own) in kept.iter().enumerate() {
            let segment = router.first_segment as usize + expert;
            let [begin, end] = [found.segments[8 * segment] as usize, found.segments[8 * segment + 1] as usize];
            assert!(begin.is_multiple_of(s.align()), "segments begin with a tile");
            assert_eq!(found.slot_row[begin..end], own[..], "slots of a segment in the order of the rows");
            assert!(found.slot_segment[begin..end].iter().all(|own| *own == segment as u32));
            assert!(own.iter().enumerate().all(|(i, place)| found.places[*place as usize * 2 + 1] as usize == begin + i));
            assert_eq!(found.chosen[segment], chosen[expert]);
            used += own.len();
            let count = rows.len() as f32;
            let p: f32 = routes.iter().map(|route| route.probs[expert]).sum::<f32>() / count;
            assert_close("P and f", &stats[2 * segment..][..2], &[p, chosen[expert] as f32 / count], 1e-6, 1e-5);
        }
        // The gradient, as the twin says it from the weights' gradients that the kernel read.
        let accumulated = (job + 1) as f32;
        let weighted = RouterRow { aux_coef: router.aux_coef / accumulated, z_coef: router.z_coef / accumulated, ..*router };
        let counts: Vec<usize> = chosen.iter().map(|n| *n as usize).collect();
        for (t, route) in rows.clone().zip(&routes) {
            let dw = |j: usize| dweight[if slot_of(t, j) == NONE { s.slots() + t } else { slot_of(t, j) as usize }];
            let dw: Vec<f32> = (0..route.chosen.len()).map(dw).collect();
            let want = route_backward(&weighted, route, &dw, &counts, rows.len());
            assert_close("dlogits", &dlogits[t * s.stride()..][..experts], &want, 2e-6, 1e-4);
            assert!(dlogits[t * s.stride() + experts..(t + 1) * s.stride()].iter().all(|x| *x == 0.0));
        }
    }
    assert_eq!(found.slot_row.iter().filter(|row| **row != NONE).count(), used);
    assert_eq!(found.slot_segment.iter().filter(|segment| **segment != NONE).count(), used);
    assert!(used < found.slot_row.len() && s.align() > 1, "the test has gaps");
}

#[test]
fn rows_go_to_slots_and_back() {
    let batch = batch();
    let s = batch.shape;
    let logits = noise(5, s.rows * s.stride());
    for d in [24, 7] {
        let (x, y, slots) = (noise(6, s.rows * d), noise(7, s.rows * d), noise(8, s.slots() * d));
        let tensors = |bench: &mut Bench| {
            let blank = vec![0.0f32; s.slots() * d];
            [("x", &x), ("gathered", &blank), ("v", &slots)]
                .into_iter()
                .chain([
                    ("weighted", &y),
                    ("added", &y),
                    ("plain", &y),
                    ("da", &blank),
                    ("dw", &blank),
                    ("h", &slots),
                    ("dh", &slots),
                    ("dw_h", &blank),
                ])
                .map(|(label, values)| bench.put(label, values))
                .collect::<Vec<Tensor>>()
        };
        let found = batch.run(&logits, &noise(4, s.slots() + s.rows), tensors, |moe, rec, t| {
            moe.gather(rec, "test", d, t[0], t[1]);
            moe.combine(rec, "test", Combine::Weighted, d, t[2], t[3]);
            moe.combine(rec, "test", Combine::AddWeighted, d, t[2], t[4]);
            moe.combine(rec, "test", Combine::Plain, d, t[2], t[5]);
            moe.spread(rec, "test", d, t[0], t[2], t[6], t[7], false);
            moe.weigh(rec, "test", d, t[8], t[9], t[10]);
        });
        let Some(found) = found else { return };
        let weight = &found.floats[1];
        let [_, gathered, _, weighted, added, plain, da, dw, h, dh, dw_h] = &found.floats[4..] else { panic!("eleven tensors") };
        let mut sums = vec![vec![0.0f32; s.rows * d]; 2];
        let mut routed = vec![false; s.rows];
        for (slot, place) in found.slot_row.iter().enumerate().filter(|(_, place)| **place != NONE) {
            let (row, w) = (*place as usize / s.choices, weight[*place as usize]);
            routed[row] = true;
            let (own, of_row) = (slot * d..(slot + 1) * d, row * d..(row + 1) * d);
            assert_eq!(gathered[own.clone()], x[of_row.clone()]);
            assert_close("da", &da[own.clone()], &x[of_row.clone()].iter().map(|x| w * x).collect::<Vec<_>>(), 1e-6, 1e-6);
            let dot: f32 = x[of_row.clone()].iter().zip(&slots[own.clone()]).map(|(a, b)| a * b).sum();
            assert!((dw[slot] - dot).abs() < 1e-4, "slot {slot}: {} and {dot}", dw[slot]);
            let square: f32 = slots[own.clone()].iter().map(|a| a * a).sum();
            assert!((dw_h[slot] - square).abs() < 1e-4);
            let scaled: Vec<f32> = slots[own.clone()].iter().map(|a| w * a).collect();
            assert!(close(&h[own.clone()], &scaled, 1e-6, 1e-6).is_ok() && close(&dh[own.clone()], &scaled, 1e-6, 1e-6).is_ok());
            for (at, v) in of_row.zip(&slots[own]) {
                sums[0][at] += w * v;
                sums[1][at] += v;
            }
        }
        for row in 0..s.rows {
            let own = row * d..(row + 1) * d;
            let has_router = batch.routers.get(batch.row_job[row] as usize).is_some_and(|router| router.experts > 0);
            assert!(has_router || !routed[row]);
            if has_router {
                assert_close("weighted", &weighted[own.clone()], &sums[0][own.clone()], 1e-5, 1e-5);
                assert_close("plain", &plain[own.clone()], &sums[1][own.clone()], 1e-5, 1e-5);
                let sum: Vec<f32> = y[own.clone()].iter().zip(&sums[0][own.clone()]).map(|(a, b)| a + b).collect();
                assert_close("added", &added[own.clone()], &sum, 1e-5, 1e-5);
            } else {
                assert!(
                    [weighted, added, plain].iter().all(|t| t[own.clone()] == y[own.clone()]),
                    "row {row} has no router and keeps what it has"
                );
            }
        }
    }
}

#[test]
fn the_twin_matches_finite_differences() {
    for router in [
        router(0, 5, 2),
        RouterRow { strategy: strategy::TOP_P, renormalize: 0, top_p: 0.5, temperature: 0.7, ..router(0, 5, 5) },
        RouterRow { strategy: strategy::TOP_P, top_p: 0.5, ..router(0, 5, 5) },
        RouterRow { strategy: strategy::SWITCH, renormalize: 0, ..router(0, 5, 1) },
    ] {
        let (rows, experts) = (4, 5);
        let wide = |seed, len, by: f64| noise(seed, len).iter().map(|x| by * f64::from(*x)).collect::<Vec<f64>>();
        let (logits, d) = (wide(1, rows * experts, 2.0), wide(2, rows * experts, 1.0));
        let routes = |logits: &[f64]| logits.chunks(experts).map(|z| route(&router, z)).collect::<Vec<_>>();
        let loss = |logits: &[f64]| {
            let all = routes(logits);
            let weights = all.iter().enumerate().flat_map(|(t, r)| r.chosen.iter().map(move |(e, w)| (t, *e, *w)));
            weights.map(|(t, e, w)| d[t * experts + e] * w).sum::<f64>() + balance_loss(&router, &all)
        };
        let all = routes(&logits);
        let count = |e: usize| all.iter().flat_map(|r| &r.chosen).filter(|(expert, _)| *expert == e).count();
        let chosen: Vec<usize> = (0..experts).map(count).collect();
        let gradient: Vec<f64> = all
            .iter()
            .enumerate()
            .flat_map(|(t, r)| {
                let dw: Vec<f64> = r.chosen.iter().map(|(e, _)| d[t * experts + e]).collect();
                route_backward(&router, r, &dw, &chosen, rows)
            })
            .collect();
        gradcheck("dlogits", &logits, &gradient, 1, loss);
    }
}

fn layout(settings: Value) -> weblora::Result<AdapterLayout> {
    let file = pollster::block_on(demo::model()).unwrap();
    AdapterConfig::read(&mut Settings::new(settings.as_object().unwrap()))?.layout(&file.config)
}

/// Every parameter drawn, so that experts differ.
fn drawn(layout: &AdapterLayout) -> Vec<f32> {
    let mut values = initial_buffer(&layout.params, 0);
    for spec in layout.params.specs.iter().filter(|spec| spec.name.ends_with("lora_B") || spec.name.ends_with("moe_gate")) {
        spec.put_hf(&fill_uniform(&format!("1/{}", spec.name), spec.len(), 0.3), &mut values);
    }
    values
}

/// A token's loss by evaluation equals the logits of generation, eight tokens at a time and one at a time.
#[test]
fn generation_and_evaluation_route_alike() {
    let Some(gpu) = gpu() else { return };
    let file = pollster::block_on(demo::model()).unwrap();
    for settings in
        [json!({"method": "mixlora", "rank": 4}), json!({"method": "mixlora-switch", "rank": 4, "expert-capacity": 1, "experts": 3})]
    {
        let layout = layout(settings).unwrap();
        let adapters = [(layout.clone(), drawn(&layout))];
        let tokens: Vec<u32> = (0..13).map(|i| (i * 37 + 5) % 200).collect();
        let mut tuner = Tuner::for_device(gpu);
        let mut generator = pollster::block_on(Generator::open(gpu, &file, &adapters, None, 32, &mut tuner, false, |_, _| {})).unwrap();
        let nll = |logits: &[f32], token: u32| {
            let top = logits.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = logits.iter().map(|z| f64::from(z - top).exp()).sum();
            sum.ln() - f64::from(logits[token as usize] - top)
        };
        let mut written = Vec::new();
        for job in [Some(0), None] {
            let logits = pollster::block_on(generator.logits(gpu, &tokens[..12], job)).unwrap();
            written.push(nll(&logits, tokens[12]));
        }
        let targets = (0..tokens.len()).map(|i| i == 12).collect();
        let rows = EvalRows { examples: vec![Example { tokens, targets, row: 1, rejected: None }], ..EvalRows::default() };
        let how = EvalShape { tokens: 64, quantize: None, measure: false };
        let planned = evaluate::plan(gpu, &file, None, &adapters, &rows, how, &tuner).unwrap();
        let mut session = pollster::block_on(evaluate::open(gpu, &file, planned, &adapters, how, &mut tuner, |_, _| {})).unwrap();
        for (job, written) in [Some(0), None].into_iter().zip(&written) {
            let (scored, _) = pollster::block_on(evaluate::evaluate(&mut session, gpu, &rows, job)).unwrap();
            let scored = scored.unwrap().loss;
            assert!((scored - written).abs() < 1e-4 * scored, "{scored} by evaluation, {written} by generation");
        }
        assert!((written[0] - written[1]).abs() > 1e-2, "the adapter has no effect");
    }
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let refused = |settings: Value, words: &[&str]| {
        let problem = layout(settings.clone()).expect_err("refused").to_string();
        assert!(words.iter().all(|word| problem.contains(word)), "{settings}: {problem}");
    };
    refused(json!({"method": "mixlora", "experts": 4, "top-k": 5}), &["top-k", "5 of 4 experts"]);
    refused(json!({"method": "mixlora", "targets": ["q", "v"]}), &["targets", "gate, up and down"]);
    refused(json!({"method": "mixlora", "experts": 1}), &["experts", "from 2 to 64"]);
    refused(json!({"method": "mixlora", "expert-rank": 3000}), &["expert-rank", "3000", "gate_proj"]);
    refused(json!({"method": "mixlora", "expert-dropout": -0.5}), &["expert-dropout", "-0.5"]);
    refused(json!({"method": "lora", "experts": 4}), &["experts", "mixlora"]);
    refused(json!({"method": "mixlora", "top-p": 0.5}), &["top-p", "mixlora-dynamic"]);
    refused(json!({"method": "cola", "links": [2, 2], "experts": 4}), &["experts", "cola"]);
}
