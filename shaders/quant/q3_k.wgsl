// q3_k: w = d sc (q - 4), sc an i8. Planes: low two bits (a vector per quad and 16 inputs), third bits (16 bits per row and 16), sc (a byte
// per row and 16), d (f16 per row and 256).
const GROUP: u32 = 16u;
struct Group { s: vec4<f32>, low: vec4<u32>, third: vec4<u32> }
fn quant_group(quad: u32, g: u32) -> Group {
  let groups = octets() / 2u;
  let count = quads() * groups;
  let sub = count + vectors(2u * count);
  let at = quad * groups + g;
  let s = halves(sub + vectors(count), quad * (groups / 16u) + g / 16u) * signed_bytes(word(sub, at));
  let a = word(count, 2u * at);
  let b = word(count, 2u * at + 1u);
  return Group(s, w[at], vec4(a & 0xffffu, a >> 16u, b & 0xffffu, b >> 16u));
}
fn three_bits(low: vec4<u32>, third: vec4<u32>, i: u32) -> vec4<f32> {
  return float4(((low >> vec4(2u * i)) & vec4(3u)) | (((third >> vec4(i)) & vec4(1u)) << vec4(2u))) - vec4(4.0);
}
fn quant_tile(d: Group, quad: u32, g: u32, j: u32) -> Tile {
  let a = d.low >> vec4(16u * j);
  let b = d.third >> vec4(8u * j);
  let c = Tile(
    three_bits(a, b, 0u), three_bits(a, b, 1u), three_bits(a, b, 2u), three_bits(a, b, 3u),
    three_bits(a, b, 4u), three_bits(a, b, 5u), three_bits(a, b, 6u), three_bits(a, b, 7u));
  return scaled(c, d.s);
}
