//! What is put together slot by slot: the experts' gate and up beside the frozen products, and the backward pass in one walk, against the products one by one.

use weblora::gpu::Tensor;
use weblora::kernels::elementwise::{swiglu_backward_twin, swiglu_twin};
use weblora::kernels::lowrank::{LowrankSite, LowrankTables, SiteRow};
use weblora::kernels::moe::{GateUp, GateUpOutputs};

use super::{Batch, NONE, batch};
use crate::common::{Bench, assert_close, noise};

/// What a slot of nobody holds before and after.
const BLANK: f32 = -3.0;

/// Random experts of one site: rank 0 for every fifth, a rank up to `most` for the others. Both factors lie in one place.
fn experts(seed: u64, segments: usize, most: usize, width: usize, values: &mut Vec<f32>) -> Vec<SiteRow> {
    let row = |segment: usize| {
        let rank = if segment % 5 == 4 { 0 } else { 1 + segment % most };
        let at = values.len() as u32;
        values.extend(noise(seed + segment as u64, rank * width));
        values.resize(values.len().next_multiple_of(4), f32::NAN);
        SiteRow { rank: rank as u16, a_offset: at, b_offset: at, train_end: rank as u32, scale: 0.5 + segment as f32, ..SiteRow::default() }
    };
    (0..segments).map(row).collect()
}

/// Which sites have experts, and of what size.
#[derive(Clone, Copy)]
struct Case {
    width: usize,
    /// Most ranks.
    most: usize,
    /// gate, up, down.
    beside: [bool; 3],
    together: bool,
}

