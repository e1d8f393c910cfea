// q5_0: w = d (q - 16). Planes: low nibbles (a vector per unit), fifth bits (a vector per quad and 32 inputs), d (f16).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32>, fifth: vec4<u32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 4u;
  let base = quads() * octets();
  return Group(halves(base + quads() * groups, quad * groups + g), w[base + quad * groups + g]);
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return scaled(nibbles_and_high(w[quad * octets() + g * 4u + j], d.fifth, 8u * j, 1u, 1u, 16.0), d.s);
}
