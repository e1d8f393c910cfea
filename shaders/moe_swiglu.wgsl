// The inner activations of experts, from the frozen products that all experts of a row share. For slot s of row t, with the factors of its expert:
//   g = gate[t, :] + c_g h_g[s, :] Btg,   u = up[t, :] + c_u h_u[s, :] Btu
//   act[s, :] = silu(g) u
// and with BACKWARD, σ = 1 / (1 + e^−g):
//   dg = da u σ (1 + g (1 − σ)) in place of da,   du = da g σ
// so that g and u need not be kept. gate, up [rows, width]; act, da, du [slots, width]. Slots of nobody keep what they have. Where everything fits
// into one binding, moe_experts_backward does this and more in its place.
#import experts

@group(0) @binding(5) var<storage, read_write> gate: array<Lane>;
@group(0) @binding(6) var<storage, read_write> up: array<Lane>;
#ifdef BACKWARD
@group(0) @binding(7) var<storage, read_write> da: array<Lane>;        // becomes dg
@group(0) @binding(8) var<storage, read_write> du: array<Lane>;
#else
@group(0) @binding(7) var<storage, read_write> act: array<Lane>;
#endif

// Columns n .. n + 4 of a row.
#ifdef VEC4
fn gate4(row: u32, n: u32) -> vec4<f32> { return gate[(row * p.width + n) / 4u]; }
fn up4(row: u32, n: u32) -> vec4<f32> { return up[(row * p.width + n) / 4u]; }
#else
fn gate4(row: u32, n: u32) -> vec4<f32> {
    let i = vec4(row * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(gate[i.x], gate[i.y], gate[i.z], gate[i.w]);
}
fn up4(row: u32, n: u32) -> vec4<f32> {
    let i = vec4(row * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(up[i.x], up[i.y], up[i.z], up[i.w]);
}
#endif

#ifdef BACKWARD
#ifdef VEC4
fn da4(slot: u32, n: u32) -> vec4<f32> { return da[(slot * p.width + n) / 4u]; }
#else
fn da4(slot: u32, n: u32) -> vec4<f32> {
    let i = vec4(slot * p.width) + min(vec4(n) + vec4(0u, 1u, 2u, 3u), vec4(p.width - 1u));
    return vec4(da[i.x], da[i.y], da[i.z], da[i.w]);
}
#endif

fn put(slot: u32, n: u32, g: vec4<f32>, u: vec4<f32>, d: vec4<f32>) {
    let s = 1.0 / (1.0 + exp(-g));
    let dg4 = d * u * s * (1.0 + g * (1.0 - s));
    let du4 = d * g * s;
    let at = slot * p.width + n;
#ifdef VEC4
    da[at / 4u] = dg4;
    du[at / 4u] = du4;
#else
    for (var i = 0u; i < min(4u, p.width - n); i++) {
        da[at + i] = dg4[i];
        du[at + i] = du4[i];
    }
#endif
}
#else
fn put(slot: u32, n: u32, g: vec4<f32>, u: vec4<f32>) {
    let a = g / (1.0 + exp(-g)) * u;
    let at = slot * p.width + n;
#ifdef VEC4
    act[at / 4u] = a;
#else
    for (var i = 0u; i < min(4u, p.width - n); i++) {
        act[at + i] = a[i];
    }
#endif
}
#endif

// Four slots, of which the last may be named several times: all are read before one is written.
fn finish(slot: vec4<u32>, n: u32, s: Sums) {
    let row = rows_of(slot);
    let g = Four(
        fma(vec4(s.cg), s.g.s0, gate4(row.x, n)), fma(vec4(s.cg), s.g.s1, gate4(row.y, n)),
        fma(vec4(s.cg), s.g.s2, gate4(row.z, n)), fma(vec4(s.cg), s.g.s3, gate4(row.w, n)));
    let u = Four(
        fma(vec4(s.cu), s.u.s0, up4(row.x, n)), fma(vec4(s.cu), s.u.s1, up4(row.y, n)),
        fma(vec4(s.cu), s.u.s2, up4(row.z, n)), fma(vec4(s.cu), s.u.s3, up4(row.w, n)));
#ifdef BACKWARD
    let d = Four(da4(slot.x, n), da4(slot.y, n), da4(slot.z, n), da4(slot.w, n));
    put(slot.x, n, g.s0, u.s0, d.s0);
    put(slot.y, n, g.s1, u.s1, d.s1);
    put(slot.z, n, g.s2, u.s2, d.s2);
    put(slot.w, n, g.s3, u.s3, d.s3);
#else
    put(slot.x, n, g.s0, u.s0);
    put(slot.y, n, g.s1, u.s1);
    put(slot.z, n, g.s2, u.s2);
    put(slot.w, n, g.s3, u.s3);
#endif
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) invocation: u32,
#endif
) {
#ifdef SUBGROUPS
    walk_tile(group.xy, local, invocation % BROADCAST_WIDTH);
#else
    walk_tile(group.xy, local, 0u);
#endif
}
