// Eight inputs of four columns: component c of ki is input i of column c.
struct Tile {
  k0: vec4<f32>, k1: vec4<f32>, k2: vec4<f32>, k3: vec4<f32>,
  k4: vec4<f32>, k5: vec4<f32>, k6: vec4<f32>, k7: vec4<f32>,
}

// Eight more inputs of one row, (lo, hi), against four columns.
fn dot8(sum: vec4<f32>, lo: vec4<f32>, hi: vec4<f32>, c: Tile) -> vec4<f32> {
  var s = fma(vec4(lo.x), c.k0, sum);
  s = fma(vec4(lo.y), c.k1, s);
  s = fma(vec4(lo.z), c.k2, s);
  s = fma(vec4(lo.w), c.k3, s);
  s = fma(vec4(hi.x), c.k4, s);
  s = fma(vec4(hi.y), c.k5, s);
  s = fma(vec4(hi.z), c.k6, s);
  return fma(vec4(hi.w), c.k7, s);
}
