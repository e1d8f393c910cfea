//! Preference training: the kernel against its twin, DPO against PyTorch, and a pair's rows from a file to the loss.

use pollster::block_on;
use serde_json::{Value, json};
use weblora::export::folder::Folder;
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::preference::{self, Pair, loss_twin};
use weblora::text::Example;
use weblora::train::start::{Start, from_adapter};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{StepReport, TrainConfig};

use crate::common::program::{asset, succeeds, text, weblora};
use crate::common::{Bench, assert_close, gpu, noise};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().filter_map(Value::as_f64).collect()
}

#[test]
fn weights_of_pairs_match_their_twin() {
    let Some(gpu) = gpu() else { return };
    let (rows, reference) = (200, 90);
    let losses: Vec<f32> = noise(1, rows).iter().map(|x| 4.0 + 3.0 * x).collect();
    let start: Vec<f32> = (0..rows).map(|i| i as f32).collect();
    let pair = |chosen, rejected, end, beta, smoothing, share| Pair { chosen, rejected, end, reference, beta, smoothing, share, unused: 0 };
    // Beside them a target of another job, and places without a pair.
    let mut table = vec![
        pair(0, 3, 4, 0.1, 0.0, 0.5),
        pair(4, 75, 80, 0.3, 0.1, 0.5),
        pair(80, 81, 82, 2.0, 0.0, 1.0),
        pair(82, 86, 90, 50.0, 0.0, 1.0),
    ];
    let mut want = start.clone();
    for p in &table {
        let sum = |from: u32, to: u32| (from..to).map(|i| f64::from(losses[i as usize])).sum::<f64>();
        let sums = |shift: u32| [sum(p.chosen + shift, p.rejected + shift), sum(p.rejected + shift, p.end + shift)];
        let (_, slope) = loss_twin(f64::from(p.beta), f64::from(p.smoothing), sums(0), sums(reference));
        for i in p.chosen..p.end {
            want[i as usize] = (slope * f64::from(p.share)) as f32 * if i < p.rejected { 1.0 } else { -1.0 };
        }
    }
    assert!(want[0] != start[0] && want[90..] == start[90..]);
    table.resize(preference::most_pairs(rows), Pair::default());
    let mut b = Bench::new();
    let (pairs, lost, weights) = (b.put("pairs", &table), b.put("losses", &losses), b.put("weights", &start));
    let got = b.run(gpu, &Tuner::none(), &[weights], |rec| preference::weights(rec, "preference", pairs, lost, weights));
    assert_close("weights", &got[0], &want, 1e-6, 2e-4);
}

fn model() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", &include_bytes!("../golden/tiny_llama/model.gguf")[..]));
    block_on(ModelFile::open_gguf(vec![source])).expect("the model")
}

fn trainer(gpu: &Gpu, rows: Vec<Example>, settings: &Value) -> Trainer {
    open(gpu, rows, TrainConfig::from_map(settings.as_object().expect("settings")).expect("settings"), None)
}

fn open(gpu: &Gpu, rows: Vec<Example>, config: TrainConfig, start: Option<Start>) -> Trainer {
    let file = model();
    let data = TrainData { held_out: rows[..2].to_vec(), train: rows, ..TrainData::default() };
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).expect("a plan");
    let planned = plan.planned.footprint().total();
    let mut trainer = block_on(Trainer::new(gpu, &file, config, data, plan, start, &mut tuner, false, |_, _| {})).expect("a run");
    assert_eq!(planned, trainer.session().allocated_bytes(), "planned and allocated bytes");
    trainer
}

fn golden() -> (Value, Vec<Example>, Value) {
    let golden: Value = serde_json::from_str(include_str!("../golden/dpo.json")).expect("golden");
    let answer = |row: &Value, side: &str, number: usize| Example {
        tokens: numbers(&row[side]).iter().map(|t| *t as u32).collect(),
        targets: row[format!("{side}_targets")].as_array().expect("a list").iter().map(|t| t.as_bool() == Some(true)).collect(),
        row: number,
        rejected: None,
    };
    let pair =
        |(i, row): (usize, &Value)| Example { rejected: Some(Box::new(answer(row, "rejected", i + 1))), ..answer(row, "chosen", i + 1) };
    let rows = golden["rows"].as_array().expect("rows").iter().enumerate().map(pair).collect();
    let run = &golden["run"];
    let settings = json!({
        "rank": run["rank"], "alpha": run["alpha"], "targets": run["targets"], "seed": run["seed"], "lr": run["lr"], "clip": run["clip"],
        "weight-decay": run["weight_decay"], "schedule": "constant", "warmup": 0, "steps": 10, "seq": 24, "batch": 8, "shuffle": false,
        "batch-rows": golden["batch_rows"], "grad-accum": golden["grad_accum"],
        "loss": "dpo", "dpo-beta": golden["beta"], "dpo-label-smoothing": golden["label_smoothing"],
    });
    (golden, rows, settings)
}

