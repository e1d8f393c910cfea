//! MixLoRA folders: those that a script wrote with PyTorch and the authors' names, our own, and what is refused.

use crate::common::program::{self, succeeds};
use serde_json::{Value, json};
use weblora::adapters::{AdapterConfig, AdapterLayout, initial_buffer};
use weblora::config::ModelConfig;
use weblora::export::adapter::Adapter;
use weblora::export::edit;
use weblora::export::exporters::EXPORTERS;
use weblora::export::folder::{File, Folder};
use weblora::export::mixlora::MixLoraAdapter;
use weblora::export::mixlora::names::Part;
use weblora::export::mixlora::write::Container;
use weblora::export::peft::{Note, PeftAdapter};
use weblora::export::request::{Exported, Request, Sink};
use weblora::formats::{BaseId, ByteSource, Bytes, ModelFile, pickle};
use weblora::rng::{bits, fill_uniform, fnv1a};
use weblora::settings::{Map, Settings};
use weblora::text::Example;
use weblora::train::TrainConfig;
use weblora::train::job::{BaseIdentity, Job};
use weblora::train::start::{from_adapter, open_adapter};
use weblora::train::trainer::TrainData;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn tiny() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", include_bytes!("../golden/tiny_llama/model.gguf")));
    block(ModelFile::open_gguf(vec![source])).unwrap()
}

fn model() -> ModelConfig {
    tiny().config
}

fn base() -> BaseId {
    BaseId { hash: "ab".into(), name: "base".into(), format: "q4_0".into() }
}

/// A folder of the script: its files.
fn golden(name: &str) -> Vec<(String, Vec<u8>)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())).collect()
}

fn owned(files: &[File]) -> Vec<(String, Vec<u8>)> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.clone())).collect()
}

fn read(name: &str, files: &[(String, Vec<u8>)]) -> weblora::Result<MixLoraAdapter> {
    MixLoraAdapter::read(Folder::of(name, files)?, &model())
}

/// The numbers of a tensor as the script draws them.
fn numbers(name: &str, count: usize) -> Vec<f32> {
    let seed = fnv1a(&format!("mixlora_files/{name}"));
    (1..=count as u64).map(|i| ((bits(seed, i) >> 32) % 64) as f32 / 64.0 - 0.5).collect()
}

/// Everything but what the configuration's own words decide.
fn tensors(adapter: &MixLoraAdapter) -> Vec<(String, Vec<f32>)> {
    let pairs = adapter.attention.iter().flat_map(|p| [(Part::Attention(p.site, 0), &p.a), (Part::Attention(p.site, 1), &p.b)]);
    let each = adapter.experts.iter().flat_map(|set| set.experts.iter().enumerate());
    let experts = each.flat_map(|(e, p)| [(Part::Expert(p.site, e, 0), &p.a), (Part::Expert(p.site, e, 1), &p.b)]);
    let gates = adapter.gates.iter().map(|gate| (Part::Gate(gate.layer), &gate.values));
    pairs.chain(experts).chain(gates).map(|(part, values)| (part.name(), values.clone())).collect()
}

#[test]
fn folders_of_the_authors_kind_are_read_alike() {
    let stored = read("safetensors", &golden("mixlora/safetensors")).unwrap();
    let all = tensors(&stored);
    assert_eq!(all.len(), 2 * (2 + 2 * 2 * 3 + 1));
    for (name, values) in &all {
        assert_eq!(*values, numbers(name, values.len()), "{name}");
    }
    let r = stored.routing;
    assert_eq!((r.experts, r.top_k, r.aux_coef), (3, 2, 0.001));
    let (attention, expert) = (&stored.attention[0], &stored.experts[0].experts[2]);
    assert_eq!((attention.rank, attention.alpha, expert.rank, expert.alpha), (2, 4.0, 1, 3.0));
    assert_eq!(stored.dropout, (0.05, 0.1));
    for name in ["mixlora/bin", "mixlora/legacy"] {
        let files = golden(name);
        assert!(files.iter().any(|(file, _)| file == "adapter_model.bin"));
        assert_eq!(read(name, &files).unwrap(), stored, "{name}");
        let alone = MixLoraAdapter::read_alone(Folder::of(name, &files).unwrap()).unwrap();
        assert_eq!(tensors(&alone), all, "{name} without its model");
    }
    let switch = read("switch", &golden("mixlora/switch")).unwrap();
    assert_eq!(tensors(&switch), all);
    assert_eq!((switch.routing.capacity, switch.routing.z_coef, switch.routing.aux_coef), (7, 0.01, 0.02));
    assert_ne!(switch, stored, "another strategy is another adapter");
}

