//! Adapters handed out: as GGUF, read back and scored; with a card and without paths; what cannot be taken is named.

use std::path::Path;

use serde_json::{Value, json};
use weblora::adapters::Site;
use weblora::export::chain::Chain;
use weblora::export::exporters::{self, Made};
use weblora::export::folder::Folder;
use weblora::export::gguf_lora;
use weblora::export::peft::{Note, PeftAdapter, PeftSite};
use weblora::export::request::{Exported, Request, Sink};
use weblora::export::same::check_same;
use weblora::formats::{Bytes, ModelFile};
use weblora::gpu::Tuner;
use weblora::quant;
use weblora::rng::fill_uniform;
use weblora::text::Example;
use weblora::train::TrainConfig;
use weblora::train::proof::{Noise, Proof, Written, prove};
use weblora::train::trainer::{TrainData, TrainPlan};

use crate::common::program::{fails, golden, succeeds, text, weblora};

const GOLDEN: &[u8] = include_bytes!("../golden/gguf_lora.gguf");

/// One file in memory.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Sink for Memory {
    fn begin(&mut self, _: &str, bytes: u64) -> weblora::Result<()> {
        self.0.reserve(bytes as usize);
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> weblora::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> weblora::Result<()> {
        Ok(())
    }
}

fn open(path: &str) -> ModelFile {
    pollster::block_on(ModelFile::open_path(Path::new(path))).unwrap()
}

fn tiny() -> ModelFile {
    open(&golden("tiny_llama/model.gguf"))
}

fn demo_path() -> String {
    format!("{}/assets/demo/demo.gguf", env!("CARGO_MANIFEST_DIR"))
}

fn patterns(model: &ModelFile) -> PeftAdapter {
    let read = |name: &str| std::fs::read(golden(&format!("peft_patterns/{name}"))).unwrap();
    let (config, weights, note) = (read("adapter_config.json"), read("adapter_model.safetensors"), read("weblora.json"));
    PeftAdapter::read(Folder { name: "test", config: &config, weights: &weights, note: Some(&note), chain: None }, &model.config).unwrap()
}

/// An adapter of random factors at every site.
fn random(key: &str, model: &ModelFile, rank: usize, alpha: f64, size: f64) -> PeftAdapter {
    let site = |site: Site| {
        let (out, inputs) = site.projection.shape(&model.config);
        let fill = |which: &str, n: usize, bound: f64| fill_uniform(&format!("{key}/{site}.{which}"), n, bound);
        PeftSite { site, rank, alpha, a: fill("a", rank * inputs, 0.1), b: fill("b", out * rank, size) }
    };
    let (sites, blocks) = (Site::all(&model.config).map(site).collect(), model.config.num_hidden_layers);
    PeftAdapter {
        sites,
        norms: Vec::new(),
        embeddings: None,
        rslora: false,
        blocks,
        dropout: 0.0,
        base_name: Some("demo.gguf".into()),
        note: None,
    }
}

fn export(to: &str, adapter: &PeftAdapter, model: &ModelFile, format: Option<&str>) -> weblora::Result<(Vec<u8>, Exported)> {
    let request =
        Request { name: "test", adapter: adapter.into(), model: Some(model), format: format.map(|name| quant::by_name(name).unwrap()) };
    let mut memory = Memory::default();
    let done = pollster::block_on((exporters::by_name(to)?.run)(&request, &mut memory))?;
    Ok((memory.0, done))
}

fn read_back(bytes: &[u8], model: &ModelFile) -> weblora::Result<PeftAdapter> {
    pollster::block_on(gguf_lora::read(Box::new(Bytes::new("adapter.gguf", bytes)), &model.config))
}

