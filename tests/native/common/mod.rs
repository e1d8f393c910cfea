//! What every test needs: one device per process, runs of recorded kernels, comparison that says where it failed.

pub mod program;

use std::sync::OnceLock;

use weblora::gpu::executable::Arenas;
use weblora::gpu::{Class, Executable, Gpu, GpuOptions, Plan, Recorder, Store, Tensor, Tuner};

/// The device, or `None` (with a printed word) where there is none. `WEBLORA_REQUIRE_ADAPTER` makes that a failure; `WEBLORA_REQUIRE_GPU` a
/// software adapter too, as in the program. `WEBLORA_AS_CARD` takes the kernels of a card with many cores on any adapter.
pub fn gpu() -> Option<&'static Gpu> {
    static GPU: OnceLock<Option<Gpu>> = OnceLock::new();
    let is_set = |name| std::env::var_os(name).is_some();
    let options =
        GpuOptions { refuse_software: is_set("WEBLORA_REQUIRE_GPU"), as_card: is_set("WEBLORA_AS_CARD"), ..GpuOptions::default() };
    GPU.get_or_init(|| match pollster::block_on(Gpu::open(&options)) {
        Ok(gpu) => Some(gpu),
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            let required = ["WEBLORA_REQUIRE_ADAPTER", "WEBLORA_REQUIRE_GPU"].into_iter().find(|name| is_set(name));
            assert!(required.is_none(), "{} is set and there is none: {error}", required.unwrap_or_default());
            None
        }
    })
    .as_ref()
}

/// A device that no other test compiles for, for a test that counts what is compiled.
pub fn own_gpu() -> Option<Gpu> {
    gpu().map(|_| pollster::block_on(Gpu::open(&GpuOptions::default())).expect("another device of the same adapter"))
}

/// Deterministic numbers in (-1, 1): the design's generator is tested elsewhere, this one only fills tensors.
pub fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
        })
        .collect()
}

/// A store whose tensors are filled at declaration; runs one recording on them.
pub struct Bench {
    pub store: Store,
    fills: Vec<(Tensor, Vec<u8>)>,
}

impl Bench {
    pub fn new() -> Self {
        Self { store: Store::new(), fills: Vec::new() }
    }
    /// A persistent tensor with this content.
    pub fn put<T: bytemuck::NoUninit>(&mut self, label: &str, data: &[T]) -> Tensor {
        let tensor = self.store.declare(label, Class::Io, size_of_val(data) / 4).unwrap();
        self.fills.push((tensor, bytemuck::cast_slice(data).to_vec()));
        tensor
    }
    /// Allocates, fills, records with `body`, runs once and reads `outputs`.
    pub fn run(mut self, gpu: &Gpu, tuner: &Tuner, outputs: &[Tensor], body: impl FnOnce(&mut Recorder)) -> Vec<Vec<f32>> {
        pollster::block_on(async {
            self.store.allocate(gpu).await.unwrap();
            for (tensor, bytes) in &self.fills {
                self.store.write(gpu, *tensor, bytes).unwrap();
            }
            let mut recorder = Recorder::new(tuner);
            body(&mut recorder);
            let plan = Plan::new(recorder, gpu.plan_limits()).unwrap();
            let arenas = Arenas::allocate(gpu, &[&plan]).await.unwrap();
            let mut executable = Executable::new(gpu, &self.store, &arenas, plan).await.unwrap();
            executable.run(gpu).await.unwrap();
            let mut results = Vec::new();
            for output in outputs {
                results.push(gpu.read(&self.store, *output).await.unwrap());
            }
            results
        })
    }
}

/// `|got - want| <= absolute + relative * |want|` everywhere, or where it is not.
pub fn close(got: &[f32], want: &[f32], absolute: f32, relative: f32) -> Result<(), String> {
    if got.len() != want.len() {
        return Err(format!("{} values, expected {}", got.len(), want.len()));
    }
    let wrong = |g: f32, w: f32| {
        let error = (g - w).abs();
        error.is_nan() || error > absolute + relative * w.abs()
    };
    let bad = got.iter().zip(want).enumerate().find(|(_, (g, w))| wrong(**g, **w));
    match bad {
        None => Ok(()),
        Some((i, (g, w))) => {
            Err(format!("element {i} is {g}, expected {w} (first five {:?} / {:?})", &got[..got.len().min(5)], &want[..want.len().min(5)]))
        }
    }
}

/// Asserts [`close`], and that the comparison would have seen an error of ten tolerances in any one element.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], absolute: f32, relative: f32) {
    if let Err(problem) = close(got, want, absolute, relative) {
        panic!("{what}: {problem}");
    }
    if let Some(last) = want.last() {
        let mut wrong = got.to_vec();
        let at = wrong.len() - 1;
        wrong[at] = last + 10.0 * (absolute + relative * last.abs()) + f32::EPSILON;
        assert!(close(&wrong, want, absolute, relative).is_err(), "{what}: the comparison cannot fail");
    }
}

/// Central differences of `f` (f64) against `gradient` at every `stride`-th element.
#[track_caller]
pub fn gradcheck(what: &str, x: &[f64], gradient: &[f64], stride: usize, mut f: impl FnMut(&[f64]) -> f64) {
    let mut point = x.to_vec();
    for i in (0..x.len()).step_by(stride.max(1)) {
        let step = 1e-5 * (1.0 + x[i].abs());
        point[i] = x[i] + step;
        let up = f(&point);
        point[i] = x[i] - step;
        let down = f(&point);
        point[i] = x[i];
        let numeric = (up - down) / (2.0 * step);
        let error = (numeric - gradient[i]).abs();
        assert!(error <= 1e-7 + 1e-5 * numeric.abs(), "{what}: d/dx[{i}] is {}, finite differences say {numeric}", gradient[i]);
    }
}

/// Rows of `width` values with `gap` times `fill` after each.
pub fn spread(values: &[f32], width: usize, gap: usize, fill: f32) -> Vec<f32> {
    values.chunks(width).flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(fill, gap))).collect()
}