/// `golden/make_mixlora_files.py --check` reads the folder that is compared here with PyTorch. After a change of the writer: run this test with
/// `WEBLORA_BLESS=1`, then that.
#[test]
fn the_folder_is_the_one_that_pytorch_was_seen_to_read() {
    let adapter = read("safetensors", &golden("mixlora/safetensors")).unwrap();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mixlora/ours");
    for container in [Container::Safetensors, Container::Pickle] {
        let files = adapter.to_files("ours", container).unwrap();
        assert_eq!(read("again", &owned(&files)).unwrap(), adapter, "{container:?}");
        for (name, bytes) in &files {
            if std::env::var_os("WEBLORA_BLESS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(name), bytes).unwrap();
            }
            assert!(*bytes == std::fs::read(folder.join(name)).unwrap(), "{name} is not the committed one");
        }
    }
}

fn layout(value: Value) -> (TrainConfig, AdapterLayout) {
    let map: Map = value.as_object().unwrap().clone();
    let config = TrainConfig::from_map(&map).unwrap();
    let layout = config.adapter.layout(&model()).unwrap();
    (config, layout)
}

/// Values with nothing zero.
fn filled(layout: &AdapterLayout) -> Vec<f32> {
    let mut values = initial_buffer(&layout.params, 3);
    for spec in layout.params.specs.iter().filter(|spec| spec.name.ends_with("lora_B")) {
        spec.put_hf(&fill_uniform(&spec.name, spec.len(), 0.5), &mut values);
    }
    values
}

fn runs() -> Vec<Value> {
    vec![
        json!({"method": "mixlora", "rank": 3, "experts": 4, "dropout": 0.05, "expert-dropout": 0.1}),
        json!({"method": "mixlora", "experts": 5, "top-k": 3, "rank": 4, "alpha": 6.5, "expert-rank": 2, "expert-alpha": 9, "rslora": true,
               "targets": "q,up", "aux-coef": 0.02, "jitter": 0.1, "balance": "concatenated", "lora-plus": 4}),
        json!({"method": "mixlora", "experts": 2, "targets": ["v", "layers.1.mlp.gate_proj"], "rank": 2}),
        json!({"method": "mixlora", "experts": 2, "targets": ["gate"], "expert-rank": 3}),
        json!({"method": "mixlora", "experts": 2, "rank": 2, "rank-pattern": {"o_proj": 3, "layers.1.mlp.up_proj": 5},
               "alpha-pattern": {"down_proj": 7}}),
        json!({"method": "mixlora-dynamic", "experts": 4, "top-p": 0.7, "router-temperature": 0.5, "rank": 2}),
        json!({"method": "mixlora-dynamic", "experts": 4, "top-p": 0.7, "renormalize": true, "rank": 2, "targets": "down"}),
        json!({"method": "mixlora-switch", "experts": 3, "expert-capacity": 9, "z-coef": 0.03, "rank": 2}),
    ]
}

