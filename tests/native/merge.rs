//! Chains, sums, smaller ranks and merged models: the library against dense matrices, the program from outside.

use std::path::Path;

use serde_json::Value;
use weblora::adapters::{AdapterConfig, AdapterLayout, Projection, Site};
use weblora::analysis::decompose;
use weblora::export::exporters;
use weblora::export::folder::Folder;
use weblora::export::peft::{Note, PeftAdapter, PeftSite};
use weblora::export::rank_sum::{Weighted, rank_sum};
use weblora::export::recompress::{Cut, recompress};
use weblora::export::request::{Exported, Request, Sink};
use weblora::formats::{ByteSource, Bytes, ModelFile, SideFiles};
use weblora::generate::Generator;
use weblora::gpu::Tuner;
use weblora::quant::{self, QuantFormat};
use weblora::rng::fill_uniform;
use weblora::settings::Settings;
use weblora::text::Tokenizer;

use crate::common::program::{fails, golden, succeeds};

const BASE: &str = "00000000000000000000000000000001";

/// An adapter of random factors for the tiny golden model: all projections of block 0, q and down of block 1.
fn adapter(key: &str, rank: usize, rslora: bool, model: &ModelFile) -> PeftAdapter {
    let wanted = |site: &Site| site.layer == 0 || [Projection::Q, Projection::Down].contains(&site.projection);
    let site = |site: Site| {
        let (out, inputs) = site.projection.shape(&model.config);
        let fill = |which: &str, n: usize, bound: f64| fill_uniform(&format!("{key}/{site}.{which}"), n, bound);
        PeftSite { site, rank, alpha: 3.0, a: fill("a", rank * inputs, 0.5), b: fill("b", out * rank, 0.25) }
    };
    let sites = Site::all(&model.config).filter(wanted).map(site).collect();
    PeftAdapter {
        sites,
        norms: Vec::new(),
        embeddings: None,
        rslora,
        blocks: model.config.num_hidden_layers,
        dropout: 0.0,
        base_name: None,
        note: None,
    }
}

fn gguf() -> ModelFile {
    pollster::block_on(ModelFile::open_path(Path::new(&golden("tiny_llama/model.gguf")))).unwrap()
}

/// Σ w · c · B A at a site, row-major, in f64.
fn dense(parts: &[(&PeftAdapter, f64)], site: Site) -> Vec<f64> {
    let mut sum = Vec::new();
    for (adapter, weight) in parts {
        let Some(s) = adapter.sites.iter().find(|s| s.site == site) else { continue };
        let (out, inputs) = (s.b.len() / s.rank, s.a.len() / s.rank);
        sum.resize(out * inputs, 0.0);
        let scale = weight * s.scale(adapter.rslora);
        for (i, x) in sum.iter_mut().enumerate() {
            let (o, k) = (i / inputs, i % inputs);
            *x += scale * (0..s.rank).map(|r| f64::from(s.b[o * s.rank + r]) * f64::from(s.a[r * inputs + k])).sum::<f64>();
        }
    }
    sum
}

/// Largest difference as a share of the largest value.
fn difference(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().fold(0.0f64, |l, x| l.max(x.abs()));
    got.iter().zip(want).fold(0.0f64, |worst, (g, w)| worst.max((g - w).abs())) / largest
}

