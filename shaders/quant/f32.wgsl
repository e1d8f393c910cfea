// f32: eight vectors a unit, nothing to decode.
const GROUP: u32 = 8u;
struct Group { at: u32 }
fn quant_group(quad: u32, g: u32) -> Group { return Group((quad * octets() + g) * 8u); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return Tile(
    bitcast<vec4<f32>>(w[d.at]), bitcast<vec4<f32>>(w[d.at + 1u]), bitcast<vec4<f32>>(w[d.at + 2u]), bitcast<vec4<f32>>(w[d.at + 3u]),
    bitcast<vec4<f32>>(w[d.at + 4u]), bitcast<vec4<f32>>(w[d.at + 5u]), bitcast<vec4<f32>>(w[d.at + 6u]), bitcast<vec4<f32>>(w[d.at + 7u]));
}
