// A frozen matrix W [n, k] in quads of rows: unit (quad, octet) holds rows 4 quad .. + 4 of inputs 8 octet .. + 8, so that one vec4<u32>
// of 4-bit codes is 32 weights, one row a component. The same unit serves x Wᵀ (four outputs) and dy W (eight inputs). Rows past n and
// inputs past k are zero. Each format's snippet (shaders/quant) declares GROUP (inputs per scale), Group, quant_group(quad, group) and
// quant_tile(group data, quad, group, octet of the group); both read the binding `w`.
struct Params { t: u32, n: u32, k: u32, ldx: u32, ldy: u32, offset: u32, rows: u32, first: u32, members: vec4<u32>, span: u32 }

#import tile

fn quads() -> u32 { return (p.n + 3u) / 4u; }
fn octets() -> u32 { return (p.k + 7u) / 8u; }

// Codes are below 2^31, and signed integers convert to f32 in one instruction where unsigned ones need several.
fn float4(v: vec4<u32>) -> vec4<f32> { return vec4<f32>(vec4<i32>(v)); }

fn nibble(v: vec4<u32>, at: u32) -> vec4<u32> { return (v >> vec4(at)) & vec4(15u); }

// Word i of a plane that starts at vector `base`.
fn word(base: u32, i: u32) -> u32 { return w[base + i / 4u][i % 4u]; }

// One f16 per row: pair i of words.
fn halves(base: u32, i: u32) -> vec4<f32> {
  return vec4(unpack2x16float(word(base, 2u * i)), unpack2x16float(word(base, 2u * i + 1u)));
}

// One byte per row.
fn bytes(v: u32) -> vec4<u32> { return (vec4(v) >> vec4(0u, 8u, 16u, 24u)) & vec4(255u); }
fn signed_bytes(v: u32) -> vec4<f32> { return vec4<f32>((vec4(bitcast<i32>(v)) << vec4(24u, 16u, 8u, 0u)) >> vec4(24u)); }

// A pair of f16 per row: first and second fields.
fn first_halves(v: vec4<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(v.x).x, unpack2x16float(v.y).x, unpack2x16float(v.z).x, unpack2x16float(v.w).x);
}
fn second_halves(v: vec4<u32>) -> vec4<f32> {
  return vec4(unpack2x16float(v.x).y, unpack2x16float(v.y).y, unpack2x16float(v.z).y, unpack2x16float(v.w).y);
}

// Vectors that a plane of `count` words takes.
fn vectors(count: u32) -> u32 { return (count + 3u) / 4u; }

fn scaled(c: Tile, s: vec4<f32>) -> Tile {
  return Tile(s * c.k0, s * c.k1, s * c.k2, s * c.k3, s * c.k4, s * c.k5, s * c.k6, s * c.k7);
}

// s c + m rounds once: s c is exact for the formats that have a minimum.
fn affine(c: Tile, s: vec4<f32>, m: vec4<f32>) -> Tile {
  return Tile(s * c.k0 + m, s * c.k1 + m, s * c.k2 + m, s * c.k3 + m, s * c.k4 + m, s * c.k5 + m, s * c.k6 + m, s * c.k7 + m);
}

fn nibbles(v: vec4<u32>) -> Tile {
  return Tile(
    float4(nibble(v, 0u)), float4(nibble(v, 4u)), float4(nibble(v, 8u)), float4(nibble(v, 12u)),
    float4(nibble(v, 16u)), float4(nibble(v, 20u)), float4(nibble(v, 24u)), float4(v >> vec4(28u)));
}

// Four bits of v, and `mask` of h from bit `at` in steps of `step`, put at bit 4; `zero` is subtracted.
fn high(v: vec4<u32>, low_at: u32, h: vec4<u32>, at: u32, mask: u32, zero: f32) -> vec4<f32> {
  return float4(nibble(v, low_at) | (((h >> vec4(at)) & vec4(mask)) << vec4(4u))) - vec4(zero);
}
fn nibbles_and_high(v: vec4<u32>, h: vec4<u32>, at: u32, step: u32, mask: u32, zero: f32) -> Tile {
  return Tile(
    high(v, 0u, h, at, mask, zero), high(v, 4u, h, at + step, mask, zero),
    high(v, 8u, h, at + 2u * step, mask, zero), high(v, 12u, h, at + 3u * step, mask, zero),
    high(v, 16u, h, at + 4u * step, mask, zero), high(v, 20u, h, at + 5u * step, mask, zero),
    high(v, 24u, h, at + 6u * step, mask, zero), high(v, 28u, h, at + 7u * step, mask, zero));
}
#import quant

// The weights of unit (quad, octet).
fn tile_at(quad: u32, octet: u32) -> Tile {
  let g = octet / (GROUP / 8u);
  return quant_tile(quant_group(quad, g), quad, g, octet % (GROUP / 8u));
}