/// What a run of each kind saves is, opened again, the same layout and values: for generation, and for a run that goes on from it.
#[test]
fn what_a_run_saves_is_opened_as_it_was() {
    let file = tiny();
    let identity = BaseIdentity::new(&file, base());
    for run in runs() {
        let (config, layout) = layout(run.clone());
        let values = filled(&layout);
        let example = Example { tokens: vec![1, 2, 3], targets: vec![false, true, true], row: 1, rejected: None };
        let data = TrainData { train: vec![example], ..TrainData::default() };
        let job = Job::new(config.clone(), data, layout.clone(), 8, identity.clone()).unwrap();
        let files = job.export(&values).unwrap();
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["adapter_model.safetensors", "README.md", "weblora.json", "adapter_config.json"]);
        let files = owned(&files);
        let folder = Folder::of("saved", &files).unwrap();
        let ((mut opened, found), warning) = open_adapter(folder, &model(), &base(), true).unwrap();
        assert_eq!(warning, None);
        assert_eq!(found, values, "{run}");
        let (mut expected, own) = (layout.clone(), config.adapter.options.clone());
        // Dropout and the rate of B are of the training alone.
        for layout in [&mut opened, &mut expected] {
            layout.dropout = 0.0;
            layout.experts.as_mut().unwrap().dropout = 0.0;
            layout.params.specs.iter_mut().for_each(|spec| spec.lr_multiplier = 1.0);
        }
        assert_eq!(opened, expected, "{run}");
        let (again, start) = from_adapter(Map::new(), folder, &model(), &base()).unwrap();
        assert_eq!(start.values, values, "{run}");
        assert_eq!(again.adapter.method, config.adapter.method);
        for key in ["aux-coef", "balance", "jitter", "z-coef"].into_iter().filter(|key| own.contains_key(*key)) {
            assert_eq!(again.adapter.options[key], own[key], "{run}: {key} comes back from the note");
        }
        // Without the note the model is the same; the training's own settings have the authors' defaults.
        let bare: Vec<(String, Vec<u8>)> = files.iter().filter(|(name, _)| name != "weblora.json").cloned().collect();
        let ((without, found), _) = open_adapter(Folder::of("bare", &bare).unwrap(), &model(), &base(), true).unwrap();
        assert_eq!((found, without.params.specs.len()), (values, layout.params.specs.len()), "{run}");
        assert_eq!(without.experts.unwrap().routing.renormalize, layout.experts.as_ref().unwrap().routing.renormalize);
        // Settings given anew go before the adapter's; what changes its shape is refused.
        let given = |value: Value| value.as_object().unwrap().clone();
        let (other, _) = from_adapter(given(json!({"aux-coef": 0.5})), folder, &model(), &base()).unwrap();
        assert_eq!(other.adapter.options["aux-coef"], 0.5);
        let method = &config.adapter.method;
        let refused = from_adapter(given(json!({"method": method, "experts": 7})), folder, &model(), &base()).unwrap_err().to_string();
        assert!(refused.contains("experts in a block, the run 7") && refused.contains("leave out"), "{refused}");
        for other in ["lora", "cola"] {
            let refused = from_adapter(given(json!({"method": other})), folder, &model(), &base()).unwrap_err().to_string();
            assert!(refused.contains("routed experts of the method") && refused.contains("--method"), "{refused}");
        }
    }
}

#[test]
fn plain_lora_does_not_start_experts() {
    let files = golden("peft_multilora");
    let map = json!({"method": "mixlora", "experts": 2}).as_object().unwrap().clone();
    let refused = from_adapter(map, Folder::of("plain", &files).unwrap(), &model(), &base()).unwrap_err().to_string();
    assert!(refused.contains("plain LoRA") && refused.contains("--method lora"), "{refused}");
}

// ---- what is refused --------------------------------------------------------------------------------------------------------------------

