//! Adapter folders: read alone and against a model, as chains, analysed, edited, merged into a model.

use pollster::block_on;
use serde_json::json;
use weblora::adapters::Site;
use weblora::analysis::report::{compare, report};
use weblora::analysis::svg;
use weblora::config::ModelConfig;
use weblora::export::chain::Chain;
use weblora::export::edit::{self, Against, Edit};
use weblora::export::exporters::EXPORTERS;
use weblora::export::folder::CHAIN_FILE;
use weblora::export::folder::{File, Folder};
use weblora::export::peft::{Note, PeftAdapter, PeftSite};
use weblora::export::recompress::Cut;
use weblora::export::request::{Request, Sink};
use weblora::export::update::site_factors;
use weblora::formats::BaseId;
use weblora::formats::ModelFile;
use weblora::rng::fill_uniform;
use weblora::settings::Map;
use weblora::train::start::{from_adapter, open_adapter};
use weblora::{Error, Result, quant};

use super::golden;
use super::models::{description, sources, write_typed};
use crate::driver::Parser;
use crate::input::{Input, Part, binary, json as json_part, safetensors};

pub static ADAPTER: Parser = Parser { name: "adapter", seeds: adapter_seeds, dictionary: words, run: read_adapter };
pub static MERGE: Parser = Parser { name: "merge", seeds: merge_seeds, dictionary: words, run: merge };

fn words() -> Vec<&'static str> {
    vec![
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "use_dora",
        "rank_pattern",
        "alpha_pattern",
        "target_modules",
        "peft_type",
        "LORA",
        "LOHA",
        "bias",
        "none",
        "task_type",
        "CAUSAL_LM",
        "init_lora_weights",
        "pissa",
        "gaussian",
        "fan_in_fan_out",
        "modules_to_save",
        "base_model_name_or_path",
        "layers_to_transform",
        "q_proj",
        "v_proj",
        "(a|aa)+$",
        "model.layers.0.self_attn.q_proj",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight",
        "base_model.model.model.layers.18446744073709551615.mlp.up_proj.lora_A.weight",
        "base_model.model.lm_head.lora_A.weight",
        "dtype",
        "F32",
        "F16",
        "BF16",
        "F64",
        "I64",
        "F8_E4M3",
        "shape",
        "data_offsets",
        "__metadata__",
        "version",
        "links",
        "rank",
        "ranks",
        "alpha",
        "rslora",
        "steps",
        "cumulative",
        "base_hash",
        "weblora",
        "config",
        "weights",
        "drop",
        "max_rank",
        "energy",
        "format",
        "q8_0",
        "f16",
        "nf4",
    ]
}

fn tiny() -> ModelFile {
    let bytes = write_typed(&json_part(description(json!({})).to_string()));
    block_on(ModelFile::open_gguf(sources(&[binary(bytes)]))).unwrap()
}

/// The base that adapters are read against.
fn base() -> BaseId {
    BaseId { hash: "ab".into(), name: "base".into(), format: "q4_0".into() }
}

/// An adapter of random factors at q and up of both blocks.
fn adapter(key: &str, rank: usize, model: &ModelConfig) -> PeftAdapter {
    let wanted = |site: &Site| ["q", "up"].contains(&site.projection.short_name());
    let site = |site: Site| {
        let (out, inputs) = site.projection.shape(model);
        let fill = |which: &str, n: usize| fill_uniform(&format!("{key}/{site}.{which}"), n, 0.5);
        PeftSite { site, rank, alpha: 2.0 * rank as f64, a: fill("a", rank * inputs), b: fill("b", out * rank) }
    };
    let note = Note { weblora: "0.1.0".into(), base_hash: "ab".into(), steps: 3, ..Note::default() };
    let sites = Site::all(model).filter(wanted).map(site).collect();
    PeftAdapter {
        sites,
        norms: Vec::new(),
        embeddings: None,
        rslora: false,
        blocks: model.num_hidden_layers,
        dropout: 0.1,
        base_name: Some("base".into()),
        note: Some(note),
    }
}

const FILES: [&str; 4] = ["adapter_config.json", "adapter_model.safetensors", "weblora.json", CHAIN_FILE];

/// The four parts of a folder; a file that it lacks is empty.
fn parts(files: &[File]) -> Vec<Part> {
    let bytes = |name: &str| files.iter().find(|(file, _)| *file == name).map(|(_, bytes)| bytes.clone()).unwrap_or_default();
    FILES.iter().map(|name| if name.ends_with("safetensors") { safetensors(bytes(name)) } else { json_part(bytes(name)) }).collect()
}

fn folder<'a>(name: &'a str, parts: &'a [Part]) -> Folder<'a> {
    let some = |part: &'a Part| Some(part.bytes.as_slice()).filter(|bytes| !bytes.is_empty());
    Folder { name, config: &parts[0].bytes, weights: &parts[1].bytes, note: some(&parts[2]), chain: some(&parts[3]) }
}

fn chain(model: &ModelConfig) -> Vec<Part> {
    let mut chain = Chain::of_one(adapter("first", 2, model));
    chain.extend("second", Chain::of_one(adapter("second", 1, model))).unwrap();
    parts(&chain.to_files("chain").unwrap())
}