#[test]
fn the_gguf_of_an_adapter_is_the_one_that_gguf_py_writes() {
    let model = tiny();
    let adapter = patterns(&model);
    let (bytes, done) = export("gguf", &adapter, &model, None).unwrap();
    assert!(bytes == GOLDEN, "{} bytes, gguf-py writes {}", bytes.len(), GOLDEN.len());
    assert_eq!((done.bytes, &done.files[..]), (bytes.len() as u64, &["adapter.gguf".to_owned()][..]));
    // rsLoRA, ranks and alphas by pattern, moved rows: all of it comes back.
    let read = read_back(&bytes, &model).unwrap();
    assert!(adapter.distance(&read) < 1e-6, "{}", adapter.distance(&read));
    let note = read.note.unwrap();
    assert_eq!((read.base_name.as_deref(), note.base_hash.as_str(), note.steps, read.rslora), (Some("tiny_llama"), "ab", 3, false));
}

#[test]
fn sixteen_bits_are_near_and_mistakes_are_far() {
    let model = tiny();
    let adapter = patterns(&model);
    for (format, allowed) in [("f16", 1e-3), ("bf16", 8e-3)] {
        let read = read_back(&export("gguf", &adapter, &model, Some(format)).unwrap().0, &model).unwrap();
        let distance = adapter.distance(&read);
        assert!(distance > 1e-6 && distance < allowed, "{format}: {distance}");
    }
    let request = Request { name: "test", adapter: (&adapter).into(), model: Some(&model), format: None };
    let refused = |change: &dyn Fn(&mut PeftAdapter)| {
        let mut wrong = adapter.clone();
        change(&mut wrong);
        assert!(check_same(&request, &wrong).unwrap_err().to_string().contains("other numbers"));
    };
    // Two rows of q changed places; another scale; one value; a site gone.
    refused(&|wrong| wrong.sites[0].b.rotate_right(5));
    refused(&|wrong| wrong.sites[0].alpha *= 2.0);
    refused(&|wrong| wrong.sites[1].a[3] += 0.01);
    refused(&|wrong| drop(wrong.sites.pop()));
    for (to, format, word) in [("gguf", "q8_0", "f32, f16 or bf16"), ("gguf", "nf4", "f32, f16 or bf16")] {
        let error = export(to, &adapter, &model, Some(format)).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    let other = open(&golden("odd_llama"));
    assert!(export("gguf", &adapter, &other, None).unwrap_err().to_string().contains("layers.0.self_attn.q_proj"));
    assert!(read_back(&std::fs::read(golden("tiny_llama/model.gguf")).unwrap(), &model).unwrap_err().to_string().contains("general.type"));
}

#[test]
fn a_chain_becomes_one_gguf_adapter() {
    let model = tiny();
    let mut chain = Chain::of_one(random("first", &model, 3, 6.0, 0.2));
    chain.extend("second", Chain::of_one(random("second", &model, 2, 1.0, 0.2))).unwrap();
    let sum = chain.merged();
    let read = read_back(&export("gguf", &sum, &model, None).unwrap().0, &model).unwrap();
    assert!(sum.distance(&read) < 1e-6 && read.sites.iter().all(|site| site.rank == 5));
}

/// What the retention figure predicts is what scoring finds, for every format; wrong exports are far outside.
#[test]
fn an_export_is_scored_against_the_adapter() {
    let Some(gpu) = crate::common::gpu() else { return };
    let base = open(&demo_path());
    let adapter = random("proof", &base, 4, 8.0, 0.05);
    let mut tuner = Tuner::for_device(gpu);
    let mut prove =
        |written: Written<'_>, noise| pollster::block_on(prove(gpu, &base, &adapter, None, written, noise, &mut tuner, |_, _| {})).unwrap();
    let none = Noise::of(Made::PeftFolder, 0.0, &Exported::default());
    let same = prove(Written::Adapter(&adapter), none);
    assert!(same.difference == 0.0 && same.effect > 0.05 && same.check("x").unwrap().is_none(), "{same:?}");
    // Base alone, twice the scale, rows of one head of k turned: none of them passes.
    let mut wrongs = vec![adapter.clone(), adapter.clone(), adapter.clone()];
    wrongs[0].sites.iter_mut().for_each(|site| site.b.fill(0.0));
    wrongs[1].sites.iter_mut().for_each(|site| site.alpha *= 2.0);
    let k = &mut wrongs[2].sites[1];
    k.b.rotate_right(2 * k.rank);
    for wrong in &wrongs {
        let found = prove(Written::Adapter(wrong), none);
        assert!(found.check("x").unwrap_err().to_string().contains("not the same"), "{found:?}");
    }
    for format in [Some("f32"), Some("f16"), Some("bf16"), Some("q8_0"), Some("q5_1"), Some("q4_0"), None] {
        let (bytes, done) = export("merged-gguf", &adapter, &base, format).unwrap();
        let merged = pollster::block_on(ModelFile::open_gguf(vec![Box::new(Bytes::new("merged", bytes))])).unwrap();
        let found = prove(Written::Model(&merged), Noise::of(Made::ModelFile, 0.0, &done));
        println!("{format:?}: {found:?}");
        found.check("x").unwrap();
        // By some margin (bf16 is the nearest, at 0.62 of it); and what has room for the adapter tells it from the base alone.
        assert!(found.difference < found.tolerance / 1.5, "{format:?}: {found:?}");
        if format.is_some_and(|name| !name.starts_with("q4") && !name.starts_with("q5")) {
            assert!(found.effect > 2.0 * found.tolerance, "{format:?}: {found:?}");
        }
    }
}

#[test]
fn scores_that_differ_or_do_nothing_are_refused() {
    let noise = Noise::of(Made::PeftFolder, 0.0, &Exported::default());
    let (base, live) = ([2.0, 3.0, 4.0], [1.0, 2.5, 4.0]);
    assert!(Proof::of(&base, None, &live, &live, noise).check("x").unwrap().is_none());
    let error = Proof::of(&base, None, &base, &base, noise).check("x").unwrap_err().to_string();
    assert!(error.contains("no effect") && error.contains("loss 3.0000 with the base"), "{error}");
    for written in [[2.0, 3.0, 4.0], [1.0, 2.5, f32::NAN], [1.0, 2.5, 4.001]] {
        let error = Proof::of(&base, None, &live, &written, noise).check("x").unwrap_err().to_string();
        assert!(error.contains("not the same") && error.contains("2.5000 with the adapter"), "{error}");
    }
}

/// Writes an adapter folder.
fn save(folder: &Path, adapter: &PeftAdapter) -> String {
    std::fs::create_dir(folder).unwrap();
    for (file, bytes) in adapter.to_files("test").unwrap() {
        std::fs::write(folder.join(file), bytes).unwrap();
    }
    folder.display().to_string()
}

fn note(hash: &str, config: Value) -> Option<Note> {
    let config = config.as_object().cloned().unwrap_or_default();
    Some(Note { weblora: "0".into(), base_hash: hash.into(), base_format: "q4_1".into(), steps: 7, rows: Some(12), angles: None, config })
}

#[test]
fn export_prints_three_losses_and_leaves_nothing_that_failed() {
    if crate::common::gpu().is_none() {
        return;
    }
    let (base, folder) = (open(&demo_path()), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let adapter = save(&folder.path().join("adapter"), &random("cli", &base, 4, 8.0, 0.05));
    let model = demo_path();
    let export = |to: &str, out: &str, more: &[&str]| {
        let arguments = [&["export", "--adapter", &adapter, "--model", &model, "--to", to, "--out", out, "--no-tune"], more].concat();
        succeeds(&arguments)
    };
    let words = export("gguf", &path("a.gguf"), &[]);
    assert!(words.contains("with the base") && words.contains("with the adapter") && words.contains("1 file"), "{words}");
    let event: Value = serde_json::from_str(&export("peft", &path("again"), &["--json"])).unwrap();
    let [base_loss, with, written] = ["base", "adapter", "written"].map(|key| event["proof"][key].as_f64().unwrap());
    assert!((base_loss - with).abs() > 1e-3 && with == written, "{event}");
    let event: Value = serde_json::from_str(&export("merged-safetensors", &path("merged"), &["--json"])).unwrap();
    assert!((event["proof"]["adapter"].as_f64().unwrap() - event["proof"]["written"].as_f64().unwrap()).abs() < 1e-2, "{event}");
    assert!(export("merged-gguf", &path("m.gguf"), &["--format", "f16"]).contains("with what was written"));
    assert!(!export("peft", &path("unchecked"), &["--no-check"]).contains("with the base"));
    // Numbers below f16's range lose digits, which is told, and is no mistake of the writer.
    let small = save(&folder.path().join("small"), &random("small", &base, 4, 8.0, 1e-6));
    let tried = |to: &str, out: &str, more: &[&str]| {
        let arguments = ["export", "--adapter", &small, "--model", &model, "--to", to, "--out", out, "--no-tune"];
        let output = weblora(&[&arguments[..], more].concat());
        (output.status.success(), text(&output.stderr))
    };
    let (done, said) = tried("gguf", &path("s.gguf"), &["--format", "f16"]);
    assert!(done && said.contains("below its range; export with --format f32"), "{said}");
    // Changes below the steps of the base's own four bits are gone.
    let (done, said) = tried("merged-gguf", &path("gone.gguf"), &[]);
    assert!(!done && said.contains("no effect in this format") && said.contains("--no-check"), "{said}");
    // All of the adapter is scored, also what the format has no place for.
    let mut normed = random("normed", &base, 2, 4.0, 0.05);
    normed.norms = vec![vec![2.0; base.config.hidden_size]; 2 * base.config.num_hidden_layers + 1];
    let normed = save(&folder.path().join("normed"), &normed);
    let both = ["gguf", "peft"].map(|to| {
        let out = path(&format!("normed.{to}"));
        let words = succeeds(&["export", "--adapter", &normed, "--model", &model, "--to", to, "--out", &out, "--no-tune", "--json"]);
        let events = words.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event a line"));
        events.rev().find(|event| event["event"] == "export").expect("it is exported")["proof"].clone()
    });
    let of = |i: usize, key: &str| both[i][key].as_f64();
    assert_eq!((of(0, "adapter"), of(1, "part")), (of(1, "adapter"), None), "{both:?}");
    assert!(of(0, "part") == of(0, "written") && of(0, "part") != of(0, "adapter"), "{both:?}");
    // An adapter that does nothing is refused loudly, and nothing is left.
    let mut zero = random("zero", &base, 2, 4.0, 0.0);
    zero.note = note("00", json!({}));
    let zero = save(&folder.path().join("zero"), &zero);
    fails(&["export", "--adapter", &zero, "--to", "peft", "--out", &path("none")], &["B is all zero", "after 7 steps", "--no-check"]);
    assert!(!Path::new(&path("none")).exists());
    let output = weblora(&["export", "--adapter", &zero, "--to", "peft", "--out", &path("kept"), "--no-check"]);
    assert!(output.status.success() && text(&output.stderr).contains("B is all zero"), "{}", text(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.ends_with(".tmp")), "{left:?}");
}

#[test]
fn an_adapter_of_another_file_of_the_base_is_used_with_a_warning() {
    if crate::common::gpu().is_none() {
        return;
    }
    let (base, folder) = (open(&demo_path()), tempfile::tempdir().unwrap());
    let adapter =
        PeftAdapter { note: note("0123", json!({})), base_name: Some("demo-q4.gguf".into()), ..random("other", &base, 2, 4.0, 0.05) };
    let adapter = save(&folder.path().join("adapter"), &adapter);
    let rows = folder.path().join("rows.jsonl");
    std::fs::write(&rows, "{\"prompt\": \"a\", \"completion\": \"b\"}\n").unwrap();
    let (model, rows, out) = (demo_path(), rows.display().to_string(), folder.path().join("out").display().to_string());
    let verbs: [&[&str]; 4] = [
        &["generate", "--model", &model, "--adapter", &adapter, "--prompt", "Tom has", "--raw", "--max-tokens", "12", "--no-tune"],
        &["eval", "--model", &model, "--adapter", &adapter, "--data", &rows, "--seq", "32", "--no-tune"],
        &["export", "--model", &model, "--adapter", &adapter, "--to", "gguf", "--out", &out, "--no-tune"],
        &[
            "train",
            "--model",
            &model,
            "--init-adapter",
            &adapter,
            "--data",
            &rows,
            "--seq",
            "32",
            "--steps",
            "1",
            "--out",
            &out,
            "--overwrite",
            "--no-tune",
        ],
    ];
    for verb in verbs {
        let output = weblora(verb);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{verb:?}: {said}");
        for word in ["demo-q4.gguf (q4_1, hash 0123)", "demo.gguf (", "--strict-base"] {
            assert!(said.contains(word), "{verb:?}: {said} without {word}");
        }
        if verb[0] == "export" {
            std::fs::remove_file(&out).unwrap();
        }
        fails(&[verb, &["--strict-base"]].concat(), &["demo-q4.gguf (q4_1, hash 0123)", "demo.gguf ("]);
    }
    // Other shapes stay refused, with the flag or without.
    fails(&["inspect", &golden("odd_llama"), "--adapter", &adapter], &["layers"]);
}

#[test]
fn what_other_adapters_hold_is_said() {
    let (base, folder) = (tiny(), tempfile::tempdir().unwrap());
    let adapter = random("foreign", &base, 2, 4.0, 0.05);
    let path = folder.path().join("adapter");
    let name = save(&path, &adapter);
    let weights = path.join("adapter_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let with = |extra: &[&str]| {
        let own = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let zeros = [0u8; 16];
        let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 2], &zeros).unwrap();
        let all = own.tensors().into_iter().chain(extra.iter().map(|key| (format!("base_model.model.{key}"), view())));
        std::fs::write(&weights, safetensors::serialize(all, None).unwrap()).unwrap();
    };
    let model = golden("tiny_llama/model.gguf");
    for (keys, words) in [
        (
            &["model.embed_tokens.weight", "lm_head.weight"][..],
            &["a trained token embedding", "a trained output head", "not supported"][..],
        ),
        (&["lm_head.lora_A.weight", "lm_head.lora_B.weight"], &["a LoRA of the output head (lm_head)", "not supported"]),
        (&["model.embed_tokens.lora_embedding_A", "model.embed_tokens.lora_embedding_B"], &["a LoRA of the token embedding"]),
        (&["model.layers.0.input_layernorm.weight"], &["1 trained norms"]),
        (&["model.layers.0.self_attn.q_proj.lora_magnitude_vector"], &["DoRA"]),
        (&["model.layers.0.self_attn.q_proj.lora_B.bias"], &["biases"]),
    ] {
        with(keys);
        fails(&["inspect", &model, "--adapter", &name], words);
        fails(&["inspect", &name], words);
    }
    with(&["model.layers.0.something.else"]);
    fails(&["inspect", &name], &["something.else", "no lora_A or lora_B"]);
}

