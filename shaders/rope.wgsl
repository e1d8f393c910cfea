// Rotary embedding in place, the half-rotation of Hugging Face: for pair (i, i + hd/2) of every head of row t of q and of k, at position[t]
//   x[i]        ← x[i] · cos − x[i + hd/2] · sin
//   x[i + hd/2] ← x[i + hd/2] · cos + x[i] · sin
// `sign` −1 rotates back: the backward pass. One lane per pair, or with VEC4 per four neighbouring pairs; the heads of k come after those of q.
#import index

#ifdef VEC4
alias Lane = vec4<f32>;
// Two (cos, sin) pairs.
alias Turns = vec4<f32>;
#else
alias Lane = f32;
alias Turns = vec2<f32>;
#endif

// `half` counts lanes: hd/2, or hd/8 with VEC4.
struct Params { rows: u32, heads: u32, kv_heads: u32, half: u32, sign: f32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<Turns>;           // [positions, hd/2] (cos, sin)
@group(0) @binding(2) var<storage, read> position: array<u32>;          // [rows]
@group(0) @binding(3) var<storage, read_write> q: array<Lane>;          // [rows, heads · hd]
@group(0) @binding(4) var<storage, read_write> k: array<Lane>;          // [rows, kv_heads · hd]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = flat_workgroup(group, groups) * 64u + lane;
    let per_row = (p.heads + p.kv_heads) * p.half;
    let row = index / per_row;
    if (row >= p.rows) {
        return;
    }
    let pair = index % per_row;
    let head = pair / p.half;
    let i = pair % p.half;
    let turn = position[row] * p.half + i;
#ifdef VEC4
    let first = table[2u * turn];
    let second = table[2u * turn + 1u];
    let cos = vec4(first.xz, second.xz);
    let sin = vec4(first.yw, second.yw) * p.sign;
#else
    let cos = table[turn].x;
    let sin = table[turn].y * p.sign;
#endif
    if (head < p.heads) {
        let at = (row * p.heads + head) * p.half * 2u + i;
        let a = q[at];
        let b = q[at + p.half];
        q[at] = a * cos - b * sin;
        q[at + p.half] = b * cos + a * sin;
    } else {
        let at = (row * p.kv_heads + head - p.heads) * p.half * 2u + i;
        let a = k[at];
        let b = k[at + p.half];
        k[at] = a * cos - b * sin;
        k[at + p.half] = b * cos + a * sin;
    }
}
