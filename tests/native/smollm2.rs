//! The real model: SmolLM2-135M-Instruct in Q4_1 against numpy, transformers and PEFT. Needs the file: `WEBLORA_SMOLLM2=path`.

use std::path::PathBuf;

use serde_json::Value;
use weblora::adapters::{AdapterConfig, initial_buffer};
use weblora::formats::ModelFile;
use weblora::generate::{Ended, Generator, Sampling};
use weblora::gpu::Tuner;
use weblora::gpu::device::PlanLimits;
use weblora::kernels::lowrank::Segment;
use weblora::model::Recompute;
use weblora::model::decoder::Decoder;
use weblora::settings::{Map, Settings};
use weblora::text::{ChatTemplate, DataOptions, Dataset, Tokenizer, read_rows};
use weblora::train::TrainConfig;
use weblora::train::batch::Batch;
use weblora::train::host_batch::host_batch;
use weblora::train::score;
use weblora::train::session::{Hyper, Planned, Shape};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};

const GOLDEN: &str = include_str!("../golden/smollm2_curve.json");
const ROWS: &[u8] = include_bytes!("../golden/smollm2_rows.jsonl");
/// Mean next-token loss of the golden text, and how near ours must be.
const NLL: (f64, f64) = (1.445005, 2e-4);

fn model() -> Option<ModelFile> {
    let Some(path) = std::env::var_os("WEBLORA_SMOLLM2").map(PathBuf::from) else {
        eprintln!("SKIPPED: WEBLORA_SMOLLM2 does not name SmolLM2-135M-Instruct.Q4_1.gguf (scripts/fetch-smollm2.sh gets it)");
        return None;
    };
    Some(pollster::block_on(ModelFile::open_path(&path)).unwrap())
}

fn adapter(run: &Value) -> AdapterConfig {
    let map = serde_json::json!({ "rank": run["rank"], "alpha": run["alpha"] });
    let map: Map = map.as_object().unwrap().clone();
    AdapterConfig::read(&mut Settings::new(&map)).unwrap()
}

