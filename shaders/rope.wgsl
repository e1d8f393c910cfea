// Rotary embedding in place, the half-rotation of Hugging Face: for pair (i, i + hd/2) of every head of row t at position[t]
//   x[i]        ← x[i] · cos − x[i + hd/2] · sin
//   x[i + hd/2] ← x[i + hd/2] · cos + x[i] · sin
// `sign` −1 rotates back: the backward pass. One lane per pair.
#import index

struct Params { rows: u32, heads: u32, half: u32, sign: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<vec2<f32>>;      // [positions, hd/2] (cos, sin)
@group(0) @binding(2) var<storage, read> position: array<u32>;         // [rows]
@group(0) @binding(3) var<storage, read_write> x: array<f32>;          // [rows, heads · hd]

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let index = flat_workgroup(group, groups) * 64u + lane;
    let per_row = p.heads * p.half;
    let row = index / per_row;
    if (row >= p.rows) {
        return;
    }
    let pair = index % per_row;
    let head = pair / p.half;
    let i = pair % p.half;
    let at = row * per_row * 2u + head * p.half * 2u + i;
    let turn = table[position[row] * p.half + i];
    let a = x[at];
    let b = x[at + p.half];
    let sin = turn.y * p.sign;
    x[at] = a * turn.x - b * sin;
    x[at + p.half] = b * turn.x + a * sin;
}
