//! Runs that train embeddings: begun, resumed, gone on from, saved, merged, generated with, refused. Their curves are held to PyTorch in `longlora`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weblora::export::exporters;
use weblora::export::folder::Folder;
use weblora::export::peft::PeftAdapter;
use weblora::export::request::{Exported, Request, Sink};
use weblora::formats::{ByteSource, Bytes, ModelFile, SideFiles};
use weblora::generate::Generator;
use weblora::gpu::device::PlanLimits;
use weblora::gpu::{Gpu, Tuner};
use weblora::model::Recompute;
use weblora::settings::Map;
use weblora::text::Example;
use weblora::train::session::{Planned, Shape};
use weblora::train::start::{Start, from_adapter, lay_out};
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{TrainConfig, embeddings, score};

use crate::common::{assert_close, close, gpu};

const ROWS: usize = 48;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn gguf(bytes: Vec<u8>) -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", bytes));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

fn folder(weights: Vec<u8>, config: String) -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.safetensors", weights));
    block(ModelFile::open_safetensors(vec![source], None, SideFiles { config_json: Some(config), ..SideFiles::default() })).unwrap()
}

/// With a head of its own.
fn tiny() -> ModelFile {
    gguf(include_bytes!("../golden/tiny_llama/model.gguf").to_vec())
}

/// Whose head is its embedding.
fn tied() -> ModelFile {
    let all = safetensors::SafeTensors::deserialize(include_bytes!("../golden/tiny_llama/model.safetensors")).unwrap();
    let weights = safetensors::serialize(all.tensors().into_iter().filter(|(name, _)| name != "lm_head.weight"), None).unwrap();
    let mut config: Value = serde_json::from_str(include_str!("../golden/tiny_llama/config.json")).unwrap();
    config["tie_word_embeddings"] = true.into();
    folder(weights, config.to_string())
}

/// Rows of the tokens from `first` on, a few of them often.
fn data(first: u32) -> TrainData {
    let row = |row: u32| {
        let tokens: Vec<u32> = (0..12).map(|i| first + (i * i + row) % 17).collect();
        Example { targets: (0..tokens.len()).map(|i| i > 0).collect(), tokens, row: row as usize + 1, rejected: None }
    };
    TrainData { train: (0..6).map(row).collect(), ..TrainData::default() }
}

fn map(more: Value) -> Map {
    let mut map = json!({ "batch": 2, "seq": 16, "steps": 4, "lr": 2e-2, "warmup": 0, "rank": 2, "train-embeddings": true });
    map.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    map.as_object().unwrap().clone()
}

