// The table of iq4_nl and iq4_xs, an i8 per code, four codes a constant: two selections and a shift where an indexed array would go through
// memory. T = -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113.
fn iq4(code: vec4<u32>) -> vec4<f32> {
  let low = select(vec4(0xbfad9881u), vec4(0xf6eaddcfu), (code & vec4(4u)) != vec4(0u));
  let high = select(vec4(0x26190d01u), vec4(0x71594535u), (code & vec4(4u)) != vec4(0u));
  let v = bitcast<vec4<i32>>(select(low, high, (code & vec4(8u)) != vec4(0u)));
  return vec4<f32>((v << (vec4(24u) - ((code & vec4(3u)) << vec4(3u)))) >> vec4(24u));
}
fn iq4_tile(v: vec4<u32>) -> Tile {
  return Tile(
    iq4(nibble(v, 0u)), iq4(nibble(v, 4u)), iq4(nibble(v, 8u)), iq4(nibble(v, 12u)),
    iq4(nibble(v, 16u)), iq4(nibble(v, 20u)), iq4(nibble(v, 24u)), iq4(nibble(v, 28u)));
}
