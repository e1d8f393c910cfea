// q2_k: w = d sc q - dmin m. Planes: codes (a vector per quad and 16 inputs), sc and m (a byte per row and 16), d and dmin (per 256).
const GROUP: u32 = 16u;
struct Group { s: vec4<f32>, m: vec4<f32>, codes: vec4<u32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 2u;
  let sub = quads() * groups;
  let v = w[sub + vectors(quads() * groups) + quad * (groups / 16u) + g / 16u];
  let b = bytes(word(sub, quad * groups + g));
  return Group(first_halves(v) * float4(b & vec4(15u)), -(second_halves(v) * float4(b >> vec4(4u))), w[quad * groups + g]);
}
fn two_bits(v: vec4<u32>, at: u32) -> vec4<f32> { return float4((v >> vec4(at)) & vec4(3u)); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let v = d.codes >> vec4(16u * j);
  let c = Tile(
    two_bits(v, 0u), two_bits(v, 2u), two_bits(v, 4u), two_bits(v, 6u), two_bits(v, 8u), two_bits(v, 10u), two_bits(v, 12u), two_bits(v, 14u));
  return affine(c, d.s, d.m);
}