#[test]
fn a_sum_of_adapters_is_the_sum_of_their_updates() {
    let model = gguf();
    let (first, second) = (adapter("one", 3, true, &model), adapter("two", 2, false, &model));
    let mut second = PeftAdapter { sites: second.sites.into_iter().filter(|s| s.site.projection != Projection::K).collect(), ..second };
    let note = |hash: &str| Some(Note { base_hash: hash.into(), steps: 7, ..Note::default() });
    second.note = note(BASE);
    let weighted = |name, adapter, weight| Weighted { name, adapter, weight };
    let parts = [weighted("first", &first, 1.0), weighted("second", &second, -0.5)];
    let sum = rank_sum(&parts).unwrap();
    for s in &sum.sites {
        let want = dense(&[(&first, 1.0), (&second, -0.5)], s.site);
        assert!(difference(&dense(&[(&sum, 1.0)], s.site), &want) < 1e-6, "{}", s.site);
        assert_eq!(s.rank, if s.site.projection == Projection::K { 3 } else { 5 });
        // The comparison sees a forgotten weight.
        if s.rank == 5 {
            assert!(difference(&dense(&[(&sum, 1.0)], s.site), &dense(&[(&first, 1.0), (&second, 0.5)], s.site)) > 1e-2);
        }
    }
    let made = sum.note.unwrap();
    assert_eq!((made.base_hash.as_str(), made.steps, made.config["merged-from"][1]["weight"].as_f64()), (BASE, 7, Some(-0.5)));
    // One adapter of weight 1 keeps its bits; ranks beyond a weight's size are cut without loss (k is 32 x 32).
    assert_eq!(rank_sum(&parts[..1]).unwrap().sites, first.sites);
    let wide = adapter("wide", 30, false, &model);
    let both = rank_sum(&[weighted("wide", &wide, 1.0), weighted("first", &first, 1.0)]).unwrap();
    let k = both.sites.iter().find(|s| s.site.projection == Projection::K).unwrap();
    assert_eq!(k.rank, 32);
    assert!(difference(&dense(&[(&both, 1.0)], k.site), &dense(&[(&wide, 1.0), (&first, 1.0)], k.site)) < 1e-5);
    // Two bases, a weight of nothing, nothing at all.
    let other = PeftAdapter { note: note("00000000000000000000000000000002"), ..first.clone() };
    let error = rank_sum(&[weighted("a", &second, 1.0), weighted("b", &other, 1.0)]).unwrap_err().to_string();
    assert!(error.contains("adapter b") && error.contains("one base"), "{error}");
    assert!(rank_sum(&[weighted("a", &first, 0.0)]).unwrap_err().to_string().contains("weights"));
    assert!(rank_sum(&[]).is_err());
}

#[test]
fn a_smaller_rank_drops_what_it_says() {
    let model = gguf();
    let whole = adapter("whole", 6, true, &model);
    for (rank, lossless) in [(6, true), (4, false), (1, false)] {
        let (cut, report) = recompress(&whole, Cut { max_rank: Some(rank), energy: None }).unwrap();
        let mut total = (0.0, 0.0);
        for (s, (before, told)) in cut.sites.iter().zip(whole.sites.iter().zip(&report.sites)) {
            let values = decompose(&[before.factors(true).unwrap()]).values;
            let squares = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
            let (want, got) = (dense(&[(&whole, 1.0)], s.site), dense(&[(&cut, 1.0)], s.site));
            let lost = want.iter().zip(&got).map(|(w, g)| (w - g) * (w - g)).sum::<f64>() / squares(&want);
            // The best possible by Eckart and Young, and the share that is reported, up to f32 factors.
            assert!((lost - squares(&values[rank..]) / squares(&values)).abs() < 1e-6, "{}: {lost}", s.site);
            assert!((told.dropped - lost).abs() < 1e-6 && (told.from, told.to) == (6, rank), "{told:?}");
            total = (total.0 + told.dropped * told.energy, total.1 + told.energy);
            assert_eq!(lossless, before.a == s.a);
        }
        assert!((report.dropped - total.0 / total.1).abs() < 1e-12 && (report.dropped == 0.0) == lossless);
    }
    // A rank-deficient product is exact at its true rank, here twice the same three rows.
    let mut twice = adapter("twice", 3, false, &model);
    for s in &mut twice.sites {
        s.a.extend_from_within(..);
        s.b = s.b.chunks(3).flat_map(|row| [row, row].concat()).collect();
        s.rank = 6;
    }
    let (cut, report) = recompress(&twice, Cut { max_rank: Some(3), energy: None }).unwrap();
    assert!(report.dropped < 1e-13, "{}", report.dropped);
    for s in &cut.sites {
        assert!(s.rank == 3 && difference(&dense(&[(&cut, 1.0)], s.site), &dense(&[(&twice, 1.0)], s.site)) < 1e-6);
    }
    // By energy: at least that share stays, and one rank less would keep less; an update of zero keeps one row.
    let (cut, report) = recompress(&whole, Cut { max_rank: None, energy: Some(0.8) }).unwrap();
    for (s, told) in cut.sites.iter().zip(&report.sites) {
        assert!(told.dropped <= 0.2 && s.rank < 6, "{told:?}");
        let (_, less) = recompress(&whole, Cut { max_rank: Some(s.rank - 1), energy: None }).unwrap();
        assert!(less.sites.iter().find(|l| l.site == told.site).unwrap().dropped > 0.2);
    }
    let mut zero = whole.clone();
    zero.sites.iter_mut().for_each(|s| s.b.fill(0.0));
    let (cut, report) = recompress(&zero, Cut { max_rank: None, energy: Some(0.5) }).unwrap();
    assert!(cut.sites.iter().all(|s| s.rank == 1 && s.b.iter().all(|x| *x == 0.0)) && report.dropped == 0.0);
    for (cut, word) in [(Some(0), None, "max-rank"), (None, Some(0.0), "energy"), (None, Some(1.5), "energy")]
        .map(|(max_rank, energy, word)| (Cut { max_rank, energy }, word))
    {
        assert!(recompress(&whole, cut).unwrap_err().to_string().contains(word));
    }
}