#[test]
fn forward_loss_and_the_ten_step_curve_equal_the_references() {
    let (Some(file), Some(gpu)) = (model(), crate::common::gpu()) else { return };
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let run = &golden["run"];
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let layout = adapter(run).layout(&file.config).unwrap();
    let rows = 120;
    let shape = Shape { rows, positions: rows, recompute: Recompute::Blocks, quantize: None, training: true };
    let data = Dataset::build("rows", &read_rows("rows", ROWS).unwrap(), &tokenizer, DataOptions::new(rows)).unwrap().examples;
    assert_eq!(data.len(), 40);
    pollster::block_on(async {
        let planned = Planned::new(&file, &[&layout], shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
        let mut session = planned.realize(gpu, &file, |_, _| {}).await.unwrap();
        session.write_values(gpu, 0, &initial_buffer(&layout.params, 0)).unwrap();
        let text = "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is";
        let examples = score::windows(&tokenizer.encode(text, false).unwrap(), 64);
        let nll = score::mean(&mut session, gpu, &examples, None).await.unwrap().unwrap();
        assert_eq!(nll.targets, 18);
        assert!((nll.loss - NLL.0).abs() < NLL.1, "mean NLL {}, numpy says {}", nll.loss, NLL.0);
        // With q and k rows left as the file has them the loss is 2.402: the tolerance tells the two apart.
        assert!((2.40236 - NLL.0).abs() > NLL.1);

        let losses: Vec<f64> = golden["loss"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        let mut got = Vec::new();
        for step in 0..losses.len() {
            let batch = Batch::pack((4 * step as u32..4 * step as u32 + 4).collect(), &data, rows);
            assert_eq!(batch.n_tokens as u64, golden["tokens"][step].as_u64().unwrap(), "tokens of step {step}");
            let host = host_batch(&batch, 1.0 / batch.n_targets as f32);
            let each = session.accumulate(gpu, &host, &[Segment::new(0..rows)]).await.unwrap();
            got.push(each.iter().map(|l| f64::from(*l)).sum::<f64>() / each.len() as f64);
            let hyper = Hyper { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.0, clip: 0.0, step: step as u64 + 1 };
            session.update(gpu, &[(0, hyper)]).await.unwrap();
        }
        for (step, (got_one, want)) in got.iter().zip(&losses).enumerate() {
            assert!(
                (got_one - want).abs() <= 1e-3 * want,
                "step {}: loss {got_one}, PEFT says {want}\n got {got:?}\nwant {losses:?}",
                step + 1
            );
        }
        assert!(got.last() < got.first(), "the loss falls");
    });
}

/// A knot changes no logit: measured on the logits themselves, on a quantised base.
#[test]
fn a_knot_of_a_chain_moves_no_logit() {
    let (Some(file), Some(gpu)) = (model(), crate::common::gpu()) else { return };
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let data = Dataset::build("rows", &read_rows("rows", ROWS).unwrap(), &tokenizer, DataOptions::new(120)).unwrap().examples;
    let prompt = tokenizer.encode("The capital of France is", false).unwrap();
    let map = serde_json::json!({ "method": "cola", "links": [4, 2, 4], "link-alphas": [8, 4, 9], "knots": [2, 4], "steps": 5, "batch": 1,
        "seq": 120, "lr": 2e-3, "knot-probes": 0, "warmup": 0, "schedule": "constant" });
    let config = TrainConfig::from_map(map.as_object().unwrap()).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    pollster::block_on(async {
        let data = TrainData { train: data, ..TrainData::default() };
        let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
        let mut trainer = Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| {}).await.unwrap();
        let mut decoder = {
            let (store, model, tables) = trainer.session().parts();
            Decoder::new(gpu, store, model, Some(tables), 64, &mut Tuner::for_device(gpu), false).await.unwrap()
        };
        let mut logits = async |trainer: &mut Trainer| {
            decoder.reset();
            let (store, ..) = trainer.session().parts();
            decoder.push(gpu, store, &prompt, Some(0)).await.unwrap()
        };
        let base = logits(&mut trainer).await;
        for (knot, bound) in [(1, 0.0), (2, 1e-4)] {
            trainer.step(gpu).await.unwrap();
            trainer.step(gpu).await.unwrap();
            let before = logits(&mut trainer).await;
            let report = trainer.tie_if_due(gpu).await.unwrap().unwrap();
            let after = logits(&mut trainer).await;
            let most = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let jump = most(&before, &after);
            eprintln!("knot {knot}: largest change of a logit {jump:.2e}, of a log-probability {:.2e}", report.logit_jump);
            assert!(jump <= bound && report.logit_jump <= f64::from(bound), "knot {knot}: {jump} {report:?}");
            assert!(most(&base, &after) > 1e-2, "the links have no effect");
        }
    });
}

#[test]
fn the_chat_template_gets_a_sane_answer() {
    let (Some(file), Some(gpu)) = (model(), crate::common::gpu()) else { return };
    let tokenizer = Tokenizer::of_model(&file).unwrap();
    let messages = [serde_json::json!({ "role": "user", "content": "What is the capital of France?" })];
    let prompt = ChatTemplate::of(&tokenizer).unwrap().render(&messages, None, true).unwrap();
    let prompt = tokenizer.encode(&prompt, false).unwrap();
    let sampling = Sampling { max_tokens: 16, ..Sampling::default() };
    let written = pollster::block_on(async {
        let mut generator = Generator::open(gpu, &file, &[], None, 128, &mut Tuner::for_device(gpu), false, |_, _| {}).await.unwrap();
        generator.generate(gpu, &prompt, &sampling, tokenizer.stop_ids(), None, |_| true).await.unwrap()
    });
    assert_eq!(written.ended, Ended::End);
    let answer = tokenizer.decode(&written.tokens, true).unwrap();
    assert_eq!(answer, "The capital of France is Paris.");
}

#[test]
fn the_plan_of_a_full_run_fits_in_450_mb() {
    let Some(file) = model() else { return };
    let map = serde_json::json!({ "rank": 8, "batch": 4, "seq": 512 });
    let config = TrainConfig::from_map(map.as_object().unwrap()).unwrap();
    let plan = TrainPlan::new(&file, &config, None, PlanLimits::FLOOR, &Tuner::none()).unwrap();
    let total = plan.planned.footprint().total();
    assert!(total <= 450_000_000, "{total} bytes");
    assert!(total > 300_000_000, "{total} bytes cannot hold the weights and the activations");
}
