//! Products with frozen matrices of every block format, in both directions, against the CPU twins.

use js_sys::{Array, Function, Promise};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use wasm_bindgen_test::{console_log, wasm_bindgen_test};
use weblora::gpu::executable::Arenas;
use weblora::gpu::kernel::COOPERATIVE;
use weblora::gpu::shader::compose;
use weblora::gpu::{Class, Executable, Gpu, GpuOptions, KernelSpec, Plan, Recorder, Store, Tuner, Variant};
use weblora::kernels::matmul::{self, matmul_backward_twin, matmul_twin};
use weblora::kernels::matrix::{Matrix, Part};
use weblora::kernels::samples;
use weblora::quant::{FORMATS, FloatKind, QuantFormat};

/// Rows, outputs, inputs: no multiple of a tile, one block of the widest formats.
const SIZES: (usize, usize, usize) = (17, 12, 256);
/// Sums of a few hundred products of numbers below one in f32.
const ABSOLUTE: f32 = 2e-5;
const RELATIVE: f32 = 2e-5;

/// Deterministic numbers in (-1, 1).
fn noise(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Random codes, with scales of both signs small enough that weights stay near one.
fn stored(format: &QuantFormat, rows: usize, cols: usize) -> Vec<u8> {
    let blocks = rows * cols / format.block;
    let mut bytes: Vec<u8> = noise(1, blocks * format.block_bytes).iter().map(|v| (v.to_bits() >> 7) as u8).collect();
    let mut scales = noise(2, blocks * format.floats.len()).into_iter().map(|v| match format.block {
        1 => v,
        256 => v * 0.0015,
        _ => v * 0.05,
    });
    for block in bytes.chunks_mut(format.block_bytes) {
        for field in format.floats {
            let v = scales.next().expect("a scale for each field");
            match field.kind {
                FloatKind::F32 => block[field.offset..][..4].copy_from_slice(&v.to_le_bytes()),
                FloatKind::F16 => block[field.offset..][..2].copy_from_slice(&half::f16::from_f32(v).to_le_bytes()),
                FloatKind::Bf16 => block[field.offset..][..2].copy_from_slice(&half::bf16::from_f32(v).to_le_bytes()),
            }
        }
    }
    bytes
}

/// Both products of one format: results and twins.
async fn products(gpu: &Gpu, format: &'static QuantFormat) -> [(Vec<f32>, Vec<f32>); 2] {
    let (t, n, k) = SIZES;
    let bytes = stored(format, n, k);
    let packed = format.repack(n, k, &bytes);
    let (x_host, dy_host) = (noise(3, t * k), noise(4, t * n));
    let mut store = Store::new();
    let mut declare = |len: usize| store.declare("test", Class::Io, len).expect("a small tensor");
    let (w, x, y, dy, dx) = (declare(packed.len()), declare(t * k), declare(t * n), declare(t * n), declare(t * k));
    store.allocate(gpu).await.expect("memory");
    store.write(gpu, w, &packed).expect("written");
    store.write(gpu, x, &x_host).expect("written");
    store.write(gpu, dy, &dy_host).expect("written");
    let matrix = Matrix { format, rows: n, cols: k, parts: vec![Part { tensor: w, row_start: 0, rows: n }], members: Vec::new() };
    let tuner = Tuner::for_device(gpu);
    let mut recorder = Recorder::new(&tuner);
    matmul::forward(&mut recorder, "forward", x, t, &matrix, y, false);
    matmul::backward(&mut recorder, "backward", dy, t, &matrix, dx, false);
    let plan = Plan::new(recorder, gpu.plan_limits()).expect("a plan");
    let arenas = Arenas::allocate(gpu, &[&plan]).await.expect("memory");
    let mut executable = Executable::new(gpu, &store, &arenas, plan).await.expect("shaders");
    executable.run(gpu).await.expect("a run");
    let got: [Vec<f32>; 2] = [gpu.read(&store, y).await.expect("read"), gpu.read(&store, dx).await.expect("read")];
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let decoded = wide(&format.decode_vec(&bytes));
    let (mut y_want, mut dx_want) = (vec![0.0; t * n], vec![0.0; t * k]);
    matmul_twin(&wide(&x_host), &decoded, SIZES, &mut y_want, false);
    matmul_backward_twin(&wide(&dy_host), &decoded, SIZES, &mut dx_want, false);
    let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let [y_got, dx_got] = got;
    [(y_got, narrow(&y_want)), (dx_got, narrow(&dx_want))]
}

fn differ(got: &[f32], want: &[f32]) -> bool {
    // Written so that a NaN differs.
    !got.iter().zip(want).all(|(g, w)| (g - w).abs() <= ABSOLUTE + RELATIVE * w.abs())
}

#[wasm_bindgen_test]
async fn products_of_every_format_match_their_twins() {
    let gpu = Gpu::open(&GpuOptions::default()).await.expect("a WebGPU adapter");
    for format in FORMATS {
        let [forward, backward] = products(&gpu, format).await;
        assert!(!differ(&forward.0, &forward.1), "{} forward: {:?}, expected {:?}", format.name, &forward.0[..5], &forward.1[..5]);
        assert!(!differ(&backward.0, &backward.1), "{} backward: {:?}, expected {:?}", format.name, &backward.0[..5], &backward.1[..5]);
        // The comparison can fail.
        assert!(differ(&forward.0[1..], &forward.1) && differ(&[f32::NAN], &[0.0]), "{}: a shifted result passes", format.name);
    }
}

/// Hands shaders to the browser's compiler, without a pipeline: what it has to say about each, or nothing where it takes it or where the
/// adapter lacks the subgroup operations that it needs.
const REFUSALS: &str = r#"
    const adapter = await navigator.gpu.requestAdapter();
    const requiredFeatures = ["subgroups"].filter((feature) => adapter.features.has(feature));
    const device = await adapter.requestDevice({ requiredFeatures });
    const answers = [];
    for (const code of shaders) {
        if (code.startsWith("enable subgroups") && requiredFeatures.length === 0) {
            continue;
        }
        const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
        const errors = messages.filter((message) => message.type === "error");
        answers.push(errors.map((error) => `${error.message}\n${code.split("\n")[error.lineNum - 1]}`).join("\n"));
    }
    device.destroy();
    return answers;
"#;

/// Every adapter here is offered only a part of the variants. Browsers are stricter than naga: barriers must be in uniform control flow, and more
/// words are reserved. Cooperative matrices are none of theirs.
#[wasm_bindgen_test]
async fn the_browser_takes_every_variant() {
    let mut variants = samples::variants();
    variants.retain(|(_, variant)| !variant.flags.contains(&COOPERATIVE));
    let text = |(spec, variant): &(&'static KernelSpec, Variant)| compose(spec, variant, true).expect("a shader");
    let shaders: Array = variants.iter().map(text).chain(["fn main() { oops }".to_owned()]).map(JsValue::from).collect();
    let begun = js_sys::Date::now();
    let refusals = Function::new_with_args("shaders", &format!("return (async () => {{{REFUSALS}}})();"));
    let answers = refusals.call1(&JsValue::NULL, &shaders).expect("a promise").unchecked_into::<Promise>();
    let answers = Array::from(&JsFuture::from(answers).await.expect("answers"));
    console_log!("{} of {} shaders in {:.1} s", answers.length(), shaders.length(), (js_sys::Date::now() - begun) / 1e3);
    let refused: Vec<String> = answers.iter().filter_map(|answer| answer.as_string().filter(|answer| !answer.is_empty())).collect();
    // The last one is a mistake.
    assert!(refused.len() == 1 && refused[0].contains("oops"), "{}", refused.join("\n"));
}
