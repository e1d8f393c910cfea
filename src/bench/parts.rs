//! The other kernels of a block and of the head, at the shapes of SmolLM2-135M.

use super::probe::Probe;
use super::record::{KernelRecord, Record};
use super::scene::Scene;
use super::setup::Bench;
use crate::Result;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::attention::{self, AttentionShape, Document, documents};
use crate::kernels::cross_entropy::{Targets, cross_entropy};
use crate::kernels::lowrank::{self, LowrankSite, LowrankTables, Segment, SiteRow};
use crate::kernels::matmul::Rows;
use crate::kernels::{elementwise, norm};

/// Rows, width and feed-forward width of SmolLM2-135M at 4 × 128 tokens.
const ROWS: usize = 512;
const WIDTH: usize = 576;
const WIDE: usize = 1536;
/// Rows of a chunk of the head, and its vocabulary.
const HEAD_ROWS: usize = 128;
const VOCAB: usize = 49_152;

type Body<'a> = &'a dyn Fn(&mut Recorder);

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    // Plain LoRA, and a chain: its last link beside frozen ones.
    for (rank, trained) in [(8, 8), (40, 8)] {
        for (k, n) in [(WIDTH, WIDE), (WIDE, WIDTH)] {
            low_rank(bench, (rank, trained), k, n).await?;
        }
    }
    for lengths in [&[128; 4][..], &[512]] {
        attention(bench, lengths).await?;
    }
    rmsnorm(bench).await?;
    swiglu(bench).await?;
    head_loss(bench).await
}

async fn measure(bench: &mut Bench<'_>, name: &'static str, shape: &str, scene: Scene, body: Body<'_>) -> Result<()> {
    measure_work(bench, name, shape, scene, None, body).await
}

/// `flops`: operations of `body` where the recording only knows an upper bound.
async fn measure_work(
    bench: &mut Bench<'_>,
    name: &'static str,
    shape: &str,
    scene: Scene,
    flops: Option<u64>,
    body: Body<'_>,
) -> Result<()> {
    bench.tune(body).await?;
    let store = scene.allocate(bench.gpu).await?;
    let mut probe = Probe::new(bench.gpu, bench.tuner, store, body).await?;
    probe.flops = flops.unwrap_or(probe.flops);
    probe.seconds(bench.gpu).await?;
    probe.repeat(bench.gpu, bench.tuner, body).await?;
    let count = bench.rounds();
    let rounds = bench.peak.rounds(bench.gpu, &mut probe, count).await?;
    (bench.report)(&Record::Kernel(KernelRecord {
        name,
        shape: shape.into(),
        ms: rounds.seconds * 1e3,
        gflops: probe.flops as f64 / rounds.seconds / 1e9,
        of_peak: rounds.of_peak,
        kernels: probe.kernels,
    }))
}

fn words<T: bytemuck::NoUninit>(value: &T) -> Vec<u32> {
    bytemuck::pod_collect_to_vec(bytemuck::bytes_of(value))
}

/// One job's adapter of rank `r` beside a layer `[n, k]`, all rows; the first `trained` ranks have gradients.
fn low_rank_scene((r, trained): (usize, usize), k: usize, n: usize) -> Result<(Scene, LowrankSite, [Tensor; 6])> {
    let mut scene = Scene::default();
    let rank = r as u16;
    let (b_offset, grad_b_offset, train_end, scale) = ((r * k) as u32, (trained * k) as u32, trained as u32, 2.0);
    let row = SiteRow { rank, b_offset, grad_b_offset, train_end, scale, ..SiteRow::default() };
    let tables = LowrankTables {
        row_job: scene.words("row_job", vec![0; ROWS])?,
        jobs: scene.words("jobs", words(&Segment::new(0..ROWS)))?,
        sites: scene.words("sites", words(&row))?,
        adapter: scene.noise("adapter", r * (k + n))?,
        grads: scene.zeros("grads", trained * (k + n))?,
    };
    let site = LowrankSite {
        rows: ROWS,
        range: None,
        k,
        n,
        r_max: r,
        t_max: trained,
        site: 0,
        dropout_key: 0,
        jobs: 1,
        dropout: false,
        half: false,
        tables,
    };
    let x = scene.noise("x", ROWS * k)?;
    let dy = scene.noise("dy", ROWS * n)?;
    let h = scene.noise("h", ROWS * r.next_multiple_of(4))?;
    let tensors = [x, dy, h, scene.zeros("y", ROWS * n)?, scene.zeros("dh", ROWS * r.next_multiple_of(4))?, scene.zeros("dx", ROWS * k)?];
    Ok((scene, site, tensors))
}

