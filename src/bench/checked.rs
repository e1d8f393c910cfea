//! One small product whose every result is known: shows that a device computes, before a model is loaded.

use super::scene::{Scene, blocks, noise};
use crate::gpu::executable::Arenas;
use crate::gpu::{Class, Executable, Gpu, Plan, Recorder, Tuner, clock};
use crate::kernels::matmul::{self, Direction, matmul_backward_twin, matmul_twin};
use crate::kernels::matrix::{Matrix, Part};
use crate::quant::{Q4_0, QuantFormat};
use crate::{Error, Result};

/// Rows, outputs and inputs: no whole tiles of rows, whole blocks of weights.
const SIZES: (usize, usize, usize) = (33, 64, 128);
const FORMAT: &QuantFormat = &Q4_0;

/// A product that came out right.
#[derive(Debug, Clone, serde::Serialize)]
pub struct CheckedProduct {
    /// Format of the weights.
    pub format: &'static str,
    /// Rows.
    pub rows: usize,
    /// Outputs of a row.
    pub outputs: usize,
    /// Inputs of a row.
    pub inputs: usize,
    /// Seconds from the first buffer to the last result, with compiling.
    pub seconds: f64,
}

/// Multiplies whole numbers by 4-bit weights through recording, plan and kernel as training does. Sums of small whole numbers are exact in
/// f32 in every order, so that every result must be equal to the CPU's.
///
/// # Errors
/// [`Error::Gpu`] where a result is wrong; whatever the device fails with.
pub async fn checked_product(gpu: &Gpu) -> Result<CheckedProduct> {
    let began = clock::now();
    let (rows, outputs, inputs) = SIZES;
    let x: Vec<f32> = (0..rows * inputs).map(|i| (i * 7 % 5) as f32 - 2.0).collect();
    let bytes = weights(outputs * inputs);
    let mut scene = Scene::default();
    let tensor = scene.store.declare("weights", Class::Weights, FORMAT.packed_words(outputs, inputs))?;
    let part = Part { tensor, row_start: 0, rows: outputs };
    let w = Matrix { format: FORMAT, rows: outputs, cols: inputs, parts: vec![part], members: Vec::new() };
    let x_gpu = scene.words("x", x.iter().map(|v| v.to_bits()).collect())?;
    let y_gpu = scene.zeros("y", rows * outputs)?;
    let store = scene.allocate(gpu).await?;
    store.write(gpu, tensor, &FORMAT.repack(outputs, inputs, &bytes))?;
    let tuner = Tuner::for_device(gpu);
    let mut recorder = Recorder::new(&tuner);
    matmul::forward(&mut recorder, "checked product", x_gpu, rows, &w, y_gpu, false);
    let plan = Plan::new(recorder, gpu.plan_limits())?;
    let arenas = Arenas::allocate(gpu, &[&plan]).await?;
    Executable::new(gpu, &store, &arenas, plan).await?.run(gpu).await?;
    let got = gpu.read::<f32>(&store, y_gpu).await?;
    let mut want = vec![0.0; rows * outputs];
    matmul_twin(&x, &FORMAT.decode_vec(&bytes), SIZES, &mut want, false);
    compare(&got, &want)?;
    let seconds = (clock::now() - began).as_secs_f64();
    Ok(CheckedProduct { format: FORMAT.name, rows, outputs, inputs, seconds })
}

/// Rows, outputs and inputs of the products of [`checked_mixed`]: no whole tiles, and inputs that are dealt to parts of unequal size, forward and
/// back.
const MIXED_SIZES: [(usize, usize, usize); 3] = [(150, 200, 288), (140, 96, 576), (140, 576, 96)];
/// Rounding both operands to f16 moves a sum of random signs by less than this share of the sum of the magnitudes.
const MIXED_TOLERANCE: f64 = 1e-3;

/// Multiplies rows of very different sizes, forward and back, in mixed precision, and holds the results to those in f64: matrix units of a driver that
/// gets them wrong must not train anything.
///
/// # Errors
/// [`Error::Gpu`] where a result is further off than rounding the operands to f16 explains; whatever the device fails with.
pub async fn checked_mixed(gpu: &Gpu) -> Result<()> {
    for sizes in MIXED_SIZES {
        for direction in [Direction::Forward, Direction::Backward] {
            check_mixed(gpu, direction, sizes).await?;
        }
    }
    Ok(())
}

