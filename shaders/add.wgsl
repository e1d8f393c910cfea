// c = a + b, element by element.
#import index

#ifdef VEC4
alias Lane = vec4<f32>;
#else
alias Lane = f32;
#endif

// `len` counts lanes: four elements each with VEC4, for lengths that are whole vectors.
struct Params { len: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> a: array<Lane>;
@group(0) @binding(2) var<storage, read_write> b: array<Lane>;
@group(0) @binding(3) var<storage, read_write> c: array<Lane>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let i = flat_workgroup(group, groups) * 64u + lane;
    if (i < p.len) {
        c[i] = a[i] + b[i];
    }
}