/// The safetensors folder with a change to its configuration.
fn with_config(change: impl FnOnce(&mut Map)) -> Vec<(String, Vec<u8>)> {
    let mut files = golden("mixlora/safetensors");
    let config = &mut files.iter_mut().find(|(name, _)| name == "adapter_config.json").unwrap().1;
    let mut map: Map = serde_json::from_slice(config).unwrap();
    change(&mut map);
    *config = Value::from(map).to_string().into_bytes();
    files
}

/// The safetensors folder with other tensors: a name, sizes and numbers each.
fn with_tensors(change: impl FnOnce(&mut Vec<(String, Vec<usize>, Vec<f32>)>)) -> Vec<(String, Vec<u8>)> {
    let mut files = golden("mixlora/bin");
    let weights = &mut files.iter_mut().find(|(name, _)| name == "adapter_model.bin").unwrap().1;
    let read = pickle::read("bin", weights).unwrap().into_iter();
    let mut tensors: Vec<_> = read.map(|t| (t.name, t.shape, t.format.decode_vec(&t.bytes))).collect();
    change(&mut tensors);
    let borrowed: Vec<_> = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())).collect();
    *weights = pickle::write("bin", &borrowed).unwrap();
    files
}

#[track_caller]
fn refused(files: &[(String, Vec<u8>)], words: &[&str]) {
    let text = read("x", files).unwrap_err().to_string();
    words.iter().for_each(|word| assert!(text.contains(word), "{text} does not say {word:?}"));
}

#[test]
fn configurations_that_cannot_work_are_refused_by_name() {
    let set = |key: &'static str, value: Value| with_config(move |map| drop(map.insert(key.into(), value)));
    refused(&set("routing_strategy", json!("expert-choice")), &["routing_strategy", "expert-choice", "mixlora-dynamic"]);
    refused(&set("routing_strategy", Value::Null), &["routing_strategy"]);
    refused(&set("top_k", json!(4)), &["`top_k` is 4", "1 to 3"]);
    refused(&set("top_k", json!(0)), &["`top_k` is 0"]);
    refused(&set("num_experts", json!(1)), &["`num_experts` is 1"]);
    refused(&set("num_experts", json!(1e9)), &["`num_experts`"]);
    refused(&set("num_experts", json!(4)), &["no expert 3"]);
    refused(&set("num_experts", json!(2)), &["expert 2", "2 experts"]);
    refused(&set("r", json!(3)), &["lora_A of layers.0.self_attn.q_proj", "rank 3"]);
    refused(&set("expert_lora", json!({"r": 2})), &["expert 0", "rank 2"]);
    refused(&set("expert_lora", json!({"r": 1, "use_dora": true})), &["expert_lora", "use_dora"]);
    refused(&set("use_dora", json!(true)), &["use_dora"]);
    refused(&set("act_fn", json!("gelu_new")), &["act_fn", "gelu_new"]);
    refused(&set("task_type", json!("SEQ_CLS")), &["task_type", "SEQ_CLS"]);
    refused(&set("sparse_step", json!(2)), &["sparse_step"]);
    refused(&set("entropy_index", json!(1.4)), &["entropy_index"]);
    refused(&with_config(|map| drop(map.remove("r"))), &["`r` is missing"]);
    // What the authors' code writes and means nothing here is taken.
    for (key, value) in [("act_fn", json!("silu")), ("task_type", Value::Null), ("router_loss", json!(false)), ("jitter_noise", json!(0.0))]
    {
        read("x", &set(key, value)).unwrap();
    }
    assert_eq!(read("x", &set("router_loss", json!(false))).unwrap().routing.aux_coef, 0.0);
    let named = json!({"q_proj": true, "gate_proj": true, "down_proj": true, "up_proj": false});
    read("x", &set("target_modules", named)).unwrap();
}