fn adapter_seeds() -> Vec<Input> {
    let model = tiny().config;
    let golden = |name: &str| -> Vec<Part> {
        vec![
            json_part(golden(&format!("{name}/adapter_config.json"))),
            safetensors(golden(&format!("{name}/adapter_model.safetensors"))),
            json_part(""),
            json_part(""),
        ]
    };
    vec![parts(&adapter("x", 2, &model).to_files("x").unwrap()), chain(&model), golden("peft_patterns"), golden("peft_multilora")]
}

fn read_adapter(input: &Input) -> Result<()> {
    let folder = folder("adapter", input);
    let adapter = PeftAdapter::read_alone(folder)?;
    let (settings, files) = (adapter.settings(), adapter.to_files("adapter")?);
    assert!(!settings.is_empty() && files.len() >= 2 && adapter.max_rank() > 0 && adapter.parameters() > 0);
    let (model, base) = (tiny().config, base());
    for from in [Map::new(), Map::from_iter([("method".into(), "cola".into()), ("links".into(), json!([2]))])] {
        from_adapter(from, folder, &model, &base).ok();
    }
    open_adapter(folder, &model, &base, false).ok();
    let chain = Chain::read("adapter", adapter.clone(), folder.chain)?;
    assert_eq!(chain.facts().len(), chain.links.len());
    assert!(chain.manifest().links.len() == chain.links.len() && !chain.settings().is_empty());
    chain.to_files("adapter")?;
    for dropped in [0, chain.links.len() / 2, chain.links.len()] {
        chain.clone().drop_link(dropped).ok();
    }
    for part in chain.clone().split() {
        part.to_files("link")?;
    }
    // Numbers of any size are an adapter; what an analysis refuses is its own affair.
    analyse(&adapter, &chain).ok();
    Ok(())
}

fn analyse(adapter: &PeftAdapter, chain: &Chain) -> Result<()> {
    // What takes long is only slow in proportion to the cube of the rank: not the business of this test.
    if adapter.max_rank() > 32 {
        return Ok(());
    }
    let parts = chain.clone().split();
    let factors = site_factors(&parts)?;
    let found = report("adapter", &factors, true);
    svg::of_adapter(&found);
    let whole = [adapter.clone()];
    let pair = compare(("a", &factors), ("b", &site_factors(&whole)?))?;
    svg::of_pair(&pair);
    Ok(())
}

fn merge_seeds() -> Vec<Input> {
    let model = tiny().config;
    let options = |value: serde_json::Value| [json_part(value.to_string())];
    let of = |first: Vec<Part>, second: Vec<Part>, how: serde_json::Value| [first, second, options(how).into()].concat();
    let plain = |key: &str, rank: usize| parts(&adapter(key, rank, &model).to_files(key).unwrap());
    vec![
        of(plain("x", 2), plain("y", 1), json!({ "weights": [1.0, -0.5], "max_rank": 2, "format": "q8_0" })),
        of(chain(&model), plain("y", 1), json!({ "format": "f16" })),
        of(chain(&model), vec![json_part(""); 4], json!({ "drop": [0], "energy": 0.9 })),
    ]
}

/// Takes everything and keeps nothing.
struct Nowhere(u64);

impl Sink for Nowhere {
    fn begin(&mut self, _: &str, bytes: u64) -> Result<()> {
        self.0 = bytes;
        Ok(())
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0 = self.0.checked_sub(bytes.len() as u64).expect("no more than was announced");
        Ok(())
    }
    fn end(&mut self) -> Result<()> {
        assert_eq!(self.0, 0, "as much as was announced");
        Ok(())
    }
}

fn merge(input: &Input) -> Result<()> {
    let value: serde_json::Value =
        serde_json::from_slice(&input[8].bytes).map_err(|e| Error::format("options", e.to_string(), "write JSON"))?;
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    let cut = Cut { max_rank: value["max_rank"].as_u64().map(|n| n as usize), energy: value["energy"].as_f64() };
    let drop = list("drop").iter().filter_map(|n| Some(n.as_u64()? as usize)).collect();
    let edit = Edit { weights: list("weights").iter().filter_map(serde_json::Value::as_f64).collect(), drop, cut };
    let mut folders = vec![folder("first", &input[..4])];
    if !input[4].bytes.is_empty() {
        folders.push(folder("second", &input[4..8]));
    }
    let alone = edit::read(&folders, None).and_then(|parts| edit.apply(&parts)?.to_files("merged"));
    let model = tiny();
    let edited = edit.apply(&edit::read(&folders, Some(Against { model: &model.config, base: &base(), strict: false }))?)?;
    let format = value["format"].as_str().and_then(quant::by_name);
    for exporter in EXPORTERS {
        let request = Request { name: "merged", adapter: (&edited.adapter).into(), model: Some(&model), format };
        block_on((exporter.run)(&request, &mut Nowhere(0))).ok();
    }
    alone.map(drop_files)
}

fn drop_files(files: Vec<File>) {
    assert!(files.len() >= 2);
}