async fn check_mixed(gpu: &Gpu, direction: Direction, (t, n, k): (usize, usize, usize)) -> Result<()> {
    let (inputs, outputs) = if direction == Direction::Forward { (k, n) } else { (n, k) };
    let mut scene = Scene::default();
    let w = scene.matrix(FORMAT, n, k)?;
    let x: Vec<f32> = noise("x", t * inputs).iter().enumerate().map(|(i, v)| v * row_size(i / inputs)).collect();
    let x_gpu = scene.words("mixed x", x.iter().map(|v| v.to_bits()).collect())?;
    let y_gpu = scene.zeros("y", t * outputs)?;
    let store = scene.allocate(gpu).await?;
    let tuner = Tuner::for_device(gpu);
    let mut recorder = Recorder::new(&tuner);
    match direction {
        Direction::Forward => matmul::forward(&mut recorder, "checked product", x_gpu, t, &w, y_gpu, false),
        Direction::Backward => matmul::backward(&mut recorder, "checked product", x_gpu, t, &w, y_gpu, false),
    }
    let plan = Plan::new(recorder, gpu.plan_limits())?;
    let arenas = Arenas::allocate(gpu, &[&plan]).await?;
    Executable::new(gpu, &store, &arenas, plan).await?.run(gpu).await?;
    let got = gpu.read::<f32>(&store, y_gpu).await?;
    let weights: Vec<f64> = w.parts.iter().flat_map(|part| FORMAT.decode_vec(&blocks(&w, part))).map(f64::from).collect();
    let twin = if direction == Direction::Forward { matmul_twin } else { matmul_backward_twin };
    let wide: Vec<f64> = x.iter().map(|v| f64::from(*v)).collect();
    let size = |values: &[f64]| values.iter().map(|v| v.abs()).collect::<Vec<f64>>();
    let (mut want, mut sizes) = (vec![0.0; t * outputs], vec![0.0; t * outputs]);
    twin(&wide, &weights, (t, n, k), &mut want, false);
    twin(&size(&wide), &size(&weights), (t, n, k), &mut sizes, false);
    for (i, ((got, want), size)) in got.iter().zip(&want).zip(&sizes).enumerate() {
        let off = (f64::from(*got) - want).abs() / size.max(f64::MIN_POSITIVE);
        if off.partial_cmp(&MIXED_TOLERANCE).is_none_or(|o| o.is_gt()) {
            let what = format!("the check of mixed precision ({direction:?}, {t} rows); leave out --precision mixed on this adapter");
            return Err(Error::Gpu { what, message: format!("result {i} is {got}, expected {want}") });
        }
    }
    Ok(())
}

/// What a row is multiplied with: from 1e-9, where f16 has only zero, to 1e9, beyond its largest number.
fn row_size(row: usize) -> f32 {
    [1.0, 1e-9, 1e9, 3e-5][row % 4]
}

/// Weights from -8 to 7. Every block has a -8, so that its scale is 1 and nothing is rounded.
fn weights(count: usize) -> Vec<u8> {
    let values: Vec<f32> = (0..count).map(|i| if i % FORMAT.block == 0 { -8.0 } else { (i * 11 % 16) as f32 - 8.0 }).collect();
    let mut bytes = Vec::new();
    if let Some(encode) = FORMAT.encode {
        encode(&values, &mut bytes);
    }
    bytes
}

fn compare(got: &[f32], want: &[f32]) -> Result<()> {
    let wrong = |message| Error::Gpu { what: "the checked product".into(), message };
    if got.len() != want.len() {
        return Err(wrong(format!("{} results, expected {}", got.len(), want.len())));
    }
    match got.iter().zip(want).position(|(got, want)| got != want) {
        None => Ok(()),
        Some(i) => Err(wrong(format!("result {i} is {}, expected {}", got[i], want[i]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_whole_numbers_of_both_signs() {
        let values = FORMAT.decode_vec(&weights(256));
        assert!(values.iter().all(|v| v.fract() == 0.0 && (-8.0..8.0).contains(v)));
        assert!(values.contains(&7.0) && values.contains(&-8.0));
    }

    #[test]
    fn one_wrong_result_is_found() {
        let want = [1.0, -2.0, 3.0];
        assert!(compare(&want, &want).is_ok());
        for wrong in [&[1.0, -2.0, 3.000_000_2][..], &[f32::NAN, -2.0, 3.0], &[1.0, -2.0]] {
            assert!(compare(wrong, &want).is_err(), "{wrong:?}");
        }
    }
}
