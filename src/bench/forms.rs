//! Every form of the matrix products beside each other, at shapes of two models: what the tuner chooses from.

use super::probe::Probe;
use super::products::{Case, check, record};
use super::record::{MatmulRecord, Record};
use super::scene::Scene;
use super::setup::Bench;
use crate::Result;
use crate::gpu::{Recorder, Tuner};
use crate::kernels::matmul::{self, Direction, Rows};
use crate::quant::{F32, Q4_0, QuantFormat};

/// Rows, outputs, inputs: gate and up of SmolLM2-135M, its down projection of few rows, and a gate of Llama-3.2-1B.
const SHAPES: [(usize, usize, usize); 3] = [(512, 3072, 576), (128, 576, 1536), (2048, 8192, 2048)];

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    let shapes = if bench.options.quick { &SHAPES[..2] } else { &SHAPES[..] };
    let formats: [&'static QuantFormat; 2] = [&F32, &Q4_0];
    for &(t, n, k) in shapes {
        for format in formats {
            for backward in [false, true] {
                each_form(bench, &Case { backward, format, t, n, k }).await?;
            }
        }
    }
    Ok(())
}

async fn each_form(bench: &mut Bench<'_>, case: &Case) -> Result<()> {
    let Case { backward, format, t, n, k } = *case;
    let direction = if backward { Direction::Backward } else { Direction::Forward };
    let (inputs, outputs) = if backward { (n, k) } else { (k, n) };
    let mut scene = Scene::default();
    let w = scene.matrix(format, n, k)?;
    let x = scene.noise("x", t * inputs)?;
    let y = scene.zeros("y", t * outputs)?;
    let mut store = scene.allocate(bench.gpu).await?;
    let part = w.parts[0];
    let none = Tuner::assuming(bench.gpu.facts().clone());
    let forms = matmul::forms(&Recorder::new(&none), direction, t, &w, &part, false);
    for form in forms {
        let rows = |tensor, stride| Rows { tensor, stride };
        let body = |rec: &mut Recorder| {
            if form.spec.name == matmul::MATMUL_MIXED.name {
                // With the scales of its rows.
                return record(rec, backward, t, &w, x, y);
            }
            let what = matmul::product("form", direction, (rows(x, inputs), rows(y, outputs)), t, &w, &part);
            rec.dispatch(form.spec, form.variant.clone(), form.grid, what);
        };
        let mut probe = Probe::new(bench.gpu, &none, store, &body).await?;
        probe.seconds(bench.gpu).await?;
        let error = if w.parts.len() == 1 {
            check(case, &w, &bench.gpu.read::<f32>(&probe.store, y).await?, bench.gpu.facts().mixed)?
        } else {
            0.0
        };
        probe.repeat(bench.gpu, &none, &body).await?;
        let rounds = bench.peak.rounds(bench.gpu, &mut probe, 3).await?;
        (bench.report)(&Record::Matmul(MatmulRecord {
            direction: case.direction(),
            format: format.name,
            t,
            n: part.rows,
            k,
            ms: rounds.seconds * 1e3,
            gflops: probe.flops as f64 / rounds.seconds / 1e9,
            of_peak: rounds.of_peak,
            kernel: form.key(),
            error,
        }))?;
        store = probe.store;
    }
    Ok(())
}
