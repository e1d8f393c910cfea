//! Mixtures of data files: shares, resumption, losses and accuracies by task.

use crate::common::gpu;
use serde_json::json;
use weblora::demo;
use weblora::gpu::{Gpu, Tuner};
use weblora::text::{DataOptions, Dataset, Example, Tokenizer, read_rows};
use weblora::train::TrainConfig;
use weblora::train::batch::Packer;
use weblora::train::data::{TaskRows, TrainData};
use weblora::train::mixture::{Mixture, Shares};
use weblora::train::score;
use weblora::train::trainer::{TrainPlan, Trainer};

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

#[test]
fn a_packer_keeps_the_shares_and_resumes() {
    let example = |i: usize| Example { tokens: vec![i as u32; 3 + i % 7], targets: vec![true; 3 + i % 7], row: i + 1, rejected: None };
    let all: Vec<Example> = (0..90).map(example).collect();
    let mixture = Mixture::new(&["a", "b"], &[30, 60], &Shares::Weights(vec![2.0, 1.0])).unwrap();
    let mut packer = Packer::new(&all, 32, 5, true).unwrap().mixed(mixture);
    let plain = Packer::new(&all, 32, 5, true).unwrap().next_batch(&all);
    assert_ne!(plain.examples, packer.clone().next_batch(&all).examples, "the shares make no difference");
    let steps = packer.steps_in(3).unwrap();
    let mut seen = [[0; 2]; 3];
    for _ in 0..steps {
        let cursor = packer.cursor().clone();
        let epoch = cursor.epoch as usize;
        let mixture = Mixture::new(&["a", "b"], &[30, 60], &Shares::Weights(vec![2.0, 1.0])).unwrap();
        let mut again = Packer::new(&all, 32, 5, true).unwrap().mixed(mixture).resume(cursor).unwrap();
        let batch = packer.next_batch(&all);
        assert_eq!(batch, again.next_batch(&all));
        assert_eq!(packer.cursor(), again.cursor());
        batch.examples.iter().for_each(|id| seen[epoch][usize::from(*id >= 30)] += 1);
    }
    assert_eq!(seen, [[60, 30]; 3]);
}

/// Rows of a task: its questions, its answers, and the choices where there are any.
fn task(tokenizer: &Tokenizer, name: &str, rows: &[serde_json::Value], held_out: usize) -> TaskRows {
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let rows = read_rows(name, text.as_bytes()).unwrap();
    let options = DataOptions::new(64);
    let mut train = Dataset::build(name, &rows, tokenizer, options.clone()).unwrap().examples;
    let held_out = train.split_off(train.len() - held_out);
    let labelled = Dataset::labelled(name, &rows[train.len()..], tokenizer, options).unwrap();
    TaskRows { name: name.into(), train, held_out, labelled }
}

const FRUITS: [&str; 6] = ["plum", "apple", "pear", "lemon", "grape", "melon"];
const ANIMALS: [&str; 6] = ["cat", "dog", "fox", "owl", "hen", "cow"];

/// Three tasks over the demo's words, two of them with choices.
fn data(tokenizer: &Tokenizer) -> TrainData {
    let kind = |word: &str, completion: &str| json!({"prompt": format!("Is {word} an animal or a fruit?"), "completion": completion, "choices": [" an animal.", " a fruit."]});
    let kinds: Vec<_> = FRUITS.iter().map(|w| kind(w, " a fruit.")).chain(ANIMALS.iter().map(|w| kind(w, " an animal."))).collect();
    let odd = |word: &str| json!({"prompt": format!("Odd: {word} ="), "completion": " cat.", "choices": [" cat.", " dog."]});
    let odds: Vec<_> = FRUITS.iter().map(|w| odd(w)).collect();
    let pairs = FRUITS.iter().zip(ANIMALS);
    let twice: Vec<_> = pairs.map(|(a, b)| json!({"prompt": format!("Pair: {a} {b} ="), "completion": format!(" {b} {a}.")})).collect();
    [task(tokenizer, "kind", &kinds, 5), task(tokenizer, "odd", &odds, 2), task(tokenizer, "pair", &twice, 3)].into_iter().collect()
}