#[test]
fn an_adapter_folder_is_shown_alone() {
    let (base, folder) = (tiny(), tempfile::tempdir().unwrap());
    let adapter = PeftAdapter { note: note("0123", json!({"method": "cola", "lr": 0.5})), ..random("shown", &base, 2, 4.0, 0.05) };
    let name = save(&folder.path().join("adapter"), &adapter);
    let words = succeeds(&["inspect", &name]);
    for expected in ["LoRA, rank 2, alpha 4, 14 layers", "base demo.gguf (q4_1, hash 0123)", "7 steps on 12 rows, method cola", "q_proj"] {
        assert!(words.contains(expected), "{words} without {expected}");
    }
    let event: Value = serde_json::from_str(&succeeds(&["inspect", &name, "--json"])).unwrap();
    assert_eq!(
        (&event["base_hash"], &event["steps"], &event["rows"], &event["zero"]),
        (&"0123".into(), &7.into(), &12.into(), &false.into())
    );
    let chain = folder.path().join("chain").display().to_string();
    succeeds(&["merge", &name, &name, "--out", &chain]);
    let words = succeeds(&["inspect", &chain]);
    assert!(words.contains("rank 4") && words.contains("link 1: rank 2, alpha 4, 7 steps"), "{words}");
}

#[test]
fn what_is_handed_out_has_names_and_no_paths() {
    let secret = "/secret/place";
    let config = json!({
        "model": format!("{secret}/base.gguf"), "data": [format!("{secret}/rows.jsonl"), "C:\\secret\\more.jsonl"], "out": format!("{secret}/out"),
        "init-adapter": "../secret/first", "lr": 5e-4, "method": "lora",
    });
    let base = tiny();
    let adapter =
        PeftAdapter { note: note("0123", config), base_name: Some(format!("{secret}/base.gguf")), ..random("handed", &base, 2, 4.0, 0.05) };
    let mut files: Vec<(String, Vec<u8>)> =
        adapter.to_files("x").unwrap().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    files.push(("adapter.gguf".into(), export("gguf", &adapter, &base, None).unwrap().0));
    for (name, bytes) in &files {
        assert!(!String::from_utf8_lossy(bytes).contains("secret"), "{name}");
    }
    let file = |name: &str| String::from_utf8(files.iter().find(|(n, _)| n == name).unwrap().1.clone()).unwrap();
    let note: Value = serde_json::from_str(&file("weblora.json")).unwrap();
    assert_eq!(
        note["config"],
        json!({"model": "base.gguf", "data": ["rows.jsonl", "more.jsonl"], "out": "out", "init-adapter": "first", "lr": 5e-4, "method": "lora"})
    );
    assert!(file("adapter_config.json").contains("\"base_model_name_or_path\": \"base.gguf\""));
    let card = file("README.md");
    for expected in [
        "base_model: \"base.gguf\"",
        "library_name: peft",
        "base.gguf (q4_1, hash 0123)",
        "| Method | lora |",
        "| Rank | 2, alpha 4 |",
        "7 steps on 12 rows",
        "PeftModel.from_pretrained",
        "llama-cli -m base.gguf --lora adapter.gguf",
        "ADAPTER ./adapter.gguf",
    ] {
        assert!(card.contains(expected), "{card} without {expected}");
    }
    // A name cannot break out of the card or its front matter.
    let hostile = PeftAdapter { base_name: Some("a\"\n---\n`rm -rf ~`|$(x) \u{1b}[31m.gguf".into()), ..adapter };
    let files = hostile.to_files("x").unwrap();
    let card = String::from_utf8(files.iter().find(|(name, _)| *name == "README.md").unwrap().1.clone()).unwrap();
    assert!(
        card.matches("---\n").count() == 2 && !card.contains('\u{1b}') && !card.contains("`rm") && card.contains("-m model.gguf --lora"),
        "{card}"
    );
}

