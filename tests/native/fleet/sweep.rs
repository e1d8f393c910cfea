//! A sweep of the embedded model: job after job, fused, and fused with early exit. `WEBLORA_SWEEP=64` makes it 64 jobs and five seeds. The table of
//! `docs/jobs.md` is of `scripts/experiments/sweep.py`, which does the same with the program.

use std::time::Instant;

use serde_json::json;
use weblora::demo;
use weblora::jobs::Options;
use weblora::jobs::early_stop::EarlyStop;
use weblora::jobs::policy::Policy;
use weblora::rng::fill_uniform;
use weblora::text::{Dataset, Tokenizer, read_rows};

use super::*;

fn examples(file: &ModelFile, name: &str, bytes: &[u8]) -> Vec<Example> {
    let options = TrainConfig::from_map(json!({ "seq": 32 }).as_object().unwrap()).unwrap().data_options();
    Dataset::build(name, &read_rows(name, bytes).unwrap(), &Tokenizer::of_model(file).unwrap(), options).unwrap().examples
}

/// What a sweep came to.
struct Outcome {
    seconds: f64,
    steps: usize,
    /// Name and held-out loss of the best job.
    best: (String, f64),
    planned: u64,
}

fn sweep(gpu: &Gpu, (jobs, steps): (usize, u64), seed: u64, options: Options) -> Outcome {
    let file = block(demo::model()).unwrap();
    let (train, held_out) = (examples(&file, "train.jsonl", demo::TRAIN), examples(&file, "heldout.jsonl", demo::HELD_OUT));
    // Rates from 1e-5 to 1e-1, evenly by their logarithm; ranks 2 to 16.
    let draws = fill_uniform(&format!("sweep/{seed}"), jobs, 1.0);
    let job = |(i, draw): (usize, &f32)| {
        let lr = 10f64.powf(-3.0 + 2.0 * f64::from(*draw));
        let name = format!("job{i}");
        let map = json!({
            "name": name, "out": name, "lr": lr, "rank": 2 << (i % 4), "steps": steps, "batch-rows": 2, "batch": 2, "seq": 32, "seed": seed,
            "warmup": 0, "schedule": "constant",
        });
        let config = TrainConfig::from_map(map.as_object().unwrap()).unwrap();
        let data = TrainData { train: train.clone(), held_out: held_out[..6].to_vec(), ..TrainData::default() };
        Entry { config, data, start: None, priority: 0, group: Some("sweep".into()), saved: None }
    };
    let entries = draws.iter().enumerate().map(job).collect();
    let hash = block(file.content_hash()).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    let plan = FleetPlan::new(&file, &hash, None, entries, options, gpu.plan_limits(), &mut tuner).unwrap();
    let planned = plan.planned.footprint().total();
    let mut fleet = block(plan.open(gpu, &file, &mut tuner, false, |_, _| {})).unwrap();
    let (began, mut kept) = (Instant::now(), Kept::default());
    run(gpu, &mut fleet, &mut kept);
    let seconds = began.elapsed().as_secs_f64();
    assert!(kept.failed().is_empty() && fleet.session().allocated_bytes() <= planned, "{:?}", kept.failed());
    // Of the jobs that came to their end: the others' losses are those of their last rung.
    let done = fleet.scheduler().jobs().iter().filter(|job| job.steps == steps);
    let ends = done.filter_map(|job| Some((job.spec.name.clone(), job.curve.evaluations().last()?.loss)));
    let best = ends.reduce(|best, next| if next.1 < best.1 { next } else { best }).unwrap();
    let steps = kept.events.iter().filter(|event| matches!(event, Event::Step(_))).count();
    Outcome { seconds, steps, best, planned }
}

#[test]
fn a_sweep_with_early_exit_finds_the_best_of_the_exhaustive_one() {
    let Some(gpu) = gpu() else { return };
    let full = std::env::var("WEBLORA_SWEEP").ok().and_then(|jobs| jobs.parse().ok());
    // Rungs at 2, 6 and 18 steps.
    let ((jobs, steps), seeds) = full.map_or(((9, 6), 2), |jobs: usize| ((jobs, 18), 5));
    let halving = || EarlyStop { rules: vec!["halving".into()], eta: 3, first_rung: 2, ..EarlyStop::default() };
    let mut found = 0;
    for seed in 0..seeds {
        let fused = sweep(gpu, (jobs, steps), seed, Options::default());
        // The same budget for both, with what the exhaustive run plans as its bound.
        let early = sweep(gpu, (jobs, steps), seed, Options { early_stop: halving(), memory: Some(fused.planned), ..Options::default() });
        assert_eq!(fused.steps, jobs * steps as usize);
        assert!(early.steps * 3 < fused.steps * 2, "{} of {} steps", early.steps, fused.steps);
        assert!(early.planned <= fused.planned);
        found += usize::from(early.best.0 == fused.best.0);
        let show = |what: &str, o: &Outcome| {
            eprintln!("seed {seed}: {what}: {:.1} s, {} steps, best {} with {:.4}", o.seconds, o.steps, o.best.0, o.best.1);
        };
        if full.is_some() {
            let one = Options { step_jobs: 1, policy: Policy::by_name("fifo").unwrap(), ..Options::default() };
            show("job after job", &sweep(gpu, (jobs, steps), seed, one));
        }
        show("fused", &fused);
        show("fused, early exit", &early);
    }
    assert!(found + 1 >= seeds as usize, "the best in {found} of {seeds} seeds");
}