fn trainer(gpu: &Gpu, more: serde_json::Value) -> (Trainer, TrainData) {
    let file = block(demo::model()).unwrap();
    let data = data(&Tokenizer::of_model(&file).unwrap());
    let mut map = demo::settings();
    map.extend(json!({"batch": 4, "steps": 6, "data-weights": [1, 1, 2]}).as_object().unwrap().clone());
    map.extend(more.as_object().unwrap().clone());
    let config = TrainConfig::from_map(&map).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    let made = Trainer::new(gpu, &file, config, data.clone(), plan, None, &mut tuner, false, |_, _| {});
    (block(made).unwrap(), data)
}

#[test]
fn a_mixture_reports_every_task_and_resumes_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let (mut whole, data) = trainer(gpu, json!({}));
    let reports: Vec<_> = (0..4).map(|_| block(whole.step(gpu)).unwrap()).collect();
    let names: Vec<&str> = reports[0].tasks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["kind", "odd", "pair"]);
    for report in &reports {
        let (low, high) = report.tasks.iter().fold((f64::MAX, 0f64), |(l, h), (_, x)| (l.min(*x), h.max(*x)));
        assert!(low <= report.loss && report.loss <= high && low < high, "{report:?}");
    }
    // Resumed after two steps.
    let (mut first, _) = trainer(gpu, json!({}));
    (0..2).for_each(|_| drop(block(first.step(gpu)).unwrap()));
    let saved = block(first.checkpoint(gpu)).unwrap();
    let (mut second, _) = trainer(gpu, json!({}));
    second.resume(gpu, "checkpoint", &saved).unwrap();
    for report in &reports[2..] {
        let again = block(second.step(gpu)).unwrap();
        assert_eq!((again.loss, &again.tasks), (report.loss, &report.tasks));
    }
    assert_eq!(block(second.checkpoint(gpu)).unwrap(), block(whole.checkpoint(gpu)).unwrap(), "final states");
    let (mut other, _) = trainer(gpu, json!({"data-weights": [1, 2, 1]}));
    assert!(other.resume(gpu, "checkpoint", &saved).unwrap_err().to_string().contains("data-weights"));

    // Evaluation by task adds up to the whole, and accuracies are those of the tasks alone.
    let found = block(whole.evaluate(gpu)).unwrap().unwrap();
    let sum: f64 = found.tasks.iter().map(|t| t.loss * t.tokens as f64).sum();
    assert!((sum / found.targets as f64 - found.loss).abs() < 1e-9 * found.loss);
    let mean = block(score::mean(whole.session(), gpu, &data.held_out, Some(0))).unwrap().unwrap();
    assert_eq!((mean.loss, mean.targets), (found.loss, found.targets));
    let right = |task: usize| block(score::accuracy(whole.session(), gpu, &data.tasks[task].labelled, Some(0))).unwrap();
    let (kind, odd) = {
        let mut right = right;
        (right(0), right(1))
    };
    assert_eq!(found.tasks.iter().map(|t| t.accuracy).collect::<Vec<_>>(), [kind.share(), odd.share(), None]);
    assert_eq!(found.accuracy, Some((kind.right + odd.right) as f64 / 7.0));
    let highest = found.tasks.iter().map(|t| t.loss).fold(0.0, f64::max);
    assert_eq!(found.worst().unwrap().loss, highest, "one task has no accuracy, so the loss decides");
}

#[test]
fn the_worst_task_is_named_by_accuracy_where_all_have_one() {
    use weblora::train::events::TaskReport;
    let of = |tasks: &[(&str, f64, Option<f64>)]| {
        let report = |(name, loss, accuracy): &(&str, f64, Option<f64>)| TaskReport {
            name: (*name).into(),
            loss: *loss,
            tokens: 1,
            accuracy: *accuracy,
        };
        let found = score::HeldOut { grouped_loss: None, loss: 1.0, targets: 1, accuracy: None, tasks: tasks.iter().map(report).collect() };
        found.worst().map(|t| t.name.clone())
    };
    assert_eq!(of(&[("a", 2.0, Some(0.9)), ("b", 1.0, Some(0.5))]).as_deref(), Some("b"));
    assert_eq!(of(&[("a", 2.0, Some(0.9)), ("b", 1.0, None)]).as_deref(), Some("a"));
    assert_eq!(of(&[("a", 1.0, None), ("b", 1.0, None)]).as_deref(), Some("a"));
    assert_eq!(of(&[]), None);
}