/// Files in memory.
#[derive(Default)]
struct Memory(Vec<(String, u64, Vec<u8>)>);

impl Sink for Memory {
    fn begin(&mut self, name: &str, bytes: u64) -> weblora::Result<()> {
        self.0.push((name.into(), bytes, Vec::new()));
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> weblora::Result<()> {
        self.0.last_mut().unwrap().2.extend_from_slice(bytes);
        Ok(())
    }
    fn end(&mut self) -> weblora::Result<()> {
        let (name, announced, bytes) = self.0.last().unwrap();
        assert_eq!(*announced, bytes.len() as u64, "{name}");
        Ok(())
    }
}

impl Memory {
    fn file(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(n, _, _)| n == name).map(|(_, _, bytes)| &bytes[..])
    }
}

fn export(to: &str, adapter: &PeftAdapter, model: &ModelFile, format: Option<&'static QuantFormat>) -> weblora::Result<(Memory, Exported)> {
    let mut memory = Memory::default();
    let request = Request { name: "test", adapter: adapter.into(), model: Some(model), format };
    let done = pollster::block_on((exporters::by_name(to)?.run)(&request, &mut memory))?;
    assert_eq!(done.bytes, memory.0.iter().map(|(_, bytes, _)| bytes).sum::<u64>());
    Ok((memory, done))
}

fn source(name: &str, bytes: &[u8]) -> Vec<Box<dyn ByteSource>> {
    vec![Box::new(Bytes::new(name, bytes))]
}

fn f32_of(model: &ModelFile, tensor: &str) -> Vec<f64> {
    pollster::block_on(model.read_f32(tensor)).unwrap().into_iter().map(f64::from).collect()
}

