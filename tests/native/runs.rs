//! How runs go through their rows: small sets, rows of a batch as other trainers have them, adapters that learned nothing.

use pollster::block_on;
use serde_json::{Value, json};
use weblora::demo;
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Gpu, Plan, Recorder, Tuner};
use weblora::text::{DataOptions, Dataset, Example, Tokenizer, read_rows};
use weblora::train::run::OnDevice;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Event, Run, TrainConfig};

use crate::common::gpu;
use crate::common::program::{asset, fails, succeeds};

fn config(settings: Value) -> TrainConfig {
    TrainConfig::from_map(settings.as_object().expect("an object")).expect("settings")
}

fn trainer(gpu: &Gpu, file: &ModelFile, train: Vec<Example>, settings: Value) -> Trainer {
    let config = config(settings);
    let data = TrainData { train, ..TrainData::default() };
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(file, &config, Some(&data), gpu.plan_limits(), &tuner).expect("a plan");
    block_on(Trainer::new(gpu, file, config, data, plan, None, &mut tuner, false, |_, _| {})).expect("a run")
}

/// The embedded model and the first `count` of its rows.
fn embedded(count: usize) -> (ModelFile, Vec<Example>) {
    let file = block_on(demo::model()).expect("the embedded model");
    let tokenizer = Tokenizer::of_model(&file).expect("its tokenizer");
    let rows = read_rows("rows", demo::TRAIN).expect("rows");
    let mut examples = Dataset::build("rows", &rows, &tokenizer, DataOptions::new(64)).expect("rows").examples;
    examples.truncate(count);
    (file, examples)
}

/// Two rows a batch, padded, in PyTorch + PEFT (`make_batch_rows.py`): the losses of every step of ten, epoch's ends and a schedule included.
#[test]
fn two_rows_a_batch_are_those_of_pytorch() {
    let Some(gpu) = gpu() else { return };
    let golden: Value = serde_json::from_str(include_str!("../golden/batch_rows.json")).expect("golden");
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", &include_bytes!("../golden/tiny_llama/model.gguf")[..]));
    let file = block_on(ModelFile::open_gguf(vec![source])).expect("the model");
    let numbers = |value: &Value| -> Vec<f64> { value.as_array().expect("a list").iter().filter_map(Value::as_f64).collect() };
    let example = |(i, row): (usize, &Value)| Example {
        tokens: numbers(&row["tokens"]).iter().map(|t| *t as u32).collect(),
        targets: numbers(&row["labels"]).iter().map(|l| *l >= 0.0).collect(),
        row: i + 1,
        rejected: None,
    };
    let rows: Vec<Example> = golden["rows"].as_array().expect("rows").iter().enumerate().map(example).collect();
    let run = &golden["run"];
    let curve = |batch_rows: Option<u64>| -> Vec<f64> {
        let settings = json!({
            "rank": run["rank"], "alpha": run["alpha"], "lr": run["lr"], "weight-decay": run["weight_decay"], "clip": run["clip"],
            "schedule": run["schedule"], "warmup": run["warmup"], "steps": run["steps"], "seq": 32, "shuffle": false, "batch-rows": batch_rows,
        });
        let mut trainer = trainer(gpu, &file, rows.clone(), settings);
        let steps = trainer.total_steps();
        (0..steps).map(|_| block_on(trainer.step(gpu)).expect("a step").loss).collect()
    };
    let worst = |got: &[f64], want: &[f64]| got.iter().zip(want).map(|(g, w)| (g / w - 1.0).abs()).fold(0.0, f64::max);
    let want = numbers(&golden["curve"]["loss"]);
    let got = curve(Some(2));
    assert_eq!(got.len(), want.len());
    assert!(worst(&got, &want) < 2e-4, "\n got {got:?}\nwant {want:?}");
    // Other batches are told apart: three rows, and as many as fit.
    assert!(worst(&curve(None), &want) > 1e-2 && worst(&numbers(&golden["three_rows_a_batch"]), &want) > 1e-2);
    assert!(worst(&curve(Some(3)), &numbers(&golden["three_rows_a_batch"])) < 2e-4);
}

/// Forty short rows and no setting but the rows: the run of README's first command.
#[test]
fn the_default_run_on_a_small_set_trains() {
    let Some(gpu) = gpu() else { return };
    let (file, rows) = embedded(40);
    let mut trainer = trainer(gpu, &file, rows, json!({ "seq": 64, "batch": 32 }));
    assert_eq!((trainer.total_steps(), trainer.passes().steps_per_epoch), (60, 1.0));
    assert!(block_on(trainer.changes_nothing(gpu)).expect("values"), "B begins at zero");
    let mut run = Run::of(&trainer);
    let events = run.start_events(&mut trainer, gpu, vec![]);
    let start = serde_json::to_value(&events[0]).expect("JSON");
    assert_eq!(
        (&start["rows"], &start["rows_per_step"], &start["steps_per_epoch"], &start["epochs"]),
        (&json!(40), &json!(40.0), &json!(1.0), &json!(60.0))
    );
    let warnings: Vec<&str> =
        events.iter().filter_map(|e| if let Event::Warning { message, .. } = e { Some(message.as_str()) } else { None }).collect();
    assert!(warnings.iter().any(|w| w.contains("60 times")) && warnings.iter().any(|w| w.contains("an epoch is one step")), "{warnings:?}");
    let mut engine = OnDevice { trainer: &mut trainer, gpu };
    block_on(run.advance(&mut engine, |_| Ok(()))).expect("a step");
    assert!(!block_on(trainer.changes_nothing(gpu)).expect("values"), "the first step changed nothing");
}

