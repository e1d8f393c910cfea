// q6_k: w = d sc (q - 32), sc an i8. Planes: low nibbles (a vector per unit), top two bits (a vector per quad and 16 inputs), sc (a byte per
// row and 16), d (f16 per row and 256).
const GROUP: u32 = 16u;
struct Group { s: vec4<f32>, top: vec4<u32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 2u;
  let count = quads() * groups;
  let top = quads() * octets();
  let sub = top + count;
  let at = quad * groups + g;
  return Group(halves(sub + vectors(count), quad * (groups / 16u) + g / 16u) * signed_bytes(word(sub, at)), w[top + at]);
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  return scaled(nibbles_and_high(w[quad * octets() + g * 2u + j], d.top, 16u * j, 2u, 3u, 32.0), d.s);
}
