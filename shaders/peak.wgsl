// The adapter's arithmetic ceiling: c = c · a + b in registers and nothing else.
//
// Independent chains hide the latency of the multiply-add, many rounds a turn hide the loop. With a = 1/2 and b = 1 every chain tends to
// 2, so a lane must write 22: no result can be left out, and none becomes infinite or denormal. Eleven chains of twenty rounds are the most
// that llvmpipe keeps in its sixteen registers (docs/tuning.md); a GPU needs four to eight.
#import index

struct Params { turns: u32, a: f32, b: f32, pad: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

struct Chains { c0: f32, c1: f32, c2: f32, c3: f32, c4: f32, c5: f32, c6: f32, c7: f32, c8: f32, c9: f32, c10: f32 }

fn round(c: Chains, a: f32, b: f32) -> Chains {
    return Chains(
        fma(c.c0, a, b), fma(c.c1, a, b), fma(c.c2, a, b), fma(c.c3, a, b), fma(c.c4, a, b), fma(c.c5, a, b),
        fma(c.c6, a, b), fma(c.c7, a, b), fma(c.c8, a, b), fma(c.c9, a, b), fma(c.c10, a, b));
}

fn four(c: Chains, a: f32, b: f32) -> Chains {
    return round(round(round(round(c, a, b), a, b), a, b), a, b);
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) lane: u32) {
    let a = p.a;
    let b = p.b;
    let x = f32(lane);
    var c = Chains(x, x + 1.0, x + 2.0, x + 3.0, x + 4.0, x + 5.0, x + 6.0, x + 7.0, x + 8.0, x + 9.0, x + 10.0);
    for (var turn = 0u; turn < p.turns; turn++) {
        c = four(four(four(four(four(c, a, b), a, b), a, b), a, b), a, b);
    }
    sums[flat_workgroup(group, groups) * WG + lane] = c.c0 + c.c1 + c.c2 + c.c3 + c.c4 + c.c5 + c.c6 + c.c7 + c.c8 + c.c9 + c.c10;
}
