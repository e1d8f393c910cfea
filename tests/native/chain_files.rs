//! Chains as settings, layouts and files: what is read is what was written, and what cannot be is refused by name.

use serde_json::{Value, json};
use weblora::adapters::chain::{KnotOptimizer, carry};
use weblora::adapters::{AdapterLayout, Site, initial_buffer};
use weblora::config::ModelConfig;
use weblora::export::chain::{Chain, Link, Manifest};
use weblora::export::folder::CHAIN_FILE;
use weblora::export::folder::{File, Folder};
use weblora::export::peft::{Note, PeftAdapter};
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::settings::Map;
use weblora::text::Example;
use weblora::train::TrainConfig;
use weblora::train::batch::Packer;
use weblora::train::chain::{at_knot, link_ends};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");

fn model() -> ModelConfig {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    pollster::block_on(ModelFile::open_gguf(vec![source])).unwrap().config
}

fn config(more: &Value) -> weblora::Result<TrainConfig> {
    let mut map: Map = json!({ "method": "cola" }).as_object().unwrap().clone();
    map.extend(more.as_object().unwrap().clone());
    TrainConfig::from_map(&map)
}

fn layout(more: &Value, stage: usize) -> AdapterLayout {
    let adapter = config(more).unwrap().adapter;
    adapter.chain().unwrap().unwrap().layout(&adapter, &model(), stage).unwrap()
}

#[track_caller]
fn refused<T>(result: weblora::Result<T>, words: &[&str]) {
    let error = result.err().expect("refused").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not mention {word:?}");
    }
}

/// Random values everywhere, so that nothing is equal by being zero.
fn filled(layout: &AdapterLayout, key: &str) -> Vec<f32> {
    let mut values = vec![0.0; layout.params.words];
    for spec in &layout.params.specs {
        spec.put_hf(&weblora::rng::fill_uniform(&format!("{key}/{}", spec.name), spec.len(), 1.0), &mut values);
    }
    values
}

fn note(hash: &str) -> Note {
    Note { weblora: "0.1.0".into(), base_hash: hash.into(), steps: 3, ..Note::default() }
}

fn link(rank: usize) -> Link {
    Link { rank, ranks: std::collections::BTreeMap::new(), alpha: 2.0 * rank as f64, rslora: false, steps: 7 }
}

fn find<'a>(files: &'a [File], name: &str) -> Option<&'a [u8]> {
    files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.as_slice())
}

fn read(files: &[File]) -> PeftAdapter {
    let get = |name| find(files, name).unwrap();
    let folder = Folder {
        name: "test",
        config: get("adapter_config.json"),
        weights: get("adapter_model.safetensors"),
        note: find(files, "weblora.json"),
        chain: None,
    };
    PeftAdapter::read(folder, &model()).unwrap()
}

/// A chain of ranks 4, 2, 3 at q and v.
fn chain() -> Chain {
    let settings = json!({ "links": [4, 2, 3], "targets": "q,v" });
    let layout = layout(&settings, 2);
    Chain::from_layout(&layout, &filled(&layout, "chain"), &[link(4), link(2), link(3)], Some("base".into()), Some(note("ab")))
}

/// `Σ scale · B A` at a site, `[out, in]`.
fn delta(adapter: &PeftAdapter, site: Site) -> Vec<f64> {
    let Some(found) = adapter.sites.iter().find(|s| s.site == site) else { return vec![0.0; 1] };
    let (inputs, scale) = (found.a.len() / found.rank, found.scale(adapter.rslora));
    let row = |row: &[f32]| -> Vec<f64> {
        (0..inputs).map(|i| scale * (0..found.rank).map(|r| f64::from(row[r]) * f64::from(found.a[r * inputs + i])).sum::<f64>()).collect()
    };
    found.b.chunks_exact(found.rank).flat_map(row).collect()
}

fn assert_same_sum(whole: &PeftAdapter, parts: &[PeftAdapter]) {
    for site in &whole.sites {
        let got = delta(whole, site.site);
        let each: Vec<Vec<f64>> = parts.iter().map(|part| delta(part, site.site)).filter(|d| d.len() > 1).collect();
        for (i, got) in got.iter().enumerate() {
            let want: f64 = each.iter().map(|d| d[i]).sum();
            assert!((got - want).abs() < 1e-6, "{} element {i}: {got}, the parts add up to {want}", site.site);
        }
    }
}