/// Every changed weight of `merged` is W + Δ within `tolerance` of its largest, every other one has the bytes of `model`.
fn check_merged(merged: &ModelFile, model: &ModelFile, adapter: &PeftAdapter, tolerance: f64, same_bytes: bool) {
    assert_eq!((merged.config.num_hidden_layers, merged.config.rope_theta), (model.config.num_hidden_layers, model.config.rope_theta));
    for t in model.tensors() {
        let site = t.name.strip_prefix("model.").and_then(|n| Site::parse(n.strip_suffix(".weight")?));
        let delta = site.map(|site| dense(&[(adapter, 1.0)], site)).unwrap_or_default();
        let (got, weights) = (f32_of(merged, &t.name), f32_of(model, &t.name));
        if delta.is_empty() {
            assert!(difference(&got, &weights) <= if same_bytes { 0.0 } else { tolerance }, "{}", t.name);
            continue;
        }
        let want: Vec<f64> = weights.iter().zip(&delta).map(|(w, d)| w + d).collect();
        let off = difference(&got, &want);
        assert!(off <= tolerance, "{}: {off}", t.name);
        assert!(difference(&weights, &want) > 4.0 * tolerance, "{}: the adapter is too small for this test", t.name);
    }
}

#[test]
fn a_merged_gguf_is_the_base_plus_the_update() {
    let model = gguf();
    let big = adapter("merge", 4, false, &model);
    // As it was (q4_1 and q8_0), and in formats of rising precision: half a step of each.
    for (format, tolerance) in [(None, 0.08), (Some("q8_0"), 5e-3), (Some("f16"), 5e-4), (Some("f32"), 1e-6)] {
        let (files, done) = export("merged-gguf", &big, &model, format.map(|name| quant::by_name(name).unwrap())).unwrap();
        let merged = pollster::block_on(ModelFile::open_gguf(source("merged", files.file("model.gguf").unwrap()))).unwrap();
        check_merged(&merged, &model, &big, tolerance, true);
        assert_eq!(done.tensors.len(), big.sites.len());
        for key in ["general.architecture", "llama.attention.head_count", "llama.context_length"] {
            assert_eq!(merged.metadata().get(key), model.metadata().get(key));
        }
        for t in &done.tensors {
            let own = model.tensor(&t.tensor).unwrap().format.name;
            assert_eq!(t.format, format.unwrap_or(own));
            assert!(t.retention > 0.8 && t.relative_size > 0.01, "{t:?}");
        }
    }
}

#[test]
fn a_merged_folder_is_the_base_plus_the_update() {
    let big_of = |model: &ModelFile| adapter("folder", 4, true, model);
    let hf = pollster::block_on(ModelFile::open_path(Path::new(&golden("tiny_llama/model.safetensors")))).unwrap();
    for (model, format, tolerance, same) in
        [(hf, None, 1e-6, true), (gguf(), None, 5e-4, false), (gguf(), Some("f32"), 1e-6, true), (gguf(), Some("bf16"), 4e-3, false)]
    {
        let big = big_of(&model);
        let (files, _) = export("merged-safetensors", &big, &model, format.map(|name| quant::by_name(name).unwrap())).unwrap();
        let config_json = String::from_utf8(files.file("config.json").unwrap().to_vec()).unwrap();
        let side = SideFiles { config_json: Some(config_json), ..SideFiles::default() };
        let weights = source("model.safetensors", files.file("model.safetensors").unwrap());
        let merged = pollster::block_on(ModelFile::open_safetensors(weights, None, side)).unwrap();
        check_merged(&merged, &model, &big, tolerance, same);
        let comparable = |m: &ModelFile| weblora::config::ModelConfig { model_type: String::new(), ..m.config.clone() };
        assert_eq!(comparable(&merged), comparable(&model));
    }
}

/// A file whose head is no copy of its embedding, although its configuration says so: what is written from it says what it holds.
#[test]
fn a_head_of_its_own_is_said_in_the_merged_configuration() {
    let read = |name: &str| std::fs::read(golden(&format!("tiny_llama/{name}"))).unwrap();
    let mut config: Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["tie_word_embeddings"] = true.into();
    let side = SideFiles { config_json: Some(config.to_string()), ..SideFiles::default() };
    let model =
        pollster::block_on(ModelFile::open_safetensors(source("model.safetensors", &read("model.safetensors")), None, side)).unwrap();
    assert!(!model.config.tie_word_embeddings, "the test needs a head of its own");
    let (files, _) = export("merged-safetensors", &adapter("head", 2, false, &model), &model, None).unwrap();
    let written: Value = serde_json::from_slice(files.file("config.json").unwrap()).unwrap();
    assert_eq!(written["tie_word_embeddings"], false);
}