/// Everything on the host.
struct Scene {
    case: Case,
    sites: Vec<SiteRow>,
    values: Vec<f32>,
    /// First word of the rows of gate, up and down.
    begins: [usize; 3],
    h: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Scene {
    fn new(batch: &Batch, case: Case, owner: &[u32]) -> Self {
        let s = batch.shape;
        let (slots, stride) = (s.slots(), case.most.next_multiple_of(4));
        let mut values = Vec::new();
        let sites: Vec<SiteRow> = (0..3).flat_map(|site| experts(20 + 70 * site, s.segments, case.most, case.width, &mut values)).collect();
        let rows_of_gate = if case.together { slots } else { slots.next_multiple_of(16) };
        let up = if case.beside[0] { rows_of_gate } else { 0 };
        let down = (up + if case.beside[1] { slots } else { 0 }).next_multiple_of(16);
        let begins = [0, up * stride, down * stride];
        let mut h = vec![0.0; begins[2] + slots * stride];
        for (which, begin) in begins.into_iter().enumerate().filter(|(which, _)| case.beside[*which]) {
            h[begin..begin + slots * stride].copy_from_slice(&noise(9 + which as u64, slots * stride));
            // Past an expert's rank the inner activations are zero.
            for (slot, segment) in owner.iter().enumerate() {
                let rank = if *segment == NONE { 0 } else { sites[which * s.segments + *segment as usize].rank as usize };
                h[begin + slot * stride + rank..begin + (slot + 1) * stride].fill(0.0);
            }
        }
        let [gate, up] = [6, 7].map(|seed| noise(seed, s.rows * case.width));
        Self { case, sites, values, begins, h, gate, up }
    }

    /// What the expert of a slot adds to its site, but for the scale.
    fn added(&self, which: usize, slot: usize, segment: usize, segments: usize) -> Vec<f32> {
        let (width, stride) = (self.case.width, self.case.most.next_multiple_of(4));
        let SiteRow { rank, b_offset, .. } = self.sites[which * segments + segment];
        let inner = &self.h[self.begins[which] + slot * stride..][..rank as usize];
        let column = |n: usize| inner.iter().enumerate().map(|(r, h)| h * self.values[b_offset as usize + r * width + n]).sum();
        (0..width).map(|n| if self.case.beside[which] { column(n) } else { 0.0 }).collect()
    }

    /// gate or up of a slot.
    fn output(&self, which: usize, base: &[f32], slot: usize, segment: usize, segments: usize) -> Vec<f32> {
        let scale = self.sites[which * segments + segment].scale;
        base.iter().zip(self.added(which, slot, segment, segments)).map(|(base, own)| base + scale * own).collect()
    }
}

/// What the kernels put together equals the products one by one, forward and backward; slots of nobody keep what they have.
#[test]
fn experts_share_the_frozen_products() {
    let batch = batch();
    let s = batch.shape;
    let logits = noise(5, s.rows * s.stride());
    let from_weights = noise(4, s.slots() + s.rows);
    // Which slot is whose is known from a first run.
    let Some(found) = batch.run(&logits, &from_weights, |_| Vec::new(), |_, _, _| {}) else { return };
    let owner = found.slot_segment;
    for (width, most, beside, together, dropout) in [
        (24, 8, [true, true, true], true, false),
        (24, 8, [true, true, true], true, true),
        (24, 8, [true, true, true], false, false),
        (24, 13, [true, true, true], true, true),
        (332, 8, [true, true, false], true, false),
        (7, 3, [true, true, true], true, true),
        (7, 3, [true, true, true], false, false),
        (8, 8, [true, false, false], true, false),
        (8, 8, [false, false, true], true, true),
        (8, 5, [false, true, true], false, false),
    ] {
        let scene = Scene::new(&batch, Case { width, most, beside, together }, &owner);
        let (da, da_slots) = (noise(8, s.rows * width), noise(12, s.slots() * width));
        let words = s.slots() * width;
        let (blank, zeros) = (vec![BLANK; words], vec![0.0; words]);
        // The gradient of the activations, which becomes gate's, then up's.
        let mut gradients = da_slots.clone();
        gradients.resize(GateUpOutputs::words(words), BLANK);
        let up_at = scene.gate.len().next_multiple_of(64);
        let mut joint = scene.gate.clone();
        joint.resize(up_at, f32::NAN);
        joint.extend(&scene.up);
        let tensors = |bench: &mut Bench| {
            let tables = [bench.put("sites", &scene.sites), bench.put("values", &scene.values), bench.put("h", &scene.h)];
            let wide: [(&str, &[f32]); 11] = [
                ("gate", &scene.gate),
                ("up", &scene.up),
                ("joint", &joint),
                ("da", &da),
                ("act", &blank),
                ("gradients", &gradients),
                ("from down", &zeros),
                ("walked act", &blank),
                ("walked dgate", &blank),
                ("walked dup", &blank),
                ("dweight", &from_weights),
            ];
            tables.into_iter().chain(wide.map(|(label, values)| bench.put(label, values))).collect::<Vec<Tensor>>()
        };
        let found = batch.run(&logits, &from_weights, tensors, |moe, rec, t| {
            let [sites, adapter, h, gate, up, joint, da, act, both, from_down, walked @ .., dweight] = t else { panic!("too few tensors") };
            let tables =
                LowrankTables { row_job: moe.slot_segment(), jobs: moe.routed.segments, sites: *sites, adapter: *adapter, grads: *adapter };
            let site = |which: usize| LowrankSite {
                rows: s.slots(),
                range: None,
                k: 8,
                n: width,
                r_max: most,
                t_max: most,
                site: which,
                dropout_key: 0,
                jobs: s.segments,
                dropout: false,
                half: false,
                tables,
            };
            let [gate_site, up_site, down] = [0, 1, 2].map(|which| beside[which].then(|| site(which)));
            let down = down.map(|down| LowrankSite { k: width, n: 8, dropout, ..down });
            let experts = GateUp { gate: gate_site, up: up_site, down, h: *h, tables, together };
            moe.swiglu(rec, "test", &experts, *gate, *up, *act);
            moe.swiglu_backward(rec, "test", &experts, *gate, *up, GateUpOutputs::within(*both, words));
            if let (Some(down), Some(dh)) = (down, experts.down_gradient()) {
                down.input_gradient(rec, "test", dh, *from_down);
            }
            assert!(moe.experts_fit(width, beside[2]));
            let found = moe.experts_backward(rec, "test", &experts, (*joint, up_at), *da, *dweight);
            let [dgate, dup] = found.gate_up.each;
            for (from, to) in [(found.act, walked[0]), (Some(dgate), walked[1]), (Some(dup), walked[2])] {
                from.into_iter().for_each(|from| rec.copy(from, to));
            }
        });
        let Some(found) = found else { return };
        let [.., act, both, from_down, walked_act, walked_gate, walked_up, dweight] = &found.floats[..] else { panic!("too few tensors") };
        let (dgate, dup) = (&both[..words], &both[both.len() - words..]);
        let weight = &found.floats[1];
        let (mut used, mut dropped) = (0, 0);
        for (slot, place) in found.slot_row.iter().enumerate() {
            let own = slot * width..(slot + 1) * width;
            if *place == NONE {
                assert!(act[own.clone()].iter().all(|a| *a == BLANK) && dgate[own.clone()] == da_slots[own], "slot {slot} is nobody's");
                continue;
            }
            used += 1;
            let (row, segment, w) = (*place as usize / s.choices, owner[slot] as usize, weight[*place as usize]);
            let of_row = row * width..(row + 1) * width;
            let g = scene.output(0, &scene.gate[of_row.clone()], slot, segment, s.segments);
            let u = scene.output(1, &scene.up[of_row.clone()], slot, segment, s.segments);
            let a = swiglu_twin(&g, &u);
            assert_close("act", &act[own.clone()], &a, 1e-4, 1e-4);
            let (dg, du) = swiglu_backward_twin(&g, &u, &da_slots[own.clone()]);
            assert_close("dgate", &dgate[own.clone()], &dg, 1e-4, 1e-4);
            assert_close("dup", &dup[own.clone()], &du, 1e-4, 1e-4);

            // What comes from down's factor, with the mask of those that drop inputs: by the kernel that has nothing else to do.
            let from_down = &from_down[own.clone()];
            let added = scene.added(2, slot, segment, s.segments);
            let masked = from_down.iter().zip(&added).filter(|(masked, all)| **masked == 0.0 && all.abs() > 1e-3).count();
            dropped += masked;
            if !dropout || segment >= 4 {
                assert_close("from down", from_down, &added, 1e-4, 1e-4);
            }
            let d: Vec<f32> = da[of_row.clone()].iter().zip(from_down).map(|(d, own)| w * d + own).collect();
            let (dg, du) = swiglu_backward_twin(&g, &u, &d);
            assert_close("walked dgate", &walked_gate[own.clone()], &dg, 1e-4, 1e-4);
            assert_close("walked dup", &walked_up[own.clone()], &du, 1e-4, 1e-4);
            if beside[2] {
                assert_close("walked act", &walked_act[own], &a, 1e-4, 1e-4);
            }
            let dot: f32 = da[of_row].iter().zip(&a).map(|(d, a)| d * a).sum();
            let before = if beside[2] { from_weights[slot] } else { 0.0 };
            assert_close("dweight", &dweight[slot..=slot], &[before + dot], 2e-4, 2e-4);
        }
        assert!(used > 100 && used < s.slots());
        assert_eq!(dropped > 0, dropout, "{dropped} dropped");
    }
}
