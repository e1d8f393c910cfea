// What the products with a frozen matrix share. Forward: y[t, n] (+)= Σ_k x[t, k] W[n, k]. With BACKWARD: y[t, k] (+)= Σ_n x[t, n] W[n, k],
// where x is dy and y is dx. A part of a matrix writes its own columns (forward) or reads its own columns (backward) from `p.offset` on.
#ifdef VEC4
@group(0) @binding(1) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
#endif
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(0) var<uniform> p: Params;
#import matrix

#ifdef BACKWARD
fn inner() -> u32 { return p.n; }
fn columns() -> u32 { return p.k; }
fn x_offset() -> u32 { return p.offset; }
fn y_offset() -> u32 { return 0u; }
#else
fn inner() -> u32 { return p.k; }
fn columns() -> u32 { return p.n; }
fn x_offset() -> u32 { return 0u; }
fn y_offset() -> u32 { return p.offset; }
#endif

// Inputs 4 i .. + 4 of row t, zero past the end. VEC4 needs rows of x and of y that are whole vectors.
fn row4(t: u32, i: u32) -> vec4<f32> {
#ifdef VEC4
  return select(vec4(0.0), x[(t * p.ldx + x_offset()) / 4u + i], 4u * i < inner());
#else
  let last = inner() - 1u;
  let at = t * p.ldx + x_offset();
  let j = vec4(4u * i) + vec4(0u, 1u, 2u, 3u);
  let v = vec4(x[at + min(j.x, last)], x[at + min(j.y, last)], x[at + min(j.z, last)], x[at + min(j.w, last)]);
  return select(vec4(0.0), v, j < vec4(inner()));
#endif
}

// Columns c .. c + 4 of row t; the first of them is there.
#ifdef VEC4
fn store4(t: u32, c: u32, v: vec4<f32>) {
  let at = (t * p.ldy + y_offset() + c) / 4u;
#ifdef ACCUMULATE
  y[at] += v;
#else
  y[at] = v;
#endif
}
#else
fn store1(at: u32, c: u32, v: f32) {
  if (c < columns()) {
#ifdef ACCUMULATE
    y[at] += v;
#else
    y[at] = v;
#endif
  }
}
fn store4(t: u32, c: u32, v: vec4<f32>) {
  let at = t * p.ldy + y_offset() + c;
  store1(at, c, v.x);
  store1(at + 1u, c + 1u, v.y);
  store1(at + 2u, c + 2u, v.z);
  store1(at + 3u, c + 3u, v.w);
}
#endif