#[test]
fn names_in_files_do_not_steer_the_terminal() {
    let (base, folder) = (tiny(), tempfile::tempdir().unwrap());
    let adapter = PeftAdapter { note: note("01\u{1b}[2J23", json!({"method": "a\u{9b}31mb"})), ..random("steer", &base, 2, 4.0, 0.05) };
    let name = save(&folder.path().join("bad\u{1b}]0;x\u{7}name"), &adapter);
    for arguments in [
        &["inspect", &name][..],
        &["inspect", &name, "--json"],
        &["merge", &name, "--list"],
        &["inspect", &golden("odd_llama"), "--adapter", &name],
    ] {
        let output = weblora(arguments);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(!said.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{said:?}");
        assert!(said.contains("x\\u{7}name") || said.contains("x\\u0007name"), "{said:?}");
    }
}

#[test]
fn tokens_past_the_vocabulary_are_found_in_the_plan() {
    let base = tiny();
    let config = TrainConfig::from_map(json!({"seq": 16, "batch": 1}).as_object().unwrap()).unwrap();
    let row = |last: u32| Example { tokens: vec![1, last], targets: vec![false, true], row: 1, rejected: None };
    let plan =
        |data: &TrainData| TrainPlan::new(&base, &config, Some(data), weblora::gpu::device::PlanLimits::FLOOR, &Tuner::none()).map(|_| ());
    plan(&TrainData { train: vec![row(96)], ..TrainData::default() }).unwrap();
    for data in [
        TrainData { train: vec![row(97)], ..TrainData::default() },
        TrainData { train: vec![row(2)], held_out: vec![row(97)], ..TrainData::default() },
    ] {
        assert!(plan(&data).unwrap_err().to_string().contains("token 97 is past the model's vocabulary of 97"));
    }
}

#[test]
fn a_tokenizer_beside_a_gguf_serves_every_verb() {
    if crate::common::gpu().is_none() {
        return;
    }
    let (folder, whole) = (tempfile::tempdir().unwrap(), demo_path());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let adapter = save(&folder.path().join("adapter"), &random("beside", &open(&whole), 2, 4.0, 0.05));
    let merged = |model: &str, out: &str, more: &[&str]| {
        let arguments = ["export", "--adapter", &adapter, "--model", model, "--to", "merged-safetensors", "--out", out, "--no-check"];
        succeeds(&[&arguments[..], more].concat())
    };
    merged(&whole, &path("merged"), &[]);
    let tokenizer = path("merged/tokenizer.json");
    // The same model without the merges that its tokenizer needs.
    let mut bytes = std::fs::read(&whole).unwrap();
    let key = b"tokenizer.ggml.merges";
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
    bytes[at + key.len() - 1] = b'z';
    let broken = path("broken.gguf");
    std::fs::write(&broken, bytes).unwrap();
    std::fs::write(path("text.txt"), "Anna has a black lamp.").unwrap();
    std::fs::write(path("rows.jsonl"), "{\"prompt\": \"Anna has\", \"completion\": \" a lamp.\"}\n").unwrap();
    let (file, rows) = (path("text.txt"), path("rows.jsonl"));
    let asks: [&[&str]; 4] = [
        &["generate", "--raw", "--prompt", "Anna has", "--max-tokens", "6", "--no-tune", "--model"],
        &["eval", "--text", &file, "--no-tune", "--model"],
        &["eval", "--data", &rows, "--no-tune", "--model"],
        &["inspect", "--data", &rows],
    ];
    for ask in asks {
        fails(&[ask, &[&broken]].concat(), &["merges", "--tokenizer"]);
        assert_eq!(succeeds(&[ask, &[&broken, "--tokenizer", &tokenizer]].concat()), succeeds(&[ask, &[&whole]].concat()), "{ask:?}");
    }
    let out = path("trained");
    let train = ["train", "--model", &broken, "--data", &rows, "--out", &out, "--steps", "1", "--seq", "64", "--no-tune"];
    fails(&train, &["merges", "--tokenizer"]);
    succeeds(&[&train[..], &["--tokenizer", &tokenizer]].concat());
    assert!(Path::new(&out).join("adapter_config.json").is_file());
    merged(&broken, &path("again"), &["--tokenizer", &tokenizer]);
    let read = |name: &str| serde_json::from_slice::<Value>(&std::fs::read(path(name)).unwrap()).unwrap();
    assert_eq!(read("again/tokenizer.json"), read("merged/tokenizer.json"));
    let [a, b] = ["merged", "again"].map(|model| succeeds(&[asks[0], &[&path(model)]].concat()));
    assert_eq!(a, b, "the merged model answers alike");
}
