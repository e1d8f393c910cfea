// What the `attention_lanes_*` kernels share: `Rows`, a number for each of the ROWS rows that one lane owns, and the way a
// row of memory reaches all lanes.
//
// A row loaded from memory serves ROWS * LANES rows held in registers. With SUBGROUPS, neighbouring lanes load neighbouring
// elements, each once, and broadcast them: eight lanes one element each (correct for any subgroup size from 8 up), with QUADS
// four lanes two each. Without, every lane loads all of them (one address: one broadcast load on a GPU).
//
// Registers must be indexed by constants to be registers, and not every compiler unrolls loops, so the loops over the head
// dimension are unrolled by halving: f32_(d) is f16_(d), f16_(d + 16). Registers are filled in eights; what lies past
// HEAD_DIM is zero or read by nobody.

#ifdef ROWS_2
alias Rows = vec2<f32>;
alias RowIndex = vec2<u32>;
#endif
#ifdef ROWS_3
alias Rows = vec3<f32>;
alias RowIndex = vec3<u32>;
#endif
#ifdef ROWS_4
alias Rows = vec4<f32>;
alias RowIndex = vec4<u32>;
#endif

const PADDED_DIM: u32 = (HEAD_DIM + 7u) / 8u * 8u;

#ifdef QUADS
// This lane's place in its group of four.
var<private> lane4: u32;

// Eight elements of which lane i of a group holds i and 4 + i.
fn share(x: f32, y: f32) -> array<f32, 8> {
    return array<f32, 8>(
        subgroupBroadcast(x, 0u), subgroupBroadcast(x, 1u), subgroupBroadcast(x, 2u), subgroupBroadcast(x, 3u),
        subgroupBroadcast(y, 0u), subgroupBroadcast(y, 1u), subgroupBroadcast(y, 2u), subgroupBroadcast(y, 3u));
}
#else
#ifdef SUBGROUPS
// This lane's place in its group of eight.
var<private> lane8: u32;

// Eight elements of which lane i of a group holds i.
fn share(x: f32) -> array<f32, 8> {
    return array<f32, 8>(
        subgroupBroadcast(x, 0u), subgroupBroadcast(x, 1u), subgroupBroadcast(x, 2u), subgroupBroadcast(x, 3u),
        subgroupBroadcast(x, 4u), subgroupBroadcast(x, 5u), subgroupBroadcast(x, 6u), subgroupBroadcast(x, 7u));
}
#endif
#endif
