// Eight numbers of each of four rows, (lo, hi) a row, in the registers of every lane.
struct Rows {
  lo0: vec4<f32>, hi0: vec4<f32>, lo1: vec4<f32>, hi1: vec4<f32>,
  lo2: vec4<f32>, hi2: vec4<f32>, lo3: vec4<f32>, hi3: vec4<f32>,
}

// With SUBGROUPS neighbouring lanes load a part each and broadcast it; all such groups of a workgroup load the same. Subgroups hold whole
// groups: of eight lanes, or of four with QUADS.
#ifdef QUADS
const BROADCAST_WIDTH: u32 = 4u;

// Lane i holds both halves of row i.
fn subgroup_rows(lo: vec4<f32>, hi: vec4<f32>) -> Rows {
  return Rows(
    subgroupBroadcast(lo, 0u), subgroupBroadcast(hi, 0u), subgroupBroadcast(lo, 1u), subgroupBroadcast(hi, 1u),
    subgroupBroadcast(lo, 2u), subgroupBroadcast(hi, 2u), subgroupBroadcast(lo, 3u), subgroupBroadcast(hi, 3u));
}
#else
#ifdef SUBGROUPS
const BROADCAST_WIDTH: u32 = 8u;

// Lane 2 i holds the first four numbers of row i, lane 2 i + 1 the others.
fn subgroup_rows(half: vec4<f32>) -> Rows {
  return Rows(
    subgroupBroadcast(half, 0u), subgroupBroadcast(half, 1u), subgroupBroadcast(half, 2u), subgroupBroadcast(half, 3u),
    subgroupBroadcast(half, 4u), subgroupBroadcast(half, 5u), subgroupBroadcast(half, 6u), subgroupBroadcast(half, 7u));
}
#endif
#endif