#[test]
fn stages_share_buffers_and_links_keep_their_values() {
    let settings = json!({ "links": [4, 2, 3], "inherited-ranks": [5, 1], "targets": "q,down" });
    let stages: Vec<AdapterLayout> = (0..3).map(|stage| layout(&settings, stage)).collect();
    for stage in &stages {
        let (_, words) = stage.params.gradient_offsets();
        assert_eq!((stage.params.words, words), (stages[0].params.words, stages[0].params.gradient_offsets().1));
        for site in &stage.sites {
            // Slot of the largest link, and all frozen ones.
            assert_eq!((site.max_rank, site.max_trained), (4 + 4 + 2 + 5 + 1, 4));
            let specs = &stage.params.specs;
            let trained: Vec<bool> = site.slices.iter().map(|s| specs[s.a].trainable || specs[s.b].trainable).collect();
            assert!(trained[0] && !trained[1..].contains(&true), "only the newest link trains");
            assert!(site.slices.windows(2).all(|w| specs[w[0].a].range().end == specs[w[1].a].offset), "side by side");
        }
    }
    let names: Vec<&str> = stages[2].sites[0].slices.iter().map(|s| &stages[2].params.specs[s.a].name[..5]).collect();
    assert_eq!(names, ["link4", "link3", "link2", "link1", "link0"], "newest first, numbered over inherited links");
    assert_eq!(stages[0].params.trainable(), 2 * 4 * (32 + 64 + 96 + 32));
    let values = filled(&stages[0], "values");
    let next = carry(&stages[0], &stages[1], &values, 7).unwrap();
    let fresh = initial_buffer(&stages[1].params, 7);
    for spec in &stages[1].params.specs {
        let old = stages[0].params.specs.iter().find(|old| old.name == spec.name);
        let want = old.map_or_else(|| spec.to_hf(&fresh), |old| old.to_hf(&values));
        assert_eq!(spec.to_hf(&next), want, "{}", spec.name);
    }
    links_are_rounded_once(&values);
    assert!(stages[1].params.specs.iter().any(|s| s.name == "link3.layers.0.self_attn.q_proj.lora_A" && s.trainable));
    // Another scale: what a frozen link adds stays.
    let other = json!({ "links": [4, 2], "link-alphas": [8, 12], "targets": "q" });
    let (one, two) = (layout(&other, 0), layout(&other, 1));
    let values = filled(&one, "values");
    let moved = carry(&one, &two, &values, 0).unwrap();
    let b = |layout: &AdapterLayout, slice: usize, values: &[f32]| {
        let slice = layout.sites[0].slices[slice];
        layout.params.specs[slice.b].to_hf(values)[5] * slice.scale
    };
    assert_eq!((one.sites[0].slices[0].scale, two.sites[0].slices[0].scale), (2.0, 6.0));
    assert!((b(&one, 0, &values) - b(&two, 1, &moved)).abs() < 1e-6);
}

/// The same chain with frozen links as f16; `values` are those of the first stage where they are f32.
fn links_are_rounded_once(values: &[f32]) {
    let settings = |storage: &str| json!({ "links": [4, 2, 3], "inherited-ranks": [5, 1], "targets": "q,down", "link-storage": storage });
    let whole = layout(&settings("f32"), 0);
    let stages: Vec<AdapterLayout> = (0..3).map(|stage| layout(&settings("f16"), stage)).collect();
    assert!(stages.iter().all(|stage| stage.params.words == stages[0].params.words));
    assert!(stages[0].params.words < whole.params.words);
    // From one layout to the other by name, and on to the next stage: nothing is rounded twice.
    let first = carry(&whole, &stages[0], values, 7).unwrap();
    let second = carry(&stages[0], &stages[1], &first, 7).unwrap();
    let third = carry(&stages[1], &stages[2], &second, 7).unwrap();
    for (stage, buffer) in stages.iter().zip([&first, &second, &third]) {
        for spec in &stage.params.specs {
            let Some(was) = whole.params.specs.iter().find(|was| was.name == spec.name) else { continue };
            let rounded = |x: f32| if spec.trainable { x } else { half::f16::from_f32(x).to_f32() };
            let want: Vec<f32> = was.to_hf(values).into_iter().map(rounded).collect();
            assert_eq!(spec.to_hf(buffer), want, "{}", spec.name);
        }
    }
    // What f16 cannot hold is refused by name.
    let mut large = first.clone();
    large[stages[0].params.specs[0].range()].fill(1e5);
    refused(carry(&stages[0], &stages[1], &large, 7), &["`link-storage`", "65504", "lora_A", "f32"]);
}

