//! How much of an adapter a merge keeps in each weight format: on synthetic weights always, on the real model on request.
//!
//! `docs/merge.md` has the table, and says how to make it again.

use std::path::PathBuf;

use weblora::adapters::{Projection, Site};
use weblora::analysis::median::median;
use weblora::analysis::{Factors, spectrum};
use weblora::export::folder::Folder;
use weblora::export::merged::delta_rows;
use weblora::export::peft::PeftAdapter;
use weblora::export::retention::{Retention, encode};
use weblora::formats::ModelFile;
use weblora::quant::{self, QuantFormat};
use weblora::rng::fill_uniform;

const FORMATS: [&str; 5] = ["q4_0", "q4_1", "nf4", "q8_0", "f16"];
/// Sizes of the synthetic updates, `‖Δ‖ / ‖W‖`.
const SIZES: [f64; 3] = [0.005, 0.01, 0.03];
const RANK: usize = 8;

fn through(format: &'static QuantFormat, weights: &[f32], cols: usize) -> Vec<f32> {
    format.decode_vec(&encode("test", weights, cols, format).unwrap())
}

/// The naive merge into a base of that format: `D̂ = Q(W + Δ) - Q(W)` for a W that lies on the format's grid.
fn on_grid(format: &'static QuantFormat, weights: &[f32], delta: &[f32], cols: usize) -> Retention {
    let base = through(format, weights, cols);
    let merged: Vec<f32> = base.iter().zip(delta).map(|(w, d)| w + d).collect();
    let mut sums = Retention::default();
    sums.add(&base, delta, &through(format, &base, cols), &through(format, &merged, cols));
    sums
}

/// A random update of rank 8, `‖Δ‖ = size · ‖W‖`.
fn synthetic(key: &str, weights: &[f32], cols: usize, size: f64) -> Vec<f32> {
    let rows = weights.len() / cols;
    let (a, b) = (fill_uniform(&format!("{key}.a"), RANK * cols, 1.0), fill_uniform(&format!("{key}.b"), rows * RANK, 1.0));
    let norm = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
    let unit = spectrum(&Factors::new(key, &a, &b, RANK, 1.0).unwrap()).frobenius;
    delta_rows(&Factors::new(key, &a, &b, RANK, size * norm / unit).unwrap(), 0..rows)
}

/// What numpy measured once on heavy-tailed random weights (t with 6 degrees, sd 0.02), at 1 %: 4-bit formats keep next to nothing, and what
/// they do keep drowns in noise; q8_0 keeps most; f16 all.
#[test]
fn four_bits_lose_a_small_update_and_eight_keep_most_of_it() {
    let (rows, cols) = (256, 512);
    let (x, y) = (fill_uniform("x", rows * cols, 1.0), fill_uniform("y", rows * cols, 1.0));
    // A bell with heavy tails from two uniform draws.
    let weights: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 0.02 * x * (1.0 / (1.05 - y.abs())).sqrt()).collect();
    let delta = synthetic("delta", &weights, cols, 0.01);
    let of = |name: &str| on_grid(quant::by_name(name).unwrap(), &weights, &delta, cols);
    for four_bits in ["q4_0", "q4_1", "nf4"] {
        let kept = of(four_bits);
        assert!((kept.relative_size() - 0.01).abs() < 5e-4, "{}", kept.relative_size());
        assert!(kept.retention() < 0.2 && kept.relative_error() > 0.9, "{four_bits}: {} {}", kept.retention(), kept.relative_error());
    }
    let (eight, half) = (of("q8_0"), of("f16"));
    assert!((0.8..1.05).contains(&eight.retention()) && eight.relative_error() < 0.8, "{} {}", eight.retention(), eight.relative_error());
    assert!((half.retention() - 1.0).abs() < 1e-3 && half.relative_error() < 0.05, "{} {}", half.retention(), half.relative_error());
    // A base that is kept whole loses nothing, an update of zero has nothing to lose, and a lost one is 0.
    let f32_of = of("f32");
    assert!((f32_of.retention() - 1.0).abs() < 1e-6 && f32_of.relative_error() < 1e-4);
    assert_eq!((Retention::default().retention(), Retention::default().relative_error()), (1.0, 0.0));
    let mut lost = Retention::default();
    lost.add(&weights, &delta, &weights, &weights);
    assert_eq!((lost.retention(), lost.relative_error()), (0.0, 1.0));
}

/// The study of `docs/merge.md`: medians over the layers of each projection, as Markdown on stderr.
#[test]
#[ignore = "a study of minutes: WEBLORA_SMOLLM2=model.gguf, and WEBLORA_ADAPTER=folder for a trained adapter"]
fn study_on_the_real_model() {
    let path = PathBuf::from(std::env::var_os("WEBLORA_SMOLLM2").expect("WEBLORA_SMOLLM2 names the model"));
    let model = pollster::block_on(ModelFile::open_path(&path)).unwrap();
    let trained = std::env::var_os("WEBLORA_ADAPTER").map(PathBuf::from).map(|folder| {
        let read = |file: &str| std::fs::read(folder.join(file)).unwrap();
        let (config, weights) = (read("adapter_config.json"), read("adapter_model.safetensors"));
        PeftAdapter::read(Folder { name: "adapter", config: &config, weights: &weights, note: None, chain: None }, &model.config).unwrap()
    });
    let mut cases: Vec<String> = SIZES.iter().map(|size| format!("{} %", 100.0 * size)).collect();
    cases.extend(trained.iter().map(|_| "trained".to_owned()));
    // By case, format and projection: one figure per layer.
    let mut found = vec![vec![vec![Vec::<Retention>::new(); 7]; FORMATS.len()]; cases.len()];
    for site in Site::all(&model.config) {
        let weights = pollster::block_on(model.read_f32(&format!("{}.weight", site.module()))).unwrap();
        let (out, cols) = site.projection.shape(&model.config);
        for (case, found) in found.iter_mut().enumerate() {
            let delta = match SIZES.get(case) {
                Some(size) => synthetic(&site.to_string(), &weights, cols, *size),
                None => {
                    let adapter = trained.as_ref().unwrap();
                    let Some(own) = adapter.sites.iter().find(|s| s.site == site) else { continue };
                    delta_rows(&own.factors(adapter.rslora).unwrap(), 0..out)
                }
            };
            for (format, found) in FORMATS.iter().zip(found) {
                found[site.projection as usize].push(on_grid(quant::by_name(format).unwrap(), &weights, &delta, cols));
            }
        }
    }
    let names: Vec<&str> = Projection::ALL.iter().map(|p| p.short_name()).collect();
    eprintln!("| ‖Δ‖/‖W‖ | format | {} | all: retention / error |", names.join(" | "));
    eprintln!("|---|---|{}", "---|".repeat(8));
    for (case, found) in cases.iter().zip(&found) {
        for (format, found) in FORMATS.iter().zip(found) {
            let of = |own: &Vec<Retention>| median(own.iter().map(Retention::retention)).map_or("-".into(), |m| format!("{m:.3}"));
            let cells: Vec<String> = found.iter().map(of).collect();
            let mut all = Retention::default();
            found.iter().flatten().for_each(|r| all.merge(r));
            let (kept, error) = (all.retention(), all.relative_error());
            eprintln!("| {case} | {format} | {} | {kept:.3} / {error:.2} |", cells.join(" | "));
        }
    }
}