fn steps(gpu: &Gpu, trainer: &mut Trainer, count: u64) -> Vec<StepReport> {
    (0..count).map(|_| block_on(trainer.step(gpu)).expect("a step")).collect()
}

#[test]
fn ten_steps_are_those_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    let (golden, rows, settings) = golden();
    let worst = |got: &[f64], want: &[f64]| got.iter().zip(want).map(|(g, w)| (g - w).abs() / w.abs().max(1e-2)).fold(0.0, f64::max);
    for recompute in ["off", "on"] {
        let mut settings = settings.clone();
        settings["recompute"] = recompute.into();
        let reports = steps(gpu, &mut trainer(gpu, rows.clone(), &settings), 10);
        let of = |get: &dyn Fn(&StepReport) -> f64| reports.iter().map(get).collect::<Vec<f64>>();
        let loss = of(&|step| step.loss);
        assert!((loss[0] - std::f64::consts::LN_2).abs() < 1e-6, "the first step has not moved: {}", loss[0]);
        assert!(worst(&loss, &numbers(&golden["loss"])) < 1e-3, "\n got {loss:?}\nwant {:?}", golden["loss"]);
        let norms = of(&|step| step.grad_norm);
        assert!(worst(&norms, &numbers(&golden["grad_norm"])) < 1e-3, "\n got {norms:?}\nwant {:?}", golden["grad_norm"]);
        for key in ["chosen", "rejected", "margin", "accuracy"] {
            let got = of(&|step| serde_json::to_value(step).expect("JSON")["preference"][key].as_f64().expect("a number"));
            let want: Vec<f64> =
                golden["rewards"].as_array().expect("rewards").iter().map(|r| r[key].as_f64().expect("a number")).collect();
            // The first step's rewards are rounding.
            assert!(worst(&got[1..], &want[1..]) < 2e-3, "{key}\n got {got:?}\nwant {want:?}");
        }
    }
    // Another β is told apart.
    let other = json!({ "dpo-beta": 0.31 });
    let mut settings = settings;
    settings.as_object_mut().expect("settings").extend(other.as_object().expect("an object").clone());
    let loss: Vec<f64> = steps(gpu, &mut trainer(gpu, rows, &settings), 10).iter().map(|step| step.loss).collect();
    assert!(worst(&loss, &numbers(&golden["loss"])) > 1e-3, "the comparison can fail");
}

#[test]
fn a_run_of_pairs_goes_on_bit_for_bit_and_scores_held_out_pairs() {
    let Some(gpu) = gpu() else { return };
    let (_, rows, settings) = golden();
    let mut whole = trainer(gpu, rows.clone(), &settings);
    let expected: Vec<f64> = steps(gpu, &mut whole, 6).iter().map(|step| step.loss).collect();
    let mut first = trainer(gpu, rows.clone(), &settings);
    steps(gpu, &mut first, 3);
    let saved = block_on(first.checkpoint(gpu)).expect("saved");
    let mut second = trainer(gpu, rows.clone(), &settings);
    second.resume(gpu, "checkpoint", &saved).expect("resumed");
    let after: Vec<f64> = steps(gpu, &mut second, 3).iter().map(|step| step.loss).collect();
    assert_eq!(after, expected[3..]);
    let found = block_on(whole.seat(gpu).evaluate()).expect("evaluated").expect("held-out pairs");
    assert!(found.loss < std::f64::consts::LN_2 && found.targets == 2, "{found:?}");
    assert!(found.accuracy.is_some_and(|share| share >= 0.5), "{found:?}");
    // Pairs of another order are another data set.
    let swapped = |row: &Example| {
        let rejected = row.rejected.clone().expect("a pair");
        Example { rejected: Some(Box::new(Example { rejected: None, ..row.clone() })), ..*rejected }
    };
    let mut other = trainer(gpu, rows.iter().map(swapped).collect(), &settings);
    assert!(other.resume(gpu, "checkpoint", &saved).is_err());
}