#[test]
fn a_chain_is_read_as_it_was_written_and_links_come_off_again() {
    let chain = chain();
    let files = chain.to_files("test").unwrap();
    assert_eq!(files.last().unwrap().0, "adapter_config.json", "the file that makes the folder whole comes last");
    let whole = read(&files);
    assert_eq!((whole.sites[0].rank, whole.sites[0].alpha), (9, 18.0), "one scale: the factors keep their bits");
    let again = Chain::read_chain("test", whole.clone(), find(&files, CHAIN_FILE)).unwrap();
    assert_eq!(again.manifest(), chain.manifest());
    assert_eq!(again.merged().sites, whole.sites);
    for (link, other) in again.links.iter().zip(&chain.links) {
        assert_eq!(link.adapter.sites, other.adapter.sites);
    }
    assert_same_sum(&whole, &chain.clone().split());
    let mut shorter = again.clone();
    let gone = shorter.drop_link(1).unwrap();
    assert_eq!(gone.about.rank, 2);
    assert_same_sum(&whole, &[shorter.merged(), gone.adapter.clone()]);
    shorter.extend("gone", Chain::of_one(gone.adapter)).unwrap();
    assert_eq!(shorter.manifest().links.iter().map(|l| l.rank).collect::<Vec<_>>(), [4, 3, 2]);
    assert_same_sum(&shorter.merged(), &[whole]);
    refused(again.clone().drop_link(3), &["no link 3", "0 to 2"]);
    let mut one = Chain::of_one(again.links[0].adapter.clone());
    refused(one.drop_link(0), &["one link only"]);
}

#[test]
fn adapters_of_other_ranks_scales_and_sites_join() {
    let chain = chain();
    let run = json!({ "rank": 3, "alpha": 7, "rslora": true, "targets": "v,o", "method": "lora", "rank-pattern": { "layers.1.*": 2 } });
    let plain = config(&run).unwrap().adapter.layout(&model()).unwrap();
    let plain = PeftAdapter::from_layout(&plain, &filled(&plain, "plain"), None, Some(note("ab")));
    let mut joined = chain.clone();
    joined.extend("plain", Chain::of_one(plain.clone())).unwrap();
    let whole = joined.merged();
    assert_eq!(whole.sites.len(), 6, "q, v and o of two blocks");
    assert_same_sum(&whole, &[chain.merged(), plain.clone()]);
    let files = joined.to_files("test").unwrap();
    let again = Chain::read("test", read(&files), find(&files, CHAIN_FILE)).unwrap();
    assert_eq!(again.links.len(), 4);
    assert_eq!(again.links[3].adapter.sites.iter().map(|s| s.rank).collect::<Vec<_>>(), [3, 3, 2, 2]);
    assert_same_sum(&again.links[3].adapter, std::slice::from_ref(&plain));
    // A run goes on from it, whatever the ranks at single sites are.
    let mut settings = json!({ "links": [2, 2] });
    settings.as_object_mut().unwrap().extend(again.settings());
    let layout = layout(&settings, 0);
    let values = again.to_buffer("test", &layout, 3).unwrap();
    let mut links = again.manifest().links;
    links.push(link(2));
    let run = Chain::from_layout(&layout, &values, &links, None, Some(note("ab")));
    let mut manifest = run.manifest();
    assert_eq!(manifest.links.pop().unwrap().rank, 2);
    assert_eq!(manifest.links, again.manifest().links, "padding is not written");
    assert_same_sum(&run.merged(), &[whole]);
    assert!(run.links[4].adapter.sites.iter().all(|s| s.b.iter().all(|x| *x == 0.0)), "the new link starts at zero");
    assert_eq!(settings["inherited-ranks"], json!([4, 2, 3, 3]));
    settings["targets"] = json!("q");
    refused(again.to_buffer("test", &self::layout(&settings, 0), 0), &["v_proj", "--targets"]);
}

