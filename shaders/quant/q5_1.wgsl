// q5_1: w = d q + m. Planes: low nibbles (a vector per unit), fifth bits (a vector per quad and 32 inputs), d and m (a pair of f16).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32>, m: vec4<f32>, fifth: vec4<u32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 4u;
  let base = quads() * octets();
  let v = w[base + quads() * groups + quad * groups + g];
  return Group(first_halves(v), second_halves(v), w[base + quad * groups + g]);
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return affine(nibbles_and_high(w[quad * octets() + g * 4u + j], d.fifth, 8u * j, 1u, 1u, 0.0), d.s, d.m);
}
