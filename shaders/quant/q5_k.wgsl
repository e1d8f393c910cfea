// q5_k: w = d sc q - dmin m. Planes: low nibbles (a vector per unit), fifth bits (a vector per quad and 32 inputs), sc and m (two bytes per
// row and 32), d and dmin (a pair of f16 per row and 256).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32>, m: vec4<f32>, fifth: vec4<u32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 4u;
  let fifth = quads() * octets();
  let sub = fifth + quads() * groups;
  let v = w[sub + vectors(2u * quads() * groups) + quad * (groups / 8u) + g / 8u];
  let a = bytes(word(sub, 2u * (quad * groups + g)));
  let b = bytes(word(sub, 2u * (quad * groups + g) + 1u));
  return Group(
    first_halves(v) * float4(vec4(a.xz, b.xz)), -(second_halves(v) * float4(vec4(a.yw, b.yw))), w[fifth + quad * groups + g]);
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return affine(nibbles_and_high(w[quad * octets() + g * 4u + j], d.fifth, 8u * j, 1u, 1u, 0.0), d.s, d.m);
}