#[test]
fn a_manifest_that_does_not_fit_is_refused() {
    let files = chain().to_files("test").unwrap();
    let adapter = read(&files);
    let change = |key: &str, value: Value| {
        let mut manifest: Value = serde_json::from_slice(find(&files, CHAIN_FILE).unwrap()).unwrap();
        manifest[key] = value;
        manifest.to_string().into_bytes()
    };
    let links = |ranks: &[usize]| json!(ranks.iter().map(|&r| link(r)).collect::<Vec<_>>());
    let cases = [
        (b"{".to_vec(), "not JSON"),
        (change("version", json!(2)), "version is 2"),
        (change("cumulative", json!(false)), "cumulative"),
        (change("links", json!([])), "no link"),
        (change("links", links(&[4, 2, 2])), "[4, 2, 2]"),
        (change("links", links(&[4, 2, 3, usize::MAX])), "rank 9"),
        (change("links", json!([{ "rank": 9, "ranks": { "model.layers.9.self_attn.q_proj": 1 }, "alpha": 1, "steps": 1 }])), "layers.9"),
        (change("base_hash", json!("cd")), "base cd"),
        (change("surplus", json!(1)), "surplus"),
    ];
    for (bytes, words) in cases {
        refused(Chain::read_chain("test", adapter.clone(), Some(&bytes)), &["adapter test", CHAIN_FILE, words]);
    }
    refused(Chain::read_chain("test", adapter.clone(), None), &["it is no chain", "--method cola"]);
    assert_eq!(Chain::read("test", adapter, None).unwrap().links.len(), 1);
    assert!(Manifest::parse("test", find(&files, CHAIN_FILE).unwrap()).is_ok());
    let mut other = chain();
    let foreign = Chain { base_hash: Some("cd".into()), ..chain() };
    refused(other.extend("foreign", foreign), &["adapter foreign", "base cd"]);
    let mut long = chain();
    let mut result = Ok(());
    for _ in 0..9 {
        result = result.and_then(|()| long.extend("long", long.clone()));
    }
    refused(result, &["4608", "4096", "recompress"]);
    assert_eq!(long.links.len(), 3 << 8, "a refused link is not left behind");
}

