// nf4: w = code[q] absmax. Planes: codes (a vector per unit), absmax (f32 per row and 64 inputs). The sixteen values are chosen by a tree of
// selections, one level a bit: an indexed array would go through memory.
const GROUP: u32 = 64u;
struct Group { s: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group { return Group(bitcast<vec4<f32>>(w[quads() * octets() + quad * (octets() / 8u) + g])); }
fn pick(a: f32, b: f32, bit: vec4<bool>) -> vec4<f32> { return select(vec4(a), vec4(b), bit); }
fn nf4(code: vec4<u32>) -> vec4<f32> {
  let b0 = (code & vec4(1u)) != vec4(0u);
  let b1 = (code & vec4(2u)) != vec4(0u);
  let b2 = (code & vec4(4u)) != vec4(0u);
  let b3 = (code & vec4(8u)) != vec4(0u);
  let c0 = select(pick(-1.0, -0.6961928009986877, b0), pick(-0.5250730514526367, -0.39491748809814453, b0), b1);
  let c1 = select(pick(-0.28444138169288635, -0.18477343022823334, b0), pick(-0.09105003625154495, 0.0, b0), b1);
  let c2 = select(pick(0.07958029955625534, 0.16093020141124725, b0), pick(0.24611230194568634, 0.33791524171829224, b0), b1);
  let c3 = select(pick(0.44070982933044434, 0.5626170039176941, b0), pick(0.7229568362236023, 1.0, b0), b1);
  return select(select(c0, c1, b2), select(c2, c3, b2), b3);
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let v = w[quad * octets() + g * 8u + j];
  let c = Tile(
    nf4(nibble(v, 0u)), nf4(nibble(v, 4u)), nf4(nibble(v, 8u)), nf4(nibble(v, 12u)),
    nf4(nibble(v, 16u)), nf4(nibble(v, 20u)), nf4(nibble(v, 24u)), nf4(nibble(v, 28u)));
  return scaled(c, d.s);
}
