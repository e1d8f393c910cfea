//! Every kernel in every variant that some adapter would be offered, at one small shape: what `weblora shaders` prints and what the test
//! of the WGSL validates.

use super::attention::{self, AttentionShape, documents};
use super::cross_entropy::{self, Targets};
use super::lowrank::{self, LowrankSiblings, LowrankSite, LowrankTables};
use super::matrix::{Matrix, Part};
use super::moe::{Combine, GateUp, Moe, MoeShape, Routed, RouterRow, Stats};
use super::multilora::{ModuleGrid, ModuleRow, Modules};
use super::optimizer::{self, Block, Hyper, Page, State};
use super::rope::{Heads, Turn};
use super::{elementwise, embed, matmul, norm, peak, preference, rope, rows};
use crate::gpu::device::Facts;
use crate::gpu::dispatch::Command;
use crate::gpu::{Class, KernelSpec, Recorder, Store, Tensor, Tuner, Variant};
use crate::quant::{FORMATS, Q4_1};

/// Kernels and variants, each pair once.
pub fn variants() -> Vec<(&'static KernelSpec, Variant)> {
    let facts = |is_cpu: bool, size: u32| Facts {
        name: "sample".into(),
        driver: String::new(),
        backend: String::new(),
        is_cpu,
        is_discrete: !is_cpu,
        subgroups: true,
        subgroup_sizes: (size, size),
        timestamps: false,
        mixed: false,
        max_binding: 128 << 20,
    };
    let mut found: Vec<(&'static KernelSpec, Variant)> = Vec::new();
    let mixed = Facts { mixed: true, ..facts(false, 32) };
    for facts in [None, Some(facts(false, 32)), Some(mixed), Some(facts(true, 8)), Some(facts(true, 4))] {
        let tuner = facts.map_or(Tuner::none(), Tuner::assuming);
        let mut recorder = Recorder::new(&tuner);
        record_all(&mut recorder);
        let recorded = recorder.commands().iter().filter_map(|c| if let Command::Dispatch { run, .. } = c { Some(run) } else { None });
        let offered = recorder.untuned().iter().flat_map(|u| &u.candidates);
        for candidate in recorded.chain(offered) {
            if !found.iter().any(|(spec, variant)| spec.name == candidate.spec.name && *variant == candidate.variant) {
                found.push((candidate.spec, candidate.variant.clone()));
            }
        }
    }
    found
}

/// A persistent tensor that is never allocated. Every call makes another buffer, so that nothing overlaps.
fn tensor(store: &mut Store, len: usize) -> Tensor {
    // A small constant length cannot exceed the addressing limit.
    store.declare("sample", Class::Io, len).unwrap_or(Tensor { space: crate::gpu::store::Space::Persistent, index: 0, offset: 0, len: 0 })
}

fn record_all(rec: &mut Recorder) {
    let store = &mut Store::new();
    for t in [64, 4] {
        record_matrices(rec, store, t);
    }
    record_adapters(rec, store);
    record_modules(rec, store);
    record_experts(rec, store);
    record_attention(rec, store);
    record_small(rec, store);
}

/// Products and lookups for every format.
fn record_matrices(rec: &mut Recorder, store: &mut Store, t: usize) {
    for format in FORMATS {
        let (n, k) = (64, 256);
        let part = Part { tensor: tensor(store, format.packed_words(n, k)), row_start: 0, rows: n };
        let matrix = Matrix { format, rows: n, cols: k, parts: vec![part], members: Vec::new() };
        let (x, y, tokens) = (tensor(store, t * k), tensor(store, t * n), tensor(store, t));
        matmul::forward(rec, "sample", x, t, &matrix, y, false);
        matmul::backward(rec, "sample", y, t, &matrix, x, true);
        embed::gather(rec, "sample", tokens, &matrix, x);
    }
    // How members lie in a matrix has nothing to do with its format.
    let (format, n, k) = (&Q4_1, 192, 256);
    let part = Part { tensor: tensor(store, format.packed_words(n, k)), row_start: 0, rows: n };
    let matrix = Matrix { format, rows: n, cols: k, parts: vec![part], members: vec![64; 3] };
    let (x, y) = (tensor(store, t * k), tensor(store, matrix.output_words(t)));
    matmul::forward(rec, "sample", x, t, &matrix, y, false);
    matmul::backward(rec, "sample", y, t, &matrix, x, false);
    // So many inputs for few outputs are dealt to several workgroups where there are many.
    let (n, k) = (64, 1024);
    for (rows, cols) in [(n, k), (k, n)] {
        let part = Part { tensor: tensor(store, format.packed_words(rows, cols)), row_start: 0, rows };
        let matrix = Matrix { format, rows, cols, parts: vec![part], members: Vec::new() };
        let (x, y) = (tensor(store, t * cols), tensor(store, t * rows));
        matmul::forward(rec, "sample", x, t, &matrix, y, false);
        matmul::backward(rec, "sample", y, t, &matrix, x, true);
    }
}

fn record_adapters(rec: &mut Recorder, store: &mut Store) {
    let (t, k) = (64, 64);
    for (r_max, dropout, half, n) in [(8, false, false, 96), (16, true, false, 96), (16, false, true, 96), (16, true, true, 98)] {
        let tables = LowrankTables {
            row_job: tensor(store, t),
            jobs: tensor(store, 8),
            sites: tensor(store, 8),
            adapter: tensor(store, r_max * (k + n)),
            grads: tensor(store, r_max * (k + n)),
        };
        let site = LowrankSite { rows: t, range: None, k, n, r_max, t_max: r_max, site: 0, dropout_key: 0, jobs: 1, dropout, half, tables };
        let (x, y, dx) = (tensor(store, t * k), tensor(store, t * n), tensor(store, t * k));
        let (h, dh) = (tensor(store, t * r_max), tensor(store, t * r_max));
        lowrank::forward(rec, "sample", &site, x, h, y);
        lowrank::backward(rec, "sample", &site, x, y, h, dh, Some(dx));
        let siblings = LowrankSiblings::new(&[(site, 0), (LowrankSite { site: 1, ..site }, t * n)]);
        let (y2, h2, dh2) = (tensor(store, 2 * t * n), tensor(store, 2 * t * r_max), tensor(store, 2 * t * r_max));
        siblings.forward(rec, "sample", x, h2, y2);
        siblings.backward(rec, "sample", x, y2, h2, dh2, Some(dx));
        // The first rows of a larger batch.
        let site = LowrankSite { rows: 2 * t, ..site }.of_rows(0..t);
        let alone = LowrankSiblings::alone(&site);
        let siblings = LowrankSiblings::new(&[(site, 0), (LowrankSite { site: 1, ..site }, t * n)]);
        for (layers, y, h, dh) in [(alone, y, h, dh), (siblings, y2, h2, dh2)] {
            let carry = layers.new_carry(rec, "sample");
            let layers = layers.carrying(carry);
            layers.forward(rec, "sample", x, h, y);
            layers.backward(rec, "sample", x, y, h, dh, Some(dx));
        }
    }
}

fn record_modules(rec: &mut Recorder, store: &mut Store) {
    let (table, hyper) = (tensor(store, size_of::<ModuleRow>() / 4), tensor(store, size_of::<Hyper>() / 4));
    let (values, grads) = (tensor(store, 4096), tensor(store, 4096));
    for scalar in [false, true] {
        let modules = Modules { table, first: 0, grid: ModuleGrid { rows: 1, outputs: 96, modules: 3 }, scalar };
        modules.expand(rec, values);
        modules.gradient(rec, values, grads, hyper);
    }
}

fn record_experts(rec: &mut Recorder, store: &mut Store) {
    let (t, segments, experts, choices) = (64, 8, 8, 2);
    let shape = MoeShape { rows: t, jobs: 1, segments, choices, experts, layers: 1, layer_probs: 16 * t, training: true };
    let slots = shape.slots();
    let mut words = |len: usize| tensor(store, len);
    let routed = Routed {
        probs: words(t * shape.prob_stride()),
        places: words(2 * t * choices),
        weight: words(t * choices),
        slots: words(shape.slot_words()),
        segments: words(8 * segments),
        chosen: words(segments),
        aux: words(segments + 1),
    };
    let (jobs, routers) = (words(8), words(size_of::<RouterRow>() / 4));
    let moe = Moe { shape, layer: 0, row_job: words(t), jobs, routers, documents: words(documents::table_words(t)), routed };
    let (logits, dweight) = (words(t * experts), words(slots + t));
    moe.route(rec, "sample", logits);
    let stats = Stats { probs: routed.probs, chosen: routed.chosen, aux: routed.aux, stats: words(shape.stat_words()) };
    shape.balance(rec, jobs, routers, stats);
    moe.route_backward(rec, "sample", dweight, logits);
    for d in [64, 63] {
        let (x, y, of_slots, other) = (words(t * d), words(t * d), words(slots * d), words(slots * d));
        moe.gather(rec, "sample", d, x, of_slots);
        for how in [Combine::Weighted, Combine::AddWeighted, Combine::Plain, Combine::Add] {
            moe.combine(rec, "sample", how, d, of_slots, y);
        }
        moe.spread(rec, "sample", d, x, of_slots, other, dweight, false);
        moe.spread(rec, "sample", d, x, of_slots, other, dweight, true);
        moe.weigh(rec, "sample", d, of_slots, other, dweight);
        moe.jitter(rec, "sample", d, x);
        moe.overflow(rec, "sample", d, x, y);
        moe.overflow_backward(rec, "sample", d, x, y, words(t * d), dweight);
    }
    for (r_max, n) in [(8, 64), (12, 64), (8, 63)] {
        let tables = LowrankTables {
            row_job: moe.slot_segment(),
            jobs: routed.segments,
            sites: words(24 * segments),
            adapter: words(2 * r_max * n),
            grads: words(2 * r_max * n),
        };
        let site = LowrankSite {
            rows: slots,
            range: None,
            k: 64,
            n,
            r_max,
            t_max: r_max,
            site: 0,
            dropout_key: 0,
            jobs: segments,
            dropout: false,
            half: false,
            tables,
        };
        let [gate, up, act] = [t, t, slots].map(|rows| words(rows * n));
        let of = |number: usize| Some(LowrankSite { site: number, ..site });
        let (da, dweight) = (words(t * n), words(slots + 4 + t));
        for sites in [[of(0), of(1), of(2)], [of(0), None, None], [None, of(1), None], [None, None, of(2)]] {
            let h = words(GateUp::words(sites.each_ref().map(Option::as_ref), true));
            let [gate_site, up_site, down] = sites;
            let experts = GateUp { gate: gate_site, up: up_site, down, h, tables, together: true };
            moe.swiglu(rec, "sample", &experts, gate, up, act);
            let gradients = experts.outputs(rec, "sample", slots * n);
            moe.swiglu_backward(rec, "sample", &experts, gate, up, gradients);
            for dropout in [false, true] {
                let experts = GateUp { down: down.map(|site| LowrankSite { dropout, ..site }), ..experts };
                moe.experts_backward(rec, "sample", &experts, (words(2 * t * n + 64), t * n), da, dweight);
            }
        }
    }
    shape.router_norms(rec, 64, words(8), words(512), words(1));
}

fn record_attention(rec: &mut Recorder, store: &mut Store) {
    let (t, h, kv, hd) = (64, 6, 3, 32);
    let shape = AttentionShape { rows: t as u32, heads: h as u32, kv_heads: kv as u32, head_dim: hd as u32, window: None };
    let wide = |store: &mut Store| tensor(store, t * h * hd);
    let narrow = |store: &mut Store| tensor(store, t * kv * hd);
    let (q, o, d_o, dq) = (wide(store), wide(store), wide(store), wide(store));
    let (k, v, dk, dv) = (narrow(store), narrow(store), narrow(store), narrow(store));
    let (documents, lse, state) = (tensor(store, documents::table_words(t)), tensor(store, t * h), tensor(store, 1));
    attention::forward(rec, "sample", &shape, q, k, v, documents, o, lse);
    attention::backward(rec, "sample", &shape, q, k, v, documents, o, lse, d_o, dq, dk, dv);
    let one = AttentionShape { rows: 1, ..shape };
    let (q, o) = (tensor(store, h * hd), tensor(store, h * hd));
    attention::decode(rec, "sample", &one, t as u32, q, k, v, state, o);
}

fn record_small(rec: &mut Recorder, store: &mut Store) {
    // Whole vectors and not.
    for d in [64, 63] {
        record_rows(rec, store, d);
    }
}

fn record_rows(rec: &mut Recorder, store: &mut Store, d: usize) {
    let t = if d.is_multiple_of(4) { 64 } else { 33 };
    let square = |store: &mut Store| tensor(store, t * d);
    let (x, y, z) = (square(store), square(store), square(store));
    let (w, column, list, ids) = (tensor(store, d), tensor(store, t), tensor(store, t), tensor(store, t));
    norm::forward(rec, "sample", x, w, y, column, 1e-5);
    norm::add_forward(rec, "sample", z, x, w, y, column, 1e-5);
    norm::backward(rec, "sample", x, w, column, y, z, false);
    norm::backward(rec, "sample", x, w, column, y, z, true);
    let (jobs, table, values, grads) = (tensor(store, 8), tensor(store, 2), tensor(store, d), tensor(store, d));
    let own = norm::Weight { base: w, own: Some(norm::OwnWeights { row_job: list, jobs, table, values, grads, norm: 0, count: 1 }) };
    norm::forward(rec, "sample", x, own, y, column, 1e-5);
    norm::add_forward(rec, "sample", z, x, own, y, column, 1e-5);
    norm::backward(rec, "sample", x, own, column, y, z, false);
    norm::backward(rec, "sample", x, own, column, y, z, true);
    norm::own_gradient(rec, "sample", x, own, column, y);
    let own = embed::OwnEmbeddings { row_job: list, table, values, grads, vocab: d, jobs: 1 };
    embed::add_own(rec, "sample", list, own, d, x);
    embed::own_gradient(rec, "sample", list, own, jobs, d, x);
    let table = tensor(store, t * d);
    let both = Heads { q: x, k: y, heads: 2, kv_heads: 2, head_dim: if d.is_multiple_of(4) { 32 } else { 30 } };
    rope::rotate(rec, "sample", table, list, both, Turn::Forward);
    elementwise::swiglu(rec, "sample", x, y, z);
    elementwise::swiglu_backward(rec, "sample", x, y, z);
    elementwise::add(rec, "sample", x, y, z);
    rows::gather(rec, "sample", list, ids, x, y);
    rows::scatter(rec, "sample", list, ids, x, y);
    rows::append(rec, "sample", list, x, y);
    let targets = Targets { ids, weight: list, loss: column };
    let logits = matmul::Rows { tensor: x, stride: d };
    cross_entropy::cross_entropy(rec, "sample", targets, logits, d, (0, t), true);
    cross_entropy::cross_entropy(rec, "sample", targets, logits, d, (0, t), false);
    preference::weights(rec, "sample", tensor(store, preference::table_words(t)), targets.loss, targets.weight);
    let (blocks, hyper) = (tensor(store, size_of::<Block>() / 4), tensor(store, size_of::<Hyper>() / 4));
    let pages = vec![Page { values: x, grads: y, m: z, v: square(store), rows: 0..1 }];
    optimizer::step(rec, &State { pages, blocks, hyper, norms: column, sums: 1, carries: 0 });
    peak::record(rec, tensor(store, peak::SUMS), 1);
}