/// The merged model answers as base and adapter do, in both containers: rows of q and k are where they belong, scales are right.
#[test]
fn a_merged_model_gives_the_logits_of_base_and_adapter() {
    let Some(gpu) = crate::common::gpu() else { return };
    let base = pollster::block_on(weblora::demo::model()).unwrap();
    let all = |key: &str| {
        let site = |site: Site| {
            let (out, inputs) = site.projection.shape(&base.config);
            let fill = |which: &str, n: usize, bound: f64| fill_uniform(&format!("{key}/{site}.{which}"), n, bound);
            PeftSite { site, rank: 4, alpha: 8.0, a: fill("a", 4 * inputs, 0.1), b: fill("b", out * 4, 0.05) }
        };
        let (sites, blocks) = (Site::all(&base.config).map(site).collect(), base.config.num_hidden_layers);
        PeftAdapter { sites, norms: Vec::new(), embeddings: None, rslora: false, blocks, dropout: 0.0, base_name: None, note: None }
    };
    let adapter = all("logits");
    let prompt: Vec<u32> = (5..17).collect();
    let logits = |file: &ModelFile, adapters: &[(AdapterLayout, Vec<f32>)]| {
        let mut tuner = Tuner::for_device(gpu);
        let opened = Generator::open(gpu, file, adapters, None, 32, &mut tuner, false, |_, _| {});
        let mut generator = pollster::block_on(opened).unwrap();
        pollster::block_on(generator.logits(gpu, &prompt, adapters.first().map(|_| 0))).unwrap()
    };
    let layout = AdapterConfig::read(&mut Settings::new(&adapter.settings())).unwrap().layout(&base.config).unwrap();
    let values = adapter.to_buffer("test", &layout).unwrap();
    let (want, without) = (logits(&base, &[(layout, values)]), logits(&base, &[]));
    let (files, _) = export("merged-gguf", &adapter, &base, quant::by_name("f32")).unwrap();
    let gguf = pollster::block_on(ModelFile::open_gguf(source("merged", files.file("model.gguf").unwrap()))).unwrap();
    let (files, _) = export("merged-safetensors", &adapter, &base, quant::by_name("f32")).unwrap();
    let text = |name: &str| String::from_utf8(files.file(name).unwrap().to_vec()).ok();
    let side = SideFiles { config_json: text("config.json"), tokenizer_json: text("tokenizer.json"), ..SideFiles::default() };
    let weights = source("model.safetensors", files.file("model.safetensors").unwrap());
    let folder = pollster::block_on(ModelFile::open_safetensors(weights, None, side)).unwrap();
    for (name, merged) in [("GGUF", &gguf), ("safetensors", &folder)] {
        crate::common::assert_close(name, &logits(merged, &[]), &want, 1e-4, 1e-4);
    }
    assert!(crate::common::close(&without, &want, 1e-2, 1e-2).is_err(), "the adapter has no effect");
    // The tokenizer that was written reads text as the base's does.
    let (ours, theirs) = (Tokenizer::of_model(&base).unwrap(), Tokenizer::of_model(&folder).unwrap());
    for text in ["sum 12 and 7", " two  blanks\n", "é😀"] {
        assert_eq!(ours.encode(text, true).ok(), theirs.encode(text, true).ok(), "{text}");
    }
}

