// q8_0: w = d q, q an i8. Planes: codes (two vectors per unit: inputs 0 to 3, 4 to 7), d (f16 per row and 32 inputs).
const GROUP: u32 = 32u;
struct Group { s: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group { return Group(halves(2u * quads() * octets(), quad * (octets() / 4u) + g)); }
fn signed_byte(v: vec4<i32>, left: u32) -> vec4<f32> { return vec4<f32>((v << vec4(left)) >> vec4(24u)); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let at = 2u * (quad * octets() + g * 4u + j);
  let a = bitcast<vec4<i32>>(w[at]);
  let b = bitcast<vec4<i32>>(w[at + 1u]);
  let c = Tile(
    signed_byte(a, 24u), signed_byte(a, 16u), signed_byte(a, 8u), signed_byte(a, 0u),
    signed_byte(b, 24u), signed_byte(b, 16u), signed_byte(b, 8u), signed_byte(b, 0u));
  return scaled(c, d.s);
}
