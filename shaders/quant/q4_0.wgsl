// q4_0: w = d (q - 8). Planes: codes (a vector per unit), d (f16 per row and 32 inputs).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group { return Group(halves(quads() * octets(), quad * (octets() / 4u) + g)); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let c = affine(nibbles(w[quad * octets() + g * 4u + j]), vec4(1.0), vec4(-8.0));
  return scaled(c, d.s);
}