/// The usual way: an adapter is trained on answers, and a new link on preferences, held to that adapter.
#[test]
fn a_new_link_is_held_to_the_links_it_goes_on_from() {
    let Some(gpu) = gpu() else { return };
    let (_, rows, settings) = golden();
    let chosen: Vec<Example> = rows.iter().map(|row| Example { rejected: None, ..row.clone() }).collect();
    let tuned = json!({ "rank": 3, "steps": 12, "lr": 2e-2, "seq": 24, "targets": ["q", "v", "down"] });
    let mut first = trainer(gpu, chosen, &tuned);
    steps(gpu, &mut first, 12);
    let adapter = block_on(first.export(gpu)).expect("an adapter");
    let files: Vec<(String, Vec<u8>)> = adapter.into_iter().map(|(name, bytes)| (name.into(), bytes)).collect();
    let run = |more: Value| {
        let mut map = settings.clone();
        let chain = json!({ "method": "cola", "links": [2, 2], "rank": 2, "alpha": 4, "targets": ["q", "v", "down"], "grad-accum": 1 });
        [chain, more].iter().for_each(|part| map.as_object_mut().expect("settings").extend(part.as_object().expect("an object").clone()));
        let folder = Folder::of("tuned", &files).expect("a folder");
        let file = model();
        let base = block_on(file.identity()).expect("its identity");
        let (config, start) = from_adapter(map.as_object().expect("settings").clone(), folder, &file.config, &base).expect("it goes on");
        let mut trainer = open(gpu, rows.clone(), config, Some(start));
        let before = block_on(trainer.seat(gpu).evaluate()).expect("evaluated").expect("held-out pairs");
        (before, steps(gpu, &mut trainer, 10), block_on(trainer.seat(gpu).evaluate()).expect("evaluated").expect("held-out pairs"))
    };
    let ln2 = std::f64::consts::LN_2;
    for storage in ["f32", "f16"] {
        let (before, held, after) = run(json!({ "dpo-reference": "start", "link-storage": storage }));
        assert!(
            (before.loss - ln2).abs() < 1e-6 && (held[0].loss - ln2).abs() < 1e-6,
            "{storage}: the link begins as the reference: {before:?}"
        );
        assert!(held[9].loss < held[0].loss && after.loss < before.loss, "{storage}: {after:?}");
        // The knot after five steps moves the links; what the run is held to stays.
        let jump = held[5].loss - held[4].loss;
        assert!(jump.abs() < 0.2, "{storage}: {jump}");
    }
    let (before, ..) = run(json!({ "dpo-reference": "base" }));
    assert!((before.loss - ln2).abs() > 1e-2, "held to the base it has moved already: {before:?}");
    let refused = |settings: Value| {
        let config = TrainConfig::from_map(settings.as_object().expect("settings")).expect("settings");
        let file = model();
        let plan = TrainPlan::new(&file, &config, None, gpu.plan_limits(), &Tuner::for_device(gpu));
        plan.err().expect("refused").to_string()
    };
    assert!(refused(json!({ "loss": "dpo", "dpo-reference": "start", "seq": 24 })).contains("--init-adapter"));
}

#[test]
fn the_program_trains_on_pairs_of_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (data, out, model) = (path("pairs.jsonl"), path("out"), asset("demo.gguf"));
    let row = |colour: &str| {
        let row = json!({ "prompt": format!("Anna has a {colour} lamp. Now"), "chosen": " Anna smiles.", "rejected": " Ben has it." });
        format!("{row}\n")
    };
    std::fs::write(&data, ["red", "blue", "grey"].map(row).concat()).expect("written");
    let train = ["train", "--model", &model, "--data", &data, "--out", &out, "--steps", "3", "--json"];
    let refused = |more: &[&str], words: &[&str]| {
        let output = weblora(&[&train[..], &["--seq", "32"], more].concat());
        let said = text(&output.stderr) + &text(&output.stdout);
        assert!(!output.status.success() && words.iter().all(|word| said.contains(word)), "{more:?}: {said}");
    };
    refused(&[], &["--loss dpo"]);
    refused(&["--overlong", "join"], &["row 1", "cannot be joined"]);
    refused(&["--dpo-beta", "0.2"], &["dpo-beta", "--loss dpo"]);
    refused(&["--loss", "dpo", "--overlong", "join"], &["whole answers"]);
    refused(&["--loss", "dpo", "--dpo-reference", "start"], &["--init-adapter"]);
    refused(&["--loss", "dpo", "--batch", "1"], &["row 1", "reference"]);
    let tokens = ["train", "--model", &model, "--data", &asset("train.jsonl"), "--out", &out, "--loss", "dpo"];
    let error = text(&weblora(&tokens).stderr);
    assert!(error.contains("no pair of answers"), "{error}");
    if gpu().is_none() {
        return;
    }
    let events = succeeds(&[&train[..], &["--loss", "dpo", "--no-tune", "--seq", "32"]].concat());
    let steps: Vec<Value> =
        events.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(|e: &Value| e["event"] == "step").collect();
    assert!((steps[0]["loss"].as_f64().expect("a loss") - std::f64::consts::LN_2).abs() < 1e-6, "{events}");
    assert!(steps[2]["preference"]["margin"].as_f64() > Some(0.0), "{events}");
    let shown = succeeds(&["inspect", &model, "--data", &data, "--rows", "1"]);
    assert!(shown.contains("row 1: 15") && shown.contains("row 1: 13"), "{shown}");
    let scored = succeeds(&["eval", "--model", &model, "--data", &data, "--adapter", &out]);
    assert!(scored.contains("accuracy"), "{scored}");
}
