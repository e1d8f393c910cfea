//! Prompts are read in large pieces where there is room: the logits behind them are those of small pieces.

use crate::common::gpu;
use pollster::block_on;
use serde_json::{Value, json};
use weblora::adapters::{AdapterConfig, AdapterLayout, initial_buffer};
use weblora::demo;
use weblora::generate::Generator;
use weblora::gpu::Tuner;
use weblora::model::decoder::PREFILL;
use weblora::rng::fill_uniform;
use weblora::settings::Settings;

/// An adapter of the embedded model, every parameter drawn.
fn adapter(settings: &Value) -> (AdapterLayout, Vec<f32>) {
    let file = block_on(demo::model()).expect("the embedded model");
    let config = AdapterConfig::read(&mut Settings::new(settings.as_object().expect("settings"))).expect("settings");
    let layout = config.layout(&file.config).expect("a layout");
    let mut values = initial_buffer(&layout.params, 0);
    for spec in &layout.params.specs {
        spec.put_hf(&fill_uniform(&format!("1/{}", spec.name), spec.len(), 0.1), &mut values);
    }
    (layout, values)
}

#[test]
fn a_long_prompt_in_large_pieces_is_that_in_small_ones() {
    let Some(gpu) = gpu() else { return };
    let file = block_on(demo::model()).expect("the embedded model");
    let adapters = [adapter(&json!({ "rank": 4 })), adapter(&json!({ "method": "mixlora", "rank": 4, "experts": 3 }))];
    // Three large pieces, one small one, a token alone.
    let prompt: Vec<u32> = (0..3 * PREFILL as u32 + 9).map(|i| (i * 37 + 5) % 200).collect();
    let mut other = prompt.clone();
    other[PREFILL + 3] += 1;
    let roomy = 4 * PREFILL;
    let logits = |room: usize, prompt: &[u32]| -> Vec<Vec<f32>> {
        let mut tuner = Tuner::for_device(gpu);
        let opened = Generator::open(gpu, &file, &adapters, None, room, &mut tuner, false, |_, _| {});
        let mut generator = block_on(opened).expect("a generator");
        [None, Some(0), Some(1)].into_iter().map(|job| block_on(generator.logits(gpu, prompt, job)).expect("logits")).collect()
    };
    let far = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let (large, small, changed) = (logits(roomy, &prompt), logits(roomy - 1, &prompt), logits(roomy, &other));
    for (i, ((large, small), changed)) in large.iter().zip(&small).zip(&changed).enumerate() {
        assert!(far(large, small) < 1e-4, "adapter {i}: {} apart", far(large, small));
        assert!(far(large, changed) > 1e-3, "adapter {i}: another token in the second piece makes no difference");
    }
    assert!(far(&large[0], &large[1]) > 1e-2 && far(&large[0], &large[2]) > 1e-2, "the adapters have no effect");
}
