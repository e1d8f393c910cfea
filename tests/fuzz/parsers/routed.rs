//! MixLoRA folders, and the archives of `torch.save` that they may come in.

use pollster::block_on;
use serde_json::json;
use weblora::Result;
use weblora::adapters::{AdapterConfig, initial_buffer};
use weblora::config::ModelConfig;
use weblora::export::folder::Folder;
use weblora::export::mixlora::MixLoraAdapter;
use weblora::export::mixlora::write::Container;
use weblora::export::peft::PeftAdapter;
use weblora::formats::{BaseId, ModelFile, pickle, zip};
use weblora::settings::{Map, Settings};
use weblora::train::start::{from_adapter, open_adapter};

use super::golden;
use super::models::{description, sources, write_typed};
use crate::driver::Parser;
use crate::input::{Input, binary, json as json_part, safetensors};

pub static MIXLORA: Parser = Parser { name: "mixlora", seeds: folders, dictionary: keys, run: read_folder };
pub static TORCH_FILE: Parser = Parser { name: "torch_file", seeds: archives, dictionary: instructions, run: read_archive };

fn keys() -> Vec<&'static str> {
    vec![
        "peft_type",
        "MIXLORA",
        "routing_strategy",
        "mixlora",
        "mixlora-dynamic",
        "mixlora-switch",
        "mixtral",
        "num_experts",
        "top_k",
        "top_p",
        "temperature",
        "expert_capacity",
        "expert_lora",
        "r",
        "lora_alpha",
        "lora_dropout",
        "use_rslora",
        "use_dora",
        "renormalize",
        "rank_pattern",
        "alpha_pattern",
        "(a|aa)+$",
        "router_loss",
        "jitter_noise",
        "act_fn",
        "silu",
        "target_modules",
        "mixlora.layers.0.mlp.moe_gate.weight",
        "mixlora.layers.1.mlp.up_proj.experts.1.lora_B.weight",
        "mixlora.layers.0.experts.0.w1_proj.lora_A.weight",
        "mixlora.layers.18446744073709551615.gate.weight",
        "mixlora.layers.0.self_attn.q_proj.lora_A.weight",
        "classifier",
        "F32",
        "F16",
        "I64",
        "shape",
        "method",
        "balance",
        "per-layer",
        "aux-coef",
        "jitter",
    ]
}

fn model() -> ModelConfig {
    let bytes = write_typed(&json_part(description(json!({})).to_string()));
    block_on(ModelFile::open_gguf(sources(&[binary(bytes)]))).unwrap().config
}

/// An adapter of random factors for the model that folders are read against.
fn own(settings: serde_json::Value) -> Input {
    let map: Map = settings.as_object().unwrap().clone();
    let layout = AdapterConfig::read(&mut Settings::new(&map)).unwrap().layout(&model()).unwrap();
    let values = initial_buffer(&layout.params, 0);
    let adapter = MixLoraAdapter::from_layout(&layout, &values, Some("base".into()), None).unwrap();
    let files = adapter.to_files("x", Container::Safetensors).unwrap();
    let get = |name: &str| files.iter().find(|(file, _)| *file == name).unwrap().1.clone();
    let note = json!({"weblora": "0.1.0", "base_hash": "ab", "steps": 3, "config": map});
    vec![json_part(get("adapter_config.json")), safetensors(get("adapter_model.safetensors")), json_part(note.to_string())]
}

fn folders() -> Vec<Input> {
    let of = |name: &str| {
        let file = |file: &str| golden(&format!("mixlora/{name}/{file}"));
        vec![json_part(file("adapter_config.json")), safetensors(file("adapter_model.safetensors")), json_part("")]
    };
    vec![
        own(json!({"method": "mixlora", "experts": 2, "rank": 1, "aux-coef": 0.5})),
        own(
            json!({"method": "mixlora-dynamic", "experts": 2, "rank": 2, "renormalize": true, "targets": "up", "rank-pattern": {"up_proj": 1}}),
        ),
        of("safetensors"),
        of("switch"),
    ]
}

fn read_folder(input: &Input) -> Result<()> {
    let note = Some(input[2].bytes.as_slice()).filter(|bytes| !bytes.is_empty());
    let folder = Folder { name: "x", config: &input[0].bytes, weights: &input[1].bytes, note, chain: None };
    let (model, base) = (model(), BaseId { hash: "ab".into(), name: "base".into(), format: "q4_0".into() });
    let adapter = MixLoraAdapter::read_alone(folder)?;
    assert!(PeftAdapter::read_alone(folder).is_err(), "both plain and routed");
    assert!(adapter.parameters()[1] > 0 && !adapter.settings().is_empty());
    open_adapter(folder, &model, &base, false).ok();
    from_adapter(Map::new(), folder, &model, &base).ok();
    for container in [Container::Safetensors, Container::Pickle] {
        let files = adapter.to_files("x", container)?;
        let files: Vec<(String, Vec<u8>)> = files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        let again = MixLoraAdapter::read_alone(Folder::of("x", &files)?)?;
        assert!(again.attention == adapter.attention && again.experts == adapter.experts && again.gates == adapter.gates, "{container:?}");
    }
    Ok(())
}

fn instructions() -> Vec<&'static str> {
    vec![
        "ctorch\nFloatStorage\n",
        "ctorch\nHalfStorage\n",
        "ctorch\nBFloat16Storage\n",
        "ctorch._utils\n_rebuild_tensor_v2\n",
        "ctorch._utils\n_rebuild_parameter\n",
        "ccollections\nOrderedDict\n",
        "cos\nsystem\n",
        "cbuiltins\neval\n",
        "\n",
        "storage",
        "cpu",
        "((",
        "tQ",
        "tR",
        ")R",
        "}(",
        "u.",
        "b.",
        "h\0",
        "q\0",
        "PK",
        "data/0",
        "data.pkl",
    ]
}

/// Whole archives and nothing; or a pickle and the bytes of each of its storages, so that no checksum stands before the pickle.
fn archives() -> Vec<Input> {
    let whole = |name: &str| vec![binary(golden(&format!("mixlora/{name}/adapter_model.bin"))), binary("")];
    let values = [0.5f32; 6];
    let tensors = ["a", "b", "c"].map(|name| (name.to_owned(), vec![2, 3], &values[..]));
    let archive = pickle::write("x", &tensors).unwrap();
    let entries = zip::read("x", &archive).unwrap();
    let of = |end: &str| entries.iter().find(|entry| entry.name.ends_with(end)).unwrap().bytes;
    vec![whole("bin"), whole("ours"), vec![binary(of("data.pkl")), binary(of("data/0"))]]
}

fn read_archive(input: &Input) -> Result<()> {
    let (program, storage) = (&input[0].bytes, &input[1].bytes);
    let built;
    let archive = if storage.is_empty() {
        program
    } else {
        let mut files = vec![("x/data.pkl".to_owned(), program.as_slice())];
        files.extend((0..4).map(|i| (format!("x/data/{i}"), storage.as_slice())));
        built = zip::write("x", &files, 64)?;
        &built
    };
    let tensors = pickle::read("x", archive)?;
    let numbers: usize = tensors.iter().map(|t| t.format.decode_vec(&t.bytes).len()).sum();
    assert!(numbers * 2 <= archive.len(), "more numbers than there are bytes for");
    for tensor in &tensors {
        assert_eq!(tensor.bytes.len(), tensor.shape.iter().product::<usize>() * tensor.format.block_bytes);
    }
    Ok(())
}
