// iq4_nl: w = d T[q]. Planes as q4_0: codes (a vector per unit), d (f16 per row and 32 inputs).
#import iq4_table
const GROUP: u32 = 32u;
struct Group { s: vec4<f32> }
fn quant_group(quad: u32, g: u32) -> Group { return Group(halves(quads() * octets(), quad * (octets() / 4u) + g)); }
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile { return scaled(iq4_tile(w[quad * octets() + g * 4u + j]), d.s); }