#[test]
fn a_run_of_one_step_trains_and_one_that_changed_nothing_says_so() {
    let Some(gpu) = gpu() else { return };
    let (file, rows) = embedded(6);
    let told = |settings: Value| {
        let mut trainer = trainer(gpu, &file, rows.clone(), settings);
        let mut run = Run::of(&trainer);
        let mut messages = Vec::new();
        while !run.is_over() {
            let mut engine = OnDevice { trainer: &mut trainer, gpu };
            let tell = |event: Event| {
                if let Event::Warning { message, .. } = event {
                    messages.push(message);
                }
                Ok(())
            };
            block_on(run.advance(&mut engine, tell)).expect("a step");
        }
        messages
    };
    assert_eq!(told(json!({ "seq": 64, "epochs": 1 })), Vec::<String>::new());
    let nothing = told(json!({ "seq": 64, "steps": 2, "lr": 1e-60 }));
    assert!(nothing.len() == 1 && nothing[0].contains("CHANGES NOTHING"), "{nothing:?}");
}

#[test]
fn rates_and_warm_ups_that_are_hardly_meant_are_remarked_on() {
    let warnings = |settings: Value| config(settings).warnings(60);
    assert!(warnings(json!({})).is_empty() && warnings(json!({ "lr": 1e-2, "warmup": 59 })).is_empty());
    assert!(warnings(json!({ "lr": 100 }))[0].contains("far above"));
    assert!(warnings(json!({ "lr": 1e-12 }))[0].contains("far below"));
    assert!(warnings(json!({ "warmup": 60 }))[0].contains("never reached"));
}

#[test]
fn what_cannot_be_addressed_is_a_limit_and_no_panic() {
    let (file, _) = embedded(1);
    let limits = PlanLimits { max_binding: u64::MAX, max_buffer: u64::MAX };
    // Tensors of 2^30 words and more, on a device that would bind anything.
    for settings in [json!({ "batch": 1 << 18, "seq": 64 }), json!({ "batch": 1 << 17, "seq": 64 })] {
        let error = TrainPlan::new(&file, &config(settings), None, limits, &Tuner::none()).err().expect("refused");
        assert_eq!(error.code(), "limit", "{error}");
        assert!(error.to_string().contains("--batch"), "{error}");
    }
    let tuner = Tuner::none();
    for words in [1 << 30, usize::MAX] {
        let mut recorder = Recorder::new(&tuner);
        let tensor = recorder.transient("x", words);
        recorder.clear(tensor);
        let error = Plan::new(recorder, limits).expect_err("refused").to_string();
        assert!(error.contains("tensor x") && error.contains("--batch"), "{error}");
    }
    let mut recorder = Recorder::new(&tuner);
    let tensor = recorder.transient("x", (1 << 30) - 1);
    // Kernels go on with what cannot be, for the plan to name it; logits of a vocabulary of 2^24, say.
    assert!(tensor.holds(usize::MAX) && recorder.transient("y", 8).holds(8) && !recorder.transient("z", 8).holds(9));
    recorder.clear(tensor);
    assert!(Plan::new(recorder, limits).is_ok());
}

#[test]
fn recompute_is_chosen_by_the_memory_that_is_allowed_and_all_modes_are_shown() {
    let plan = |more: &[&str]| {
        let model = asset("demo.gguf");
        let output = succeeds(&[&["plan", "--model", &model, "--batch", "2", "--seq", "64", "--json"], more].concat());
        serde_json::from_str::<serde_json::Value>(&output).expect("JSON")
    };
    let (auto, off, on, nested) = (plan(&[]), plan(&["--no-recompute"]), plan(&["--recompute", "on"]), plan(&["--recompute", "nested"]));
    assert_eq!((&auto, &auto["recompute"]), (&off, &"off".into()));
    let bytes = |plan: &serde_json::Value, key: &str| plan[key].as_u64().expect("bytes");
    let [kept, inputs, some] = [&off, &on, &nested].map(|plan| bytes(plan, "planned_bytes"));
    for plan in [&off, &on, &nested] {
        assert_eq!(plan["recompute_bytes"], serde_json::json!({ "off": kept, "on": inputs, "nested": some }));
    }
    assert!(some < inputs && inputs < kept, "{some} {inputs} {kept}");
    assert_eq!(plan(&["--memory", &format!("{kept} b")])["recompute"], "off");
    assert_eq!(plan(&["--memory", &format!("{} b", kept - 1)]), on);
    assert_eq!(plan(&["--memory", &format!("{inputs} b")]), on);
    assert_eq!(plan(&["--memory", &format!("{} b", inputs - 1)]), nested);
    let model = asset("demo.gguf");
    fails(&["plan", "--model", &model, "--seq", "64", "--memory", "1 kB"], &["(memory)", "raise memory"]);
    fails(&["plan", "--model", &model, "--recompute", "sometimes"], &["recompute"]);
    let shown = succeeds(&["plan", "--model", &model, "--batch", "2", "--seq", "64"]);
    for mode in ["--recompute off", "--recompute on", "--recompute nested", "activations are kept  (this plan)"] {
        assert!(shown.contains(mode), "{mode}: {shown}");
    }
}
