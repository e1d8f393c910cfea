// effective[i r + k, o] = s[i, o] * Bt[i r + k, o] for every site: modules i of rank r, outputs o; SCALAR: s[i].
// A lane owns one output of one module and walks its ranks. Grid: column tiles x modules x sites; smaller sites leave lanes idle.

struct Params { first: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<u32>;
@group(0) @binding(2) var<storage, read_write> values: array<f32>;

#import modules

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let site = load_modules(group.z);
    let o = group.x * WG + lane;
    if (o >= site.outputs || group.y >= site.modules) {
        return;
    }
#ifdef SCALAR
    let s = values[site.scale + group.y];
#else
    let s = values[site.scale + group.y * site.outputs + o];
#endif
    let begin = group.y * site.rank * site.outputs + o;
    for (var k = 0u; k < site.rank; k++) {
        let at = begin + k * site.outputs;
        values[site.effective + at] = s * values[site.b + at];
    }
}