#[test]
fn tensors_that_do_not_fit_are_refused_by_name() {
    let find = |tensors: &[(String, Vec<usize>, Vec<f32>)], part: &str| tensors.iter().position(|(name, ..)| name.contains(part)).unwrap();
    let without = |part: &'static str| with_tensors(move |t| drop(t.remove(find(t, part))));
    refused(&without("layers.1.mlp.moe_gate"), &["block 1", "no router"]);
    refused(&without("layers.0.mlp.gate_proj.experts.1.lora_B"), &["expert 1 of layers.0.mlp.gate_proj", "no lora_B"]);
    refused(&without("layers.0.self_attn.q_proj.lora_A"), &["q_proj", "no lora_A"]);
    let no_pair = |t: &mut Vec<(String, Vec<usize>, Vec<f32>)>| t.retain(|(name, ..)| !name.contains("layers.0.mlp.down_proj.experts.2"));
    refused(&with_tensors(no_pair), &["layers.0.mlp.down_proj has no expert 2"]);
    refused(
        &with_tensors(|t| t.retain(|(name, ..)| !name.contains("layers.1.mlp.gate_proj") && !name.contains("layers.1.mlp.down_proj"))),
        &["block 1 has a router"],
    );
    refused(&with_tensors(|t| t.retain(|(name, ..)| name.contains("self_attn"))), &["no experts"]);
    refused(&with_tensors(Vec::clear), &["no experts"]);
    let add = |name: &'static str, shape: Vec<usize>| {
        with_tensors(move |t| {
            let count = shape.iter().product();
            t.push((name.into(), shape, vec![0.0; count]));
        })
    };
    refused(&add("classifier", vec![2, 32]), &["classifier"]);
    refused(&add("mixlora.layers.2.mlp.moe_gate.weight", vec![3, 32]), &["layers.2", "2 blocks"]);
    refused(&add("mixlora.layers.0.mlp.gate_proj.lora_A.weight", vec![2, 32]), &["mlp.gate_proj.lora_A"]);
    refused(&add("mixlora.layers.0.gate.weight", vec![3, 32]), &["old name"]);
    let reshaped = |part: &'static str, shape: Vec<usize>| {
        with_tensors(move |t| {
            let at = find(t, part);
            t[at].2.resize(shape.iter().product(), 0.0);
            t[at].1 = shape;
        })
    };
    refused(&reshaped("layers.0.mlp.moe_gate", vec![3, 31]), &["router of block 0", "[3, 31]", "width of 32"]);
    refused(&reshaped("layers.0.mlp.moe_gate", vec![96]), &["router of block 0"]);
    refused(&reshaped("gate_proj.experts.0.lora_B", vec![95, 1]), &["[95, 1]", "96 x 32"]);
    refused(&reshaped("gate_proj.experts.0.lora_B", vec![1, 96]), &["[1, 96]"]);
    refused(&reshaped("gate_proj.experts.0.lora_A", vec![]), &["lora_A"]);
    let not_a_number = with_tensors(|t| {
        let at = find(t, "layers.1.mlp.moe_gate");
        t[at].2[5] = f32::NAN;
    });
    refused(&not_a_number, &["router of block 1", "NaN or infinite at element 5"]);
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl Sink for Nowhere {
    fn begin(&mut self, _: &str, _: u64) -> weblora::Result<()> {
        Ok(())
    }
    fn write(&mut self, _: &[u8]) -> weblora::Result<()> {
        Ok(())
    }
    fn end(&mut self) -> weblora::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_else_is_made_of_routed_experts() {
    let files = golden("mixlora/safetensors");
    let folder = Folder::of("routed", &files).unwrap();
    let words = ["MixLoRA", "routers choose experts for every token", "--to mixlora"];
    let says = |text: String| words.iter().for_each(|word| assert!(text.contains(word), "{text} does not say {word:?}"));
    says(PeftAdapter::read(folder, &model()).unwrap_err().to_string());
    says(PeftAdapter::read_alone(folder).unwrap_err().to_string());
    says(edit::read(&[folder], None).map(drop).unwrap_err().to_string());
    let file = tiny();
    let routed = Adapter::read(folder, Some(&file.config)).unwrap();
    let export = |adapter: &Adapter, to: &str| -> weblora::Result<Exported> {
        let exporter = EXPORTERS.iter().find(|exporter| exporter.name == to).unwrap();
        let request = Request { name: "routed", adapter: adapter.subject(), model: Some(&file), format: None };
        block((exporter.run)(&request, &mut Nowhere))
    };
    for exporter in EXPORTERS {
        let made = export(&routed, exporter.name);
        match exporter.name.starts_with("mixlora") {
            true => assert!(made.unwrap().files.len() == 3, "{}", exporter.name),
            false => says(made.unwrap_err().to_string()),
        }
    }
    let plain = golden("peft_multilora");
    let plain = Adapter::read(Folder::of("plain", &plain).unwrap(), None).unwrap();
    let text = export(&plain, "mixlora").unwrap_err().to_string();
    assert!(text.contains("plain LoRA") && text.contains("--to peft"), "{text}");
}

#[test]
fn notes_are_read_and_bases_compared() {
    let mut adapter = read("safetensors", &golden("mixlora/safetensors")).unwrap();
    let config = json!({"method": "mixlora", "aux-coef": 0.25, "balance": "per-layer", "out": "/data/me/run"}).as_object().unwrap().clone();
    adapter.note = Some(Note { weblora: "0.1.0".into(), base_hash: "cd".into(), steps: 7, config, ..Note::default() });
    let files = owned(&adapter.to_files("x", Container::Pickle).unwrap());
    let again = read("x", &files).unwrap();
    assert_eq!((again.routing.aux_coef, again.note.as_ref().unwrap().steps), (0.25, 7));
    assert_eq!(again.note.as_ref().unwrap().config["out"], "run", "no path of this machine");
    let folder = Folder::of("x", &files).unwrap();
    let (_, warning) = open_adapter(folder, &model(), &base(), false).unwrap();
    assert!(warning.unwrap().contains("hash cd"));
    assert!(open_adapter(folder, &model(), &base(), true).is_err());
}

#[test]
fn the_program_shows_and_converts_them_and_merges_none() {
    let model = program::golden("tiny_llama/model.gguf");
    for name in ["mixlora/bin", "mixlora/legacy", "mixlora/safetensors"] {
        let words = succeeds(&["inspect", &program::golden(name)]);
        for expected in
            ["MixLoRA (mixlora), 3 LoRA experts in each of 2 blocks", "rank 1, alpha 3; attention: rank 2, alpha 4", "tiny_llama"]
        {
            assert!(words.contains(expected), "{name}: {words}");
        }
    }
    let out = succeeds(&["inspect", &model, "--adapter", &program::golden("mixlora/bin"), "--json"]);
    let event: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&event["fits"], &event["experts"], &event["top_k"]), (&true.into(), &3.into(), &2.into()));
    let parts = &event["parameters_by_part"];
    assert_eq!((&parts["attention"], &parts["experts"], &parts["routers"]), (&384.into(), &1536.into(), &192.into()));
    program::fails(&["inspect", &program::golden("odd_llama"), "--adapter", &program::golden("mixlora/bin")], &["mixlora/bin"]);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let bin = path("with-bin");
    succeeds(&["export", "--adapter", &program::golden("mixlora/safetensors"), "--to", "mixlora-bin", "--out", &bin]);
    assert!(folder.path().join("with-bin/adapter_model.bin").is_file());
    succeeds(&["export", "--adapter", &bin, "--model", &model, "--to", "mixlora", "--out", &path("back")]);
    let files = |name: &str| std::fs::read(folder.path().join("back").join(name)).unwrap();
    let back = [("adapter_config.json", files("adapter_config.json")), ("adapter_model.safetensors", files("adapter_model.safetensors"))];
    let back: Vec<(String, Vec<u8>)> = back.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    assert_eq!(tensors(&read("back", &back).unwrap()), tensors(&read("there", &golden("mixlora/safetensors")).unwrap()));
    for to in ["peft", "gguf", "merged-gguf", "merged-safetensors"] {
        let arguments = ["export", "--adapter", &bin, "--model", &model, "--to", to, "--out", &path("no")];
        program::fails(&arguments, &["routers choose experts for every token"]);
        assert!(!folder.path().join("no").exists(), "{to} leaves something");
    }
    let merge = ["merge", &bin, &program::golden("peft_multilora"), "--out", &path("no")];
    program::fails(&merge, &["routers choose experts for every token"]);
    program::fails(&["analyze", &bin, "--links"], &["routers choose experts for every token"]);
}