async fn low_rank(bench: &mut Bench<'_>, ranks: (usize, usize), k: usize, n: usize) -> Result<()> {
    let (r, trained) = ranks;
    let frozen = if trained < r { format!(", {trained} trained") } else { String::new() };
    let shape = format!("t {ROWS}, k {k}, n {n}, r {r}{frozen}");
    let (scene, site, [x, _, h, y, _, _]) = low_rank_scene(ranks, k, n)?;
    measure(bench, "lowrank forward", &shape, scene, &|rec| lowrank::forward(rec, "lowrank", &site, x, h, y)).await?;
    let (scene, site, [x, dy, h, _, dh, dx]) = low_rank_scene(ranks, k, n)?;
    measure(bench, "lowrank backward", &shape, scene, &|rec| lowrank::backward(rec, "lowrank", &site, x, dy, h, dh, Some(dx))).await
}

async fn attention(bench: &mut Bench<'_>, lengths: &[usize]) -> Result<()> {
    let shape = AttentionShape { rows: ROWS as u32, heads: 9, kv_heads: 3, head_dim: 64, window: None };
    let text = format!("{} x {}, 9 heads on 3, width 64", lengths.len(), lengths[0]);
    let (wide, narrow) = (ROWS * 9 * 64, ROWS * 3 * 64);
    // A multiply-add per visible pair, head, element of a head and product: two products forward, three for dq, four for dk and dv.
    let product = 2 * lengths.iter().map(|n| n * (n + 1) / 2).sum::<usize>() * 9 * 64;
    for backward in [false, true] {
        let mut scene = Scene::default();
        let [q, d_o] = [scene.noise("q", wide)?, scene.noise("do", wide)?];
        let [k, v] = [scene.noise("k", narrow)?, scene.noise("v", narrow)?];
        let documents = scene.words("documents", documents::table(&Document::packed(lengths)))?;
        let [o, lse] = [scene.noise("o", wide)?, scene.noise("lse", ROWS * 9)?];
        if backward {
            let d_q = scene.zeros("dq", wide)?;
            let [d_k, d_v] = [scene.zeros("dk", narrow)?, scene.zeros("dv", narrow)?];
            let body = |rec: &mut Recorder| attention::backward(rec, "attention", &shape, q, k, v, documents, o, lse, d_o, d_q, d_k, d_v);
            measure_work(bench, "attention backward", &text, scene, Some(7 * product as u64), &body).await?;
        } else {
            let body = |rec: &mut Recorder| attention::forward(rec, "attention", &shape, q, k, v, documents, o, lse);
            measure_work(bench, "attention forward", &text, scene, Some(2 * product as u64), &body).await?;
        }
    }
    Ok(())
}

async fn rmsnorm(bench: &mut Bench<'_>) -> Result<()> {
    let text = format!("t {ROWS}, d {WIDTH}");
    let tensors = |scene: &mut Scene| -> Result<[Tensor; 5]> {
        let [x, w] = [scene.noise("x", ROWS * WIDTH)?, scene.noise("w", WIDTH)?];
        Ok([x, w, scene.zeros("y", ROWS * WIDTH)?, scene.zeros("rstd", ROWS)?, scene.noise("dy", ROWS * WIDTH)?])
    };
    let mut scene = Scene::default();
    let [x, w, y, rstd, _] = tensors(&mut scene)?;
    measure(bench, "rmsnorm forward", &text, scene, &|rec| norm::forward(rec, "norm", x, w, y, rstd, 1e-5)).await?;
    let mut scene = Scene::default();
    let [x, w, dx, rstd, dy] = tensors(&mut scene)?;
    measure(bench, "rmsnorm backward", &text, scene, &|rec| norm::backward(rec, "norm", x, w, rstd, dy, dx, false)).await
}

async fn swiglu(bench: &mut Bench<'_>) -> Result<()> {
    let text = format!("t {ROWS}, f {WIDE}");
    let mut scene = Scene::default();
    let [gate, up] = [scene.noise("gate", ROWS * WIDE)?, scene.noise("up", ROWS * WIDE)?];
    let a = scene.zeros("a", ROWS * WIDE)?;
    measure(bench, "swiglu forward", &text, scene, &|rec| elementwise::swiglu(rec, "swiglu", gate, up, a)).await?;
    let mut scene = Scene::default();
    let [gate, up] = [scene.zeros("gate", ROWS * WIDE)?, scene.zeros("up", ROWS * WIDE)?];
    let da = scene.noise("da", ROWS * WIDE)?;
    measure(bench, "swiglu backward", &text, scene, &|rec| elementwise::swiglu_backward(rec, "swiglu", gate, up, da)).await
}

async fn head_loss(bench: &mut Bench<'_>) -> Result<()> {
    let mut scene = Scene::default();
    let targets = Targets {
        ids: scene.words("targets", vec![1; HEAD_ROWS])?,
        weight: scene.words("weight", vec![1f32.to_bits(); HEAD_ROWS])?,
        loss: scene.zeros("loss", HEAD_ROWS)?,
    };
    let logits = Rows { tensor: scene.zeros("logits", HEAD_ROWS * VOCAB)?, stride: VOCAB };
    let text = format!("t {HEAD_ROWS}, v {VOCAB}");
    let body = |rec: &mut Recorder| cross_entropy(rec, "loss", targets, logits, VOCAB, (0, HEAD_ROWS), true);
    measure(bench, "cross-entropy and gradient", &text, scene, &body).await
}
