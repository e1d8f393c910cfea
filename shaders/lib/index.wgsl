// A grid made by grid_1d() may be two-dimensional; this is the flat workgroup number.
fn flat_workgroup(id: vec3<u32>, groups: vec3<u32>) -> u32 {
    return id.x + id.y * groups.x;
}
