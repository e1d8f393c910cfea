// q4_k: w = d sc q - dmin m. Planes: codes (a vector per unit), sc and m (two bytes per row and 32 inputs), d and dmin (per row and 256).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32>, m: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 4u;
  let sub = quads() * octets();
  let v = w[sub + vectors(2u * quads() * groups) + quad * (groups / 8u) + g / 8u];
  let a = bytes(word(sub, 2u * (quad * groups + g)));
  let b = bytes(word(sub, 2u * (quad * groups + g) + 1u));
  return Group(first_halves(v) * float4(vec4(a.xz, b.xz)), -(second_halves(v) * float4(vec4(a.yw, b.yw))));
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return affine(nibbles(w[quad * octets() + g * 4u + j]), d.s, d.m);
}