fn trainer(gpu: &Gpu, file: &ModelFile, config: TrainConfig, data: TrainData, start: Option<Start>) -> Trainer {
    let mut tuner = Tuner::for_device(gpu);
    let plan = TrainPlan::new(file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    block(Trainer::new(gpu, file, config, data, plan, start, &mut tuner, false, |_, _| {})).unwrap()
}

fn begin(gpu: &Gpu, file: &ModelFile, more: Value) -> Trainer {
    trainer(gpu, file, TrainConfig::from_map(&map(more)).unwrap(), data(3), None)
}

fn steps(gpu: &Gpu, run: &mut Trainer, count: usize) -> Vec<f64> {
    (0..count).map(|_| block(run.step(gpu)).unwrap().loss).collect()
}

fn files_of(files: Vec<(&'static str, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

fn saved(gpu: &Gpu, run: &Trainer) -> Vec<(String, Vec<u8>)> {
    files_of(block(run.export(gpu)).unwrap())
}

fn read(files: &[(String, Vec<u8>)], model: &ModelFile) -> PeftAdapter {
    PeftAdapter::read(Folder::of("saved", files).unwrap(), &model.config).unwrap()
}

/// The loss of these rows with an adapter, or of the model alone.
fn loss(gpu: &Gpu, file: &ModelFile, adapter: Option<&PeftAdapter>, rows: &[Example]) -> f64 {
    let shape = Shape { rows: ROWS, positions: 64, recompute: Recompute::Off, quantize: None, training: false };
    let laid_out = adapter.map(|adapter| {
        let (mut layout, values) = lay_out("adapter", adapter, &file.config).unwrap();
        layout.freeze();
        (layout, values)
    });
    let layouts: Vec<_> = laid_out.iter().map(|(layout, _)| layout).collect();
    let planned = Planned::new(file, &layouts, shape, gpu.plan_limits(), &Tuner::for_device(gpu)).unwrap();
    let mut session = block(planned.realize(gpu, file, |_, _| {})).unwrap();
    if let Some((_, values)) = &laid_out {
        session.write_values(gpu, 0, values).unwrap();
    }
    block(score::mean(&mut session, gpu, rows, adapter.map(|_| 0))).unwrap().unwrap().loss
}

/// Shape and bytes of a tensor.
type Content = (Vec<usize>, Vec<u8>);

#[derive(Default)]
struct Memory(Vec<(String, Vec<u8>)>);

impl Sink for Memory {
    fn begin(&mut self, name: &str, _: u64) -> weblora::Result<()> {
        self.0.push((name.to_owned(), Vec::new()));
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> weblora::Result<()> {
        self.0.last_mut().unwrap().1.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> weblora::Result<()> {
        Ok(())
    }
}

fn export(to: &str, adapter: &PeftAdapter, model: Option<&ModelFile>, format: Option<&str>) -> (Vec<(String, Vec<u8>)>, Exported) {
    let format = format.map(|name| weblora::quant::by_name(name).unwrap());
    let request = Request { name: "test", adapter: adapter.into(), model, format };
    let mut memory = Memory::default();
    let done = block((exporters::by_name(to).unwrap().run)(&request, &mut memory)).unwrap();
    (memory.0, done)
}

fn bytes_of<'f>(files: &'f [(String, Vec<u8>)], name: &str) -> &'f [u8] {
    &files.iter().find(|(file, _)| file == name).unwrap().1
}

#[test]
fn every_method_trains_the_embeddings_of_its_rows_and_resumes_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    let methods = [
        json!({ "recompute": true }),
        json!({ "method": "cola", "links": [2, 2], "knots": [2], "train-norms": true, "group": 8 }),
        json!({ "method": "multilora", "modules": 2, "grad-accum": 2 }),
    ];
    for more in methods {
        let file = tied();
        let mut run = begin(gpu, &file, more.clone());
        assert!(read(&saved(gpu, &run), &file).embeddings.unwrap().delta.iter().all(|x| *x == 0.0), "{more}: the start");
        steps(gpu, &mut run, 2);
        let before = read(&saved(gpu, &run), &file).embeddings.unwrap();
        let tokens: BTreeSet<u32> = data(3).train.iter().flat_map(|row| row.tokens.clone()).collect();
        assert!(before.tokens.iter().eq(&tokens), "{more}: {:?}", before.tokens);
        let moved = before.delta.chunks_exact(before.width()).filter(|row| row.iter().any(|x| *x != 0.0)).count();
        assert!(moved > 3, "{more}: {moved} embeddings move");
        if let Some(knot) = block(run.tie_if_due(gpu)).unwrap() {
            assert_eq!(knot.logit_jump, 0.0, "embeddings stay at a knot");
            assert_eq!(read(&saved(gpu, &run), &file).embeddings.as_ref(), Some(&before));
        }
        let checkpoint = block(run.checkpoint(gpu)).unwrap();
        let losses = steps(gpu, &mut run, 2);
        let mut again = begin(gpu, &file, more.clone());
        again.resume(gpu, "saved", &checkpoint).unwrap();
        assert_eq!(steps(gpu, &mut again, 2), losses, "{more}: resumed bit for bit");
        assert_eq!(saved(gpu, &again), saved(gpu, &run), "{more}: the same adapter");
    }
}

#[test]
fn a_run_goes_on_from_embeddings_with_rows_of_other_tokens() {
    let Some(gpu) = gpu() else { return };
    let file = tiny();
    let mut first = begin(gpu, &file, json!({}));
    steps(gpu, &mut first, 3);
    let files = saved(gpu, &first);
    let own = read(&files, &file).embeddings.unwrap();
    let identity = block(file.identity()).unwrap();
    let folder = || Folder::of("first", &files).unwrap();
    let mut settings = map(json!({ "steps": 3 }));
    settings.remove("train-embeddings");
    let (config, start) = from_adapter(settings.clone(), folder(), &file.config, &identity).unwrap();
    assert!(config.adapter.train_embeddings && start.tokens == own.tokens);
    let mut run = trainer(gpu, &file, config.clone(), data(40), Some(start.clone()));
    let begun = read(&saved(gpu, &run), &file).embeddings.unwrap();
    assert!(begun.tokens.len() > own.tokens.len() && own.tokens.iter().all(|token| begun.row(*token) == own.row(*token)));
    assert!(
        begun.tokens.iter().filter(|token| own.row(**token).is_none()).all(|token| begun.row(*token).unwrap().iter().all(|x| *x == 0.0))
    );
    // It resumes without the adapter, whose tokens are in the checkpoint.
    steps(gpu, &mut run, 1);
    let checkpoint = block(run.checkpoint(gpu)).unwrap();
    let losses = steps(gpu, &mut run, 2);
    let state = weblora::train::Checkpoint::read("saved", &checkpoint).unwrap().state;
    assert_eq!(state.embedding_tokens, *begun.tokens);
    let mut config = TrainConfig::from_map(&state.config).unwrap();
    let refused = trainer(gpu, &file, config.clone(), data(40), None).resume(gpu, "saved", &checkpoint).unwrap_err().to_string();
    assert!(refused.contains("embeddings of"), "{refused}");
    config.adapter = config.adapter.with_tokens(state.embedding_tokens.iter().copied());
    let mut again = trainer(gpu, &file, config, data(40), None);
    again.resume(gpu, "saved", &checkpoint).unwrap();
    assert_eq!(steps(gpu, &mut again, 2), losses);
    // Settings that lost the tokens, and those that train none.
    let lost = TrainConfig::from_map(&state.config).unwrap();
    let plan = TrainPlan::new(&file, &lost, Some(&data(40)), gpu.plan_limits(), &Tuner::none()).unwrap();
    let error = block(Trainer::new(gpu, &file, lost, data(40), plan, Some(start), &mut Tuner::none(), false, |_, _| {})).err().unwrap();
    assert!(error.to_string().contains("without the tokens"), "{error}");
    settings.insert("train-embeddings".into(), false.into());
    let refused = from_adapter(settings, folder(), &file.config, &identity).unwrap_err().to_string();
    assert!(refused.contains("embeddings of its own"), "{refused}");
}

#[test]
fn merged_models_have_the_embeddings_and_a_head_of_their_own() {
    let Some(gpu) = gpu() else { return };
    let rows = data(3).train;
    for file in [tiny(), tied()] {
        let mut run = begin(gpu, &file, json!({ "train-norms": true }));
        steps(gpu, &mut run, 4);
        let adapter = read(&saved(gpu, &run), &file);
        let want = loss(gpu, &file, Some(&adapter), &rows);
        let close = |found: f64, by: f64| (found - want).abs() < by * want;
        assert!(!close(loss(gpu, &file, None, &rows), 1e-2), "the adapter does something");
        let without = PeftAdapter { embeddings: None, ..adapter.clone() };
        assert!(!close(loss(gpu, &file, Some(&without), &rows), 1e-2), "its embeddings do something");
        let (files, done) = export("merged-safetensors", &adapter, Some(&file), Some("f32"));
        assert!(done.warnings.is_empty() && done.tensors.iter().any(|t| t.projection == "embed_tokens" && t.retention > 0.999));
        let merged =
            folder(bytes_of(&files, "model.safetensors").to_vec(), String::from_utf8(bytes_of(&files, "config.json").to_vec()).unwrap());
        assert!(!merged.config.tie_word_embeddings && merged.warnings().is_empty(), "{:?}", merged.warnings());
        let found = loss(gpu, &merged, None, &rows);
        assert!(close(found, 1e-5), "merged {found}, with the adapter {want}");
        // Tied, its head would have what no head was trained with.
        let head = block(merged.read_f32("lm_head.weight")).unwrap();
        let of_base = if file.config.tie_word_embeddings { "model.embed_tokens.weight" } else { "lm_head.weight" };
        assert_eq!(head, block(file.read_f32(of_base)).unwrap());
        let (_, done) = export("gguf", &adapter, Some(&file), None);
        assert!(done.warnings.iter().any(|w| w.contains("embeddings are left out")), "{:?}", done.warnings);
    }
}

#[test]
fn merged_ggufs_keep_the_rows_of_other_tokens() {
    let Some(gpu) = gpu() else { return };
    let (file, rows) = (tiny(), data(3).train);
    let mut run = begin(gpu, &file, json!({}));
    steps(gpu, &mut run, 4);
    let adapter = read(&saved(gpu, &run), &file);
    let own = adapter.embeddings.clone().unwrap();
    let want = loss(gpu, &file, Some(&adapter), &rows);
    for (format, by) in [(None, 0.05), (Some("f16"), 1e-3)] {
        let (files, done) = export("merged-gguf", &adapter, Some(&file), format);
        assert!(done.warnings.is_empty());
        let merged = gguf(files[0].1.clone());
        let found = loss(gpu, &merged, None, &rows);
        assert!((found - want).abs() < by * want, "{format:?}: merged {found}, with the adapter {want}");
        let (was, is) = (embedding(&file), embedding(&merged));
        let (d, mut changed) = (file.config.hidden_size, 0);
        for (token, (was, is)) in was.chunks_exact(d).zip(is.chunks_exact(d)).enumerate() {
            changed += usize::from(was != is);
            // In another format all rows are rounded anew.
            assert!(format.is_some() || was == is || own.row(token as u32).is_some(), "token {token}");
        }
        assert!(2 * changed > own.tokens.len(), "{format:?}: {changed} rows of {}", own.tokens.len());
    }
}

fn embedding(file: &ModelFile) -> Vec<f32> {
    block(file.read_f32("model.embed_tokens.weight")).unwrap()
}

#[test]
fn folders_for_peft_have_the_whole_embedding_and_ours_its_rows() {
    let Some(gpu) = gpu() else { return };
    let file = tied();
    let mut run = begin(gpu, &file, json!({}));
    steps(gpu, &mut run, 3);
    let files = saved(gpu, &run);
    let adapter = read(&files, &file);
    let own = adapter.embeddings.clone().unwrap();
    let listed = |files: &[(String, Vec<u8>)]| {
        serde_json::from_slice::<Value>(bytes_of(files, "adapter_config.json")).unwrap()["modules_to_save"].clone()
    };
    assert_eq!(listed(&files), Value::Null);
    let (small, done) = export("peft", &adapter, None, None);
    assert!(small == files && done.warnings[0].contains("with --model they are written whole"), "{:?}", done.warnings);
    let (large, done) = export("peft", &adapter, Some(&file), None);
    assert!(listed(&large) == json!(["embed_tokens"]) && done.warnings[0].contains("modules_to_save"), "{:?}", done.warnings);
    assert_eq!(read(&large, &file), adapter);
    let tensors = safetensors::SafeTensors::deserialize(bytes_of(&large, "adapter_model.safetensors")).unwrap();
    let whole = tensors.tensor("base_model.model.model.embed_tokens.weight").unwrap();
    assert_eq!(whole.shape(), [file.config.vocab_size, file.config.hidden_size]);
    let whole: Vec<f32> = whole.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    for (token, (row, base)) in whole.chunks_exact(own.width()).zip(embedding(&file).chunks_exact(own.width())).enumerate() {
        let delta = own.row(token as u32).map_or_else(|| vec![0.0; row.len()], <[f32]>::to_vec);
        assert!(row.iter().zip(base).zip(delta).all(|((x, base), delta)| *x == base + delta), "token {token}");
    }
    // Tensors that do not fit.
    let refused = |change: &dyn Fn(&mut Vec<u32>, &mut Vec<usize>), words: &str| {
        let own_tensors = safetensors::SafeTensors::deserialize(bytes_of(&files, "adapter_model.safetensors")).unwrap();
        let (mut tokens, mut shape) = (own.tokens.to_vec(), vec![own.tokens.len(), own.width()]);
        change(&mut tokens, &mut shape);
        let dtype = |name: &str| if name.ends_with(".tokens") { safetensors::Dtype::U32 } else { safetensors::Dtype::F32 };
        let of = |name: &str, view: &safetensors::tensor::TensorView<'_>| match name {
            "weblora.embed_tokens.tokens" => (vec![tokens.len()], bytemuck::cast_slice(&tokens).to_vec()),
            "weblora.embed_tokens.delta" => (shape.clone(), vec![0; 4 * shape.iter().product::<usize>()]),
            _ => (view.shape().to_vec(), view.data().to_vec()),
        };
        let all: Vec<(String, Content)> = own_tensors
            .tensors()
            .iter()
            .map(|(name, view)| (name.clone(), of(name, view)))
            .filter(|(_, (shape, _))| shape[0] > 0)
            .collect();
        let views = all
            .iter()
            .map(|(name, (shape, bytes))| (name, safetensors::tensor::TensorView::new(dtype(name), shape.clone(), bytes).unwrap()));
        let weights = safetensors::serialize(views, None).unwrap();
        let config = bytes_of(&files, "adapter_config.json");
        let error =
            PeftAdapter::read(Folder { name: "bad", config, weights: &weights, note: None, chain: None }, &file.config).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    };
    refused(&|tokens, _| tokens.swap(0, 1), "does not ascend");
    refused(&|tokens, _| *tokens.last_mut().unwrap() = 97, "past the model's vocabulary");
    refused(&|tokens, _| tokens.clear(), "without the other");
    refused(&|tokens, _| tokens.truncate(2), "for 2 tokens");
    refused(&|_, shape| shape[1] -= 4, "rows of 32");
}

/// `golden/check_peft.py` loads the folder that is compared here into PEFT, on the tied model, and checks its logits against the embedding and
/// the products written out. After a change of the writer: run this test with `WEBLORA_BLESS=1`, then that script.
#[test]
fn the_folder_is_the_one_that_peft_was_seen_to_load() {
    let file = tied();
    let config = TrainConfig::from_map(&map(json!({ "rank": 2, "alpha": 4 }))).unwrap();
    let layout = config.adapter.with_tokens(data(3).tokens()).layout(&file.config).unwrap();
    let mut values = weblora::adapters::initial_buffer(&layout.params, 0);
    for spec in layout.params.specs.iter().filter(|s| s.name.ends_with("lora_B") || s.name == "embed_tokens") {
        spec.put_hf(&weblora::rng::fill_uniform(&format!("0/{}", spec.name), spec.len(), 0.2), &mut values);
    }
    let adapter = PeftAdapter::from_layout(&layout, &values, Some("tiny_llama".into()), None);
    let (files, _) = export("peft", &adapter, Some(&file), None);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/peft_embeddings");
    for (name, bytes) in &files {
        if std::env::var_os("WEBLORA_BLESS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        assert!(*bytes == std::fs::read(folder.join(name)).unwrap(), "{name} is not the committed one");
    }
}

#[test]
fn text_is_written_with_the_embeddings() {
    let Some(gpu) = gpu() else { return };
    let file = tiny();
    let mut run = begin(gpu, &file, json!({ "lr": 5e-2 }));
    steps(gpu, &mut run, 4);
    let adapter = read(&saved(gpu, &run), &file);
    let (merged, _) = export("merged-safetensors", &adapter, Some(&file), Some("f32"));
    let merged =
        folder(bytes_of(&merged, "model.safetensors").to_vec(), String::from_utf8(bytes_of(&merged, "config.json").to_vec()).unwrap());
    let logits = |file: &ModelFile, adapter: Option<&PeftAdapter>| {
        let adapters: Vec<_> = adapter.iter().map(|adapter| lay_out("adapter", adapter, &file.config).unwrap()).collect();
        let mut generator = block(Generator::open(gpu, file, &adapters, None, 32, &mut Tuner::for_device(gpu), false, |_, _| {})).unwrap();
        block(generator.logits(gpu, &data(3).train[0].tokens, adapter.map(|_| 0))).unwrap()
    };
    let with = logits(&file, Some(&adapter));
    assert_close("logits", &with, &logits(&merged, None), 1e-5, 1e-4);
    let without = PeftAdapter { embeddings: None, ..adapter.clone() };
    assert!(close(&with, &logits(&file, Some(&without)), 1e-2, 1e-2).is_err(), "its embeddings do something");
}

#[test]
fn what_cannot_be_is_said_before_training() {
    let file = tied();
    let plan = |more: Value, limits: PlanLimits, memory: Option<u64>| {
        let config = TrainConfig { memory, ..TrainConfig::from_map(&map(more)).unwrap() };
        TrainPlan::new(&file, &config, Some(&data(3)), limits, &Tuner::none())
    };
    let fits = plan(json!({}), PlanLimits::FLOOR, None).unwrap();
    let tokens = fits.layout.embeddings.as_ref().unwrap().tokens.len();
    assert_eq!(tokens, 17);
    let told = embeddings::warning(&fits.layout, &file.config).unwrap();
    assert!(told.contains("17 tokens") && told.contains("stays the base's"), "{told}");
    assert!(!embeddings::warning(&fits.layout, &tiny().config).unwrap().contains("stays"));
    let error = plan(json!({}), PlanLimits::FLOOR, Some(1000)).err().unwrap().to_string();
    assert!(error.contains("leave out train-embeddings"), "{error}");
    let error = plan(json!({ "train-embeddings": false }), PlanLimits::FLOOR, Some(1000)).err().unwrap().to_string();
    assert!(!error.contains("embeddings"), "{error}");
    for method in ["mixlora", "mixlora-dynamic", "mixlora-switch"] {
        let error = plan(json!({ "method": method }), PlanLimits::FLOOR, None).err().unwrap().to_string();
        assert!(error.contains("train-embeddings"), "{error}");
    }
    // Without rows any token may train.
    let config = TrainConfig::from_map(&map(json!({}))).unwrap();
    let all = TrainPlan::new(&file, &config, None, PlanLimits::FLOOR, &Tuner::none()).unwrap();
    assert_eq!(all.layout.embeddings.unwrap().tokens.len(), file.config.vocab_size);
}