#[test]
fn what_cannot_be_exported_is_named() {
    let model = gguf();
    let small = adapter("small", 1, false, &model);
    let fails = |to: &str, adapter: &PeftAdapter, format: Option<&str>, word: &str| {
        let error = export(to, adapter, &model, format.map(|f| quant::by_name(f).unwrap())).err().map(|e| e.to_string());
        assert!(error.as_ref().is_some_and(|e| e.contains(word)), "{to} {format:?}: {error:?} without {word}");
    };
    fails("merged-gguf", &small, Some("nf4"), "GGUF has no nf4");
    fails("merged-safetensors", &small, Some("q8_0"), "safetensors has no q8_0");
    fails("merged-gguf", &small, Some("q4_k"), "q4_k");
    fails("peft", &small, Some("f16"), "--format");
    fails("nothing", &small, None, "merged-safetensors");
    // f16 ends at 65504.
    let mut huge = small.clone();
    huge.sites[0].b[3] = 1e9;
    fails("merged-safetensors", &huge, Some("f16"), "too large for f16");
    huge.sites[0].b[3] = f32::NAN;
    fails("merged-safetensors", &huge, Some("f16"), "layers.0.self_attn.q_proj");
    let request = Request { name: "test", adapter: (&small).into(), model: None, format: None };
    let done = pollster::block_on((exporters::by_name("merged-gguf").unwrap().run)(&request, &mut Memory::default()));
    assert!(done.unwrap_err().to_string().contains("`model`"));
}

/// Writes an adapter folder, with the base it is said to be of.
fn save(folder: &Path, name: &str, adapter: &PeftAdapter, base: Option<&str>) -> String {
    let note = base.map(|base| Note { base_hash: base.into(), steps: 5, ..Note::default() });
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    for (file, bytes) in (PeftAdapter { note, ..adapter.clone() }).to_files(name).unwrap() {
        std::fs::write(path.join(file), bytes).unwrap();
    }
    path.display().to_string()
}

fn load(path: &str) -> PeftAdapter {
    let read = |file: &str| std::fs::read(Path::new(path).join(file)).unwrap();
    let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    PeftAdapter::read_alone(Folder { name: path, config: &config, weights: &weights, note: None, chain: None }).unwrap()
}

