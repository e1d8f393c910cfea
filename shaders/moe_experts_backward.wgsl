// The backward pass of experts from the gradient of down's input to those of gate's and up's outputs, in one walk over the slots. For slot s of
// row t with weight w, with the factors of its expert, σ = 1 / (1 + e^−g):
//   g = gate[t, :] + c_g h_g[s, :] Btg   u = up[t, :] + c_u h_u[s, :] Btu   act[s, :] = g σ u
//   d = w da[t, :] + m dh[s, :] A        dg[s, :] = d u σ (1 + g (1 − σ))   du[s, :] = d g σ
//   parts[i, s] = sum of da[t, n] act[s, n] over the columns of workgroup i, for the gradient of w
// With DROPOUT m is the mask of down's inputs, else 1. gate and up in one tensor, and da: [rows, width]. act (with DOWN, for the gradient of A), dg, du
// [slots, width] and parts [column tiles, slots rounded up to whole vectors] in another. Slots of nobody keep what they have, but for their parts.
#import experts

@group(0) @binding(5) var<storage, read_write> gate_up: array<Lane>;
@group(0) @binding(6) var<storage, read_write> da: array<Lane>;
@group(0) @binding(7) var<storage, read_write> out: array<Lane>;

#ifdef DROPOUT
@group(0) @binding(8) var<storage, read> segments: array<u32>; // as `jobs` in lib/segments.wgsl
#import random

// The factors of columns n .. n + 4 of a slot.
fn mask4(slot: u32, n: u32) -> vec4<f32> {
    let at = slot_tables[slot] * 8u;
    let seed = mix32(segments[at + 2u] ^ p.down.dropout_key);
    let row = slot - segments[at];
    let threshold = segments[at + 3u];
    let keep = bitcast<f32>(segments[at + 4u]);
    return vec4(
        dropout_scale(seed, row, n, threshold, keep), dropout_scale(seed, row, n + 1u, threshold, keep),
        dropout_scale(seed, row, n + 2u, threshold, keep), dropout_scale(seed, row, n + 3u, threshold, keep));
}
#else
fn mask4(slot: u32, n: u32) -> vec4<f32> { return vec4(1.0); }
#endif

// Every lane's part of every slot of the tile.
var<workgroup> products: array<f32, WG * ROWS>;
var<private> own: u32;

// Columns n .. n + 4 of a row, the last column again past it.
#ifdef VEC4
fn gate_up4(at: u32, row: u32, n: u32) -> vec4<f32> { return gate_up[(at + row * p.width + n) / 4u]; }
fn da4(row: u32, n: u32) -> vec4<f32> { return da[(row * p.width + n) / 4u]; }
fn put4(at: u32, n: u32, v: vec4<f32>) { out[(at + n) / 4u] = v; }
fn part(x: vec4<f32>, y: vec4<f32>, n: u32) -> f32 { return dot(x, y); }
#else
fn gate_up4(begin: u32, row: u32, n: u32) -> vec4<f32> {
    let i = vec4(begin + row * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(gate_up[i.x], gate_up[i.y], gate_up[i.z], gate_up[i.w]);
}
fn da4(row: u32, n: u32) -> vec4<f32> {
    let i = vec4(row * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(da[i.x], da[i.y], da[i.z], da[i.w]);
}
fn put4(at: u32, n: u32, v: vec4<f32>) {
    for (var i = 0u; i < min(4u, p.width - n); i++) {
        out[at + n + i] = v[i];
    }
}
fn part(x: vec4<f32>, y: vec4<f32>, n: u32) -> f32 {
    return dot(select(vec4(0.0), x, vec4(n) + vec4(0u, 1u, 2u, 3u) < vec4(p.width)), y);
}
#endif

fn put(slot: u32, row: u32, n: u32, cg: f32, bg: vec4<f32>, cu: f32, bu: vec4<f32>, from_down: vec4<f32>) {
    let g = fma(vec4(cg), bg, gate_up4(0u, row, n));
    let u = fma(vec4(cu), bu, gate_up4(p.up_at, row, n));
    let d_row = da4(row, n);
    let s = 1.0 / (1.0 + exp(-g));
    let silu = g * s;
    let act = silu * u;
    let d = fma(vec4(bitcast<f32>(slot_tables[p.weight_at + slot])), d_row, mask4(slot, n) * from_down);
    let at = slot * p.width;
#ifdef DOWN
    put4(at, n, act);
#endif
    put4(p.dg_at + at, n, d * u * s * (1.0 + g * (1.0 - s)));
    put4(p.du_at + at, n, d * silu);
    products[slot % ROWS * WG + own] = part(d_row, act, n);
}

// Four slots, of which the last may be named several times.
fn finish(slot: vec4<u32>, n: u32, s: Sums) {
    let row = rows_of(slot);
    put(slot.x, row.x, n, s.cg, s.g.s0, s.cu, s.u.s0, s.d.s0);
    put(slot.y, row.y, n, s.cg, s.g.s1, s.cu, s.u.s1, s.d.s1);
    put(slot.z, row.z, n, s.cg, s.g.s2, s.cu, s.u.s2, s.d.s2);
    put(slot.w, row.w, n, s.cg, s.g.s3, s.cu, s.u.s3, s.d.s3);
}

// The sum of the parts of four slots, lane by lane; lanes past the last column have none.
fn sum4(slot: u32, lanes: u32) -> vec4<f32> {
    var sum = vec4(0.0);
    for (var i = 0u; i < lanes; i++) {
        sum += vec4(
            products[slot * WG + i], products[(slot + 1u) * WG + i], products[(slot + 2u) * WG + i], products[(slot + 3u) * WG + i]);
    }
    return sum;
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) invocation: u32,
#endif
) {
    own = local;
#ifdef SUBGROUPS
    walk_tile(group.xy, local, invocation % BROADCAST_WIDTH);
#else
    walk_tile(group.xy, local, 0u);
#endif
    workgroupBarrier();
    let lanes = min(WG, (p.width + 3u) / 4u - group.x * WG);
    for (var four = local; four < ROWS / 4u; four += WG) {
        let slot = group.y * ROWS + four * 4u;
        if (slot < p.part_stride) {
            let at = p.parts_at + group.x * p.part_stride + slot;
            let sum = sum4(four * 4u, lanes);
#ifdef VEC4
            out[at / 4u] = sum;
#else
            out[at] = sum.x;
            out[at + 1u] = sum.y;
            out[at + 2u] = sum.z;
            out[at + 3u] = sum.w;
#endif
        }
    }
}