#[test]
fn settings_of_chains_that_cannot_be_are_refused() {
    for (settings, words) in [
        (json!({ "links": [8, 0] }), &["`links`", "whole numbers"][..]),
        (json!({ "links": [8, 4], "link-storage": "f8" }), &["`link-storage`", "f16"]),
        (json!({ "links": [8, 4], "rank": 4 }), &["`rank`", "leave out --rank"]),
        (json!({ "links": [4000, 97] }), &["4097", "4096"]),
        (json!({ "links": [9000] }), &["`links`", "4096"]),
        (json!({ "links": [8, 4], "knots": [40, 80], "steps": 120 }), &["`links`", "3 links"]),
        (json!({ "knots": [40, 40], "steps": 120 }), &["`knots`", "rising order"]),
        (json!({ "knots": [40, 120], "steps": 120 }), &["`knots`", "step 120", "--steps"]),
        (json!({ "knots": [40], "link-steps": [4, 4] }), &["`link-steps`", "`knots`"]),
        (json!({ "link-steps": [4, 4], "steps": 9 }), &["`steps`", "8 steps"]),
        (json!({ "link-steps": [4, 4], "epochs": 1 }), &["`epochs`"]),
        (json!({ "link-epochs": [1, 1], "steps": 9 }), &["`steps`", "2 epochs"]),
        (json!({ "links": [8, 4], "link-lrs": [1e-3] }), &["`link-lrs`", "2 links"]),
        (json!({ "links": [8, 4], "link-alphas": [1, 0] }), &["`link-alphas`", "positive"]),
        (json!({ "rank-pattern": { "q_proj": 3 } }), &["`rank-pattern`"]),
        (json!({ "knot-patience": 2 }), &["`knot-patience`", "--eval-every"]),
        (json!({ "knot-gap": 0.5 }), &["`knot-gap`", "--eval-every"]),
        (json!({ "knot-prune": 1.5 }), &["`knot-prune`", "0 to 1"]),
        (json!({ "chain-mode": "rac", "init-a": "grad-svd" }), &["`init-a`", "rac"]),
        (json!({ "knot-probes": 0, "init-a": "grad-svd" }), &["`init-a`", "--knot-probes"]),
        (json!({ "method": "lora", "links": [4] }), &["`links`", "`cola`"]),
    ] {
        refused(config(&settings), words);
    }
    let adapter = config(&json!({ "links": [4, 40], "targets": "q" })).unwrap().adapter;
    refused(adapter.layout(&model()), &["rank 40", "64 x 32"]);
    // Links end where they were asked to, and no link is left without a step.
    let example = Example { tokens: vec![1; 10], targets: vec![true; 10], row: 1, rejected: None };
    let packer = Packer::new(&vec![example; 8], 20, 0, true).unwrap();
    let ends = |settings: Value, total| {
        let chain = config(&settings).unwrap().adapter.chain().unwrap().unwrap();
        link_ends(&chain, total, &packer, 2)
    };
    assert_eq!(ends(json!({}), 120).unwrap(), [40, 80, 120]);
    assert_eq!(ends(json!({ "links": [2, 2, 2] }), 10).unwrap(), [3, 6, 10]);
    assert_eq!(ends(json!({ "knots": [3, 4] }), 9).unwrap(), [3, 4, 9]);
    assert_eq!(ends(json!({ "link-steps": [3, 4] }), 7).unwrap(), [3, 7]);
    assert_eq!(ends(json!({ "link-epochs": [2, 1] }), 6).unwrap(), [4, 6]);
    refused(ends(json!({ "links": [2, 2, 2] }), 2), &["3 links in 2 steps"]);
    refused(ends(json!({ "knots": [9] }), 9), &["after step 9"]);
    // What the command line leaves out is filled in, and a run file with all of it means the same.
    let full = config(&json!({ "links": [8, 4], "link-steps": [3, 4], "alpha": 16 })).unwrap();
    assert_eq!((full.steps, full.epochs, full.adapter.rank, full.adapter.alpha), (Some(7), None, 8, 16.0));
    let chain = full.adapter.chain().unwrap().unwrap();
    assert_eq!(chain.links.iter().map(|l| l.alpha).collect::<Vec<_>>(), [16.0, 8.0], "one scale for all links");
    assert_eq!(TrainConfig::from_map(&full.to_map()).unwrap(), full);
}

#[test]
fn moments_are_reset_kept_or_forgotten_in_part() {
    let settings = json!({ "links": [4, 2], "targets": "q" });
    let next = layout(&settings, 1);
    let (offsets, words) = next.params.gradient_offsets();
    let m: Vec<f32> = (0..words).map(|i| if i % 2 == 0 { i as f32 + 1.0 } else { -(i as f32 + 1.0) }).collect();
    let v: Vec<f32> = m.iter().map(|x| x * x).collect();
    let run = |kind| at_knot(kind, &next, "0/link1.moments", &m, &v);
    let alive = |(m, v): &(Vec<f32>, Vec<f32>)| {
        assert!(m.iter().zip(v).all(|(m, v)| (*m == 0.0) == (*v == 0.0)), "an element is forgotten in both moments or in none");
        m.iter().filter(|x| **x != 0.0).count()
    };
    let used: usize = next.params.trainable();
    assert_eq!(alive(&run(KnotOptimizer::Reset)), 0);
    let kept = run(KnotOptimizer::Keep);
    assert_eq!(alive(&kept), used, "rows that the smaller link does not use are cleared");
    let first = next.sites[0].slices[0].a;
    let place = offsets[first]..offsets[first] + next.params.specs[first].len();
    assert_eq!(kept.0[place.clone()], m[place.clone()]);
    let pruned = run(KnotOptimizer::Magnitude(0.75));
    assert_eq!(alive(&pruned), used / 4);
    assert!(pruned.0[place.clone()].iter().rev().take(place.len() / 4).all(|x| *x != 0.0), "the largest stay");
    // Ties do not take everything.
    let even = at_knot(KnotOptimizer::Magnitude(0.5), &next, "", &vec![1.0; words], &vec![1.0; words]);
    assert_eq!(alive(&even), used / 2);
    let random = run(KnotOptimizer::Random(0.9));
    let share = alive(&random) as f64 / used as f64;
    assert!((0.05..0.15).contains(&share), "{share} of the moments are left");
    assert_eq!(random, run(KnotOptimizer::Random(0.9)), "the same draw for one key");
}
