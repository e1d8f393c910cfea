// iq4_xs: w = d sc T[q], sc an i8. Planes: codes (a vector per unit), sc (a byte per row and 32 inputs), d (f16 per row and 256).
#import iq4_table
const GROUP: u32 = 32u;
struct Group { s: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 4u;
  let sub = quads() * octets();
  let d = halves(sub + vectors(quads() * groups), quad * (groups / 8u) + g / 8u);
  return Group(d * signed_bytes(word(sub, quad * groups + g)));
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile { return scaled(iq4_tile(w[quad * octets() + g * 4u + j]), d.s); }