#[test]
fn links_are_joined_listed_dropped_and_split() {
    let (model, folder) = (gguf(), tempfile::tempdir().unwrap());
    let parts: Vec<PeftAdapter> = ["a", "b", "c"].iter().zip([4, 2, 3]).map(|(key, rank)| adapter(key, rank, false, &model)).collect();
    let paths: Vec<String> = parts.iter().enumerate().map(|(i, p)| save(folder.path(), &format!("p{i}"), p, Some(BASE))).collect();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let same = |got: &str, want: &[usize]| {
        let (got, want): (_, Vec<_>) = (load(got), want.iter().map(|&i| (&parts[i], 1.0)).collect());
        got.sites.iter().for_each(|s| assert!(difference(&dense(&[(&got, 1.0)], s.site), &dense(&want, s.site)) < 1e-6, "{}", s.site));
    };
    let said = succeeds(&["merge", &paths[0], &paths[1], &paths[2], "--out", &path("chain")]);
    assert!(said.contains("a chain of 9 sites, rank up to 9"), "{said}");
    same(&path("chain"), &[0, 1, 2]);
    let said = succeeds(&["merge", &path("chain"), "--list"]);
    assert!(said.contains("chain of 3 links") && said.contains("link 1: rank 2, alpha 3, 5 steps, 9 sites"), "{said}");
    let event: Value = serde_json::from_str(&succeeds(&["merge", &path("chain"), "--list", "--json"])).unwrap();
    assert_eq!((&event["base_hash"], event["links"].as_array().map(Vec::len)), (&BASE.into(), Some(3)));
    succeeds(&["merge", &path("chain"), "--drop", "1", "--out", &path("dropped")]);
    same(&path("dropped"), &[0, 2]);
    succeeds(&["merge", &path("chain"), "--split", "--out", &path("links")]);
    (0..3).for_each(|i| same(&path(&format!("links/link-{i}")), &[i]));
    // Weights leave no links; a rank cut tells what it drops.
    let said = succeeds(&["merge", &paths[0], &paths[1], "--weights", "1,-1", "--out", &path("sum")]);
    assert!(said.contains("an adapter of 9 sites"), "{said}");
    let said = succeeds(&["merge", &path("chain"), "--max-rank", "5", "--out", &path("cut")]);
    assert!(said.contains("dropped energy over all sites") && said.contains("rank up to 5"), "{said}");
    assert!(load(&path("cut")).sites.iter().all(|s| s.rank == 5));
    let event: Value =
        serde_json::from_str(&succeeds(&["merge", &path("chain"), "--energy", "0.5", "--out", &path("half"), "--json"])).unwrap();
    let dropped = event["recompressed"]["dropped"].as_f64().unwrap();
    assert!(dropped > 0.2 && dropped <= 0.5, "{event}");
    // Refused, and nothing is written.
    let out = path("refused");
    fails(&["merge", &paths[0], "--list"], &["no chain", "chain.json"]);
    fails(&["merge", &paths[0], "--split", "--out", &out], &["no chain"]);
    fails(&["merge", &path("chain"), "--drop", "3", "--out", &out], &["no link 3", "0 to 2"]);
    fails(&["merge", &path("chain"), "--drop", "0,1,2", "--out", &out], &["all 3 links"]);
    fails(&["merge", &path("chain"), &paths[0], "--list"], &["one chain at a time"]);
    fails(&["merge", &paths[0], &paths[1], "--weights", "1", "--out", &out], &["1 weights for 2 adapters"]);
    fails(&["merge", &paths[0], "--weights", "0", "--out", &out], &["weights", "other than 0"]);
    fails(&["merge", &paths[0], "--max-rank", "0", "--out", &out], &["max-rank", "1 or more"]);
    fails(&["merge", &paths[0], "--out", &path("chain")], &["already exists", "new name"]);
    let strict = ["merge", &paths[0], "--model", &golden("tiny_llama/model.gguf"), "--strict-base", "--out", &out];
    fails(&strict, &["trained on the base", BASE]);
    let elsewhere = save(folder.path(), "elsewhere", &parts[1], Some("00000000000000000000000000000002"));
    fails(&["merge", &paths[0], &elsewhere, "--out", &out], &["elsewhere", "one base"]);
    let mut narrow = parts[1].clone();
    narrow.sites[0].b.truncate(16);
    let narrow = save(folder.path(), "narrow", &narrow, None);
    fails(&["merge", &paths[0], &narrow, "--out", &out], &["narrow", "layers.0.self_attn.q_proj is 8 x 32", "64 x 32"]);
    let manifest = folder.path().join("chain/chain.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replacen("\"rank\": 4", "\"rank\": 5", 1)).unwrap();
    fails(&["merge", &path("chain"), "--split", "--out", &out], &["chain.json", "tensors have rank 9"]);
    assert!(!Path::new(&out).exists());
}

