// bf16: four vectors a unit, two inputs a word.
const GROUP: u32 = 8u;
struct Group { at: u32 }
fn quant_group(quad: u32, g: u32) -> Group { return Group((quad * octets() + g) * 4u); }
fn low_half(v: vec4<u32>) -> vec4<f32> { return bitcast<vec4<f32>>(v << vec4(16u)); }
fn high_half(v: vec4<u32>) -> vec4<f32> { return bitcast<vec4<f32>>(v & vec4(0xffff0000u)); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let a = w[d.at];
  let b = w[d.at + 1u];
  let c = w[d.at + 2u];
  let e = w[d.at + 3u];
  return Tile(low_half(a), high_half(a), low_half(b), high_half(b), low_half(c), high_half(c), low_half(e), high_half(e));
}
