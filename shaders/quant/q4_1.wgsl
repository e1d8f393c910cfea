// q4_1: w = d q + m. Planes: codes (a vector per unit), d and m (a pair of f16 per row and 32 inputs).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32>, m: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let v = w[quads() * octets() + quad * (octets() / 4u) + g];
  return Group(first_halves(v), second_halves(v));
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return affine(nibbles(w[quad * octets() + g * 4u + j]), d.s, d.m);
}