/// Experts are looked into one by one; how much they were used is in a run's events.
#[test]
fn the_program_looks_into_experts() {
    let adapter = program::golden("mixlora/safetensors");
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let words = succeeds(&["analyze", &adapter, "--svg", &path("pictures")]);
    for expected in ["3 experts in a block", "layer    0 experts' ‖ΔW‖", "‖router row‖"] {
        assert!(words.contains(expected), "{words}");
    }
    let picture = std::fs::read_to_string(folder.path().join("pictures/safetensors-experts.svg")).unwrap();
    assert!(picture.contains("‖row of the router‖") && !picture.contains("share of tokens"), "{picture}");
    let line = |load: &str| {
        format!(r#"{{"event":"step","job":"a","router":{{"grad_norm":0.1,"layers":[0,1],"load":{load},"entropy":[1.0,0.5]}}}}"#)
    };
    std::fs::write(path("run.jsonl"), line("[[1,0.5,0.5],[0,1,1]]")).unwrap();
    let out = succeeds(&["analyze", &adapter, "--events", &path("run.jsonl"), "--svg", &path("more"), "--json"]);
    let event: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    let blocks = event["experts"]["blocks"].as_array().unwrap();
    assert_eq!((&blocks[1]["load"], &blocks[1]["entropy"]), (&serde_json::json!([0.0, 1.0, 1.0]), &0.5.into()));
    // What a block's experts change, from the sites one by one.
    let own = read("there", &golden("mixlora/safetensors")).unwrap();
    let of =
        |set: &weblora::export::mixlora::ExpertSet| weblora::analysis::spectrum(&set.experts[2].factors(own.rslora).unwrap()).frobenius;
    let norm = own.experts.iter().filter(|set| set.site.layer == 1).map(|set| of(set).powi(2)).sum::<f64>().sqrt();
    assert!((blocks[1]["frobenius"][2].as_f64().unwrap() - norm).abs() < 1e-12 * norm && norm > 0.0);
    let names: Vec<&str> = event["sites"].as_array().unwrap().iter().map(|site| site["site"].as_str().unwrap()).collect();
    assert!(names.contains(&"layers.1.mlp.experts.2.down_proj") && names.contains(&"layers.0.self_attn.q_proj"), "{names:?}");
    assert!(std::fs::read_to_string(folder.path().join("more/safetensors-experts.svg")).unwrap().contains("share of tokens"));
    // Of another run, and of an adapter without experts.
    std::fs::write(path("other.jsonl"), line("[[1,1],[0,2]]")).unwrap();
    program::fails(&["analyze", &adapter, "--events", &path("other.jsonl")], &["3 experts", "the run 2"]);
    program::fails(&["analyze", &program::golden("peft_multilora"), "--events", &path("run.jsonl")], &["has no experts"]);
}

/// Settings of every run that goes on read as settings: no key of another method.
#[test]
fn settings_are_those_of_the_method() {
    for name in ["mixlora/safetensors", "mixlora/switch"] {
        let settings = read(name, &golden(name)).unwrap().settings();
        AdapterConfig::read(&mut Settings::new(&settings)).unwrap().layout(&model()).unwrap();
    }
}