#[test]
fn broken_adapters_are_named() {
    let (model, folder) = (gguf(), tempfile::tempdir().unwrap());
    let good = adapter("good", 2, false, &model);
    let path = save(folder.path(), "good", &good, None);
    let weights = folder.path().join("good/adapter_model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    let out = folder.path().join("out").display().to_string();
    let each = |words: &[&str]| {
        fails(&["analyze", &path], words);
        fails(&["merge", &path, "--out", &out], words);
        fails(&["export", "--adapter", &path, "--to", "peft", "--out", &out], words);
    };
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&weights, &nan).unwrap();
    each(&["good", "NaN"]);
    std::fs::write(&weights, &bytes[..end - 5]).unwrap();
    each(&["adapter_model.safetensors", "not a whole safetensors file"]);
    std::fs::remove_file(&weights).unwrap();
    each(&["has no adapter_model.safetensors"]);
    std::fs::write(&weights, &bytes).unwrap();
    let config = folder.path().join("good/adapter_config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"r\": 2", "\"r\": 0")).unwrap();
    each(&["`r` is 0"]);
    std::fs::write(&config, text).unwrap();
    fails(&["analyze", &path, "--links"], &["no chain"]);
    fails(&["analyze", &path, "--svg", &path], &["already exists"]);
    fails(&["export", "--adapter", &path, "--to", "merged-gguf", "--out", &out], &["`model`: is missing"]);
    let tiny = golden("tiny_llama/model.gguf");
    fails(&["export", "--adapter", &path, "--model", &tiny, "--to", "merged-gguf", "--out", &path], &["already exists"]);
    fails(&["export", "--adapter", &path, "--model", &tiny, "--to", "merged-gguf", "--format", "q4_k", "--out", &out], &["q4_k", "q8_0"]);
    let hf = golden("tiny_llama/model.safetensors");
    fails(&["export", "--adapter", &path, "--model", &hf, "--to", "merged-gguf", "--out", &out], &["merged-safetensors"]);
    fails(&["export", "--adapter", &path, "--model", &golden("odd_llama"), "--to", "merged-safetensors", "--out", &out], &["good"]);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["good"], "nothing is left of an export that failed");
}

#[test]
fn analysis_as_words_json_and_pictures() {
    let (model, folder) = (gguf(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut without_k = adapter("b", 2, false, &model);
    without_k.sites.retain(|s| s.site.projection != Projection::K);
    let all = [("a", adapter("a", 4, false, &model)), ("b", without_k), ("c", adapter("c", 3, false, &model))];
    let [a, b, c] = all.map(|(name, adapter)| save(folder.path(), name, &adapter, None));
    succeeds(&["merge", &a, &b, &c, "--out", &path("chain")]);
    let words = succeeds(&["analyze", &path("chain"), "--links"]);
    for expected in ["chain: 9 sites", "eff. rank", "top-1 energy", "link 1: ", "of the chain so far"] {
        assert!(words.contains(expected), "{words}");
    }
    let lines = succeeds(&["analyze", &path("chain"), &a, "--links", "--json", "--svg", &path("pictures")]);
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().filter_map(|e| e["event"].as_str()).collect();
    assert_eq!(kinds, ["analysis", "analysis", "similarity", "pictures"]);
    let site = &events[0]["sites"][0];
    assert_eq!((&site["site"], &site["rank_sum"], &site["spectrum"]["rank"]), (&"layers.0.self_attn.q_proj".into(), &9.into(), &9.into()));
    assert_eq!(site["links"]["cumulative"].as_array().map(Vec::len), Some(3));
    // Link 1 has no part in k: what is said of it there is said of link 0, and of link 2 under its own number.
    let k = &events[0]["sites"][1];
    assert_eq!((&k["projection"], &k["links"]["numbers"]), (&"k".into(), &serde_json::json!([0, 2])));
    // The chain contains its first link.
    assert!(events[2]["sites"][0]["right"].as_f64().unwrap() > 0.999);
    let mut names: Vec<&str> = events[3]["files"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    let expected = ["a-effective-rank.svg", "a-spectra.svg", "chain-a-similarity.svg", "chain-effective-rank.svg", "chain-links.svg"];
    assert_eq!(names, [&expected[..], &["chain-spectra.svg", "chain-staircase.svg"]].concat());
    for name in names {
        let svg = std::fs::read_to_string(folder.path().join("pictures").join(name)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>") && svg.contains("prefers-color-scheme"), "{name}");
        assert!(svg.contains("<title>") && !svg.contains("NaN") && !svg.contains("inf"), "{name}");
        for tag in ["rect", "text", "polyline", "style"] {
            let (open, close) = (svg.matches(&format!("<{tag}")).count(), svg.matches(&format!("</{tag}>")).count());
            assert!(close <= open, "{name}: {tag}");
        }
    }
}
