// What the products with a frozen matrix share. Forward: y[t, n] (+)= Σ_k x[t, k] W[n, k]. With BACKWARD: y[t, k] (+)= Σ_n x[t, n] W[n, k],
// where x is dy and y is dx. A part of a matrix writes its own columns (forward) or reads its own columns (backward) from `p.offset` on.
// Rows p.first .. p.t of x and y are multiplied: a product over many rows comes in several dispatches.
// JOINT: W is two or three matrices below each other, and each has its own rows of outputs (forward y, backward x); needs VEC4.
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
fn x_at(t: u32, i: u32) -> u32 { return output_at(t, p.ldx, i); }
fn y_at(t: u32, c: u32) -> u32 { return t * p.ldy + c; }
#else
fn inner() -> u32 { return p.k; }
fn columns() -> u32 { return p.n; }
fn x_at(t: u32, i: u32) -> u32 { return t * p.ldx + i; }
fn y_at(t: u32, c: u32) -> u32 { return output_at(t, p.ldy, c); }
#endif

// Where row t has the output of row i of this part of W.
fn output_at(t: u32, stride: u32, i: u32) -> u32 {
#ifdef JOINT
  // Members begin at rows 0, x, y of W and their outputs at words 0, z, w.
  let m = p.members;
  let row = p.offset + i;
  let second = row >= m.x;
  let third = row >= m.y;
  let begin = select(select(0u, m.x, second), m.y, third);
  let end = select(select(m.x, m.y, second), p.rows, third);
  return select(select(0u, m.z, second), m.w, third) + t * (end - begin) + row - begin;
#else
  return t * stride + p.offset + i;
#endif
}

// Inputs 4 i .. + 4 of row t, zero past the end. VEC4 needs rows of x and of y that are whole vectors.
fn row4(t: u32, i: u32) -> vec4<f32> {
#ifdef VEC4
#ifdef JOINT
  let at = x_at(t, 4u * i) / 4u;
#else
  let at = x_at(t, 0u) / 4u + i;
#endif
  return select(vec4(0.0), x[at], 4u * i < inner());
#else
  let last = inner() - 1u;
  let at = x_at(t, 0u);
  let j = vec4(4u * i) + vec4(0u, 1u, 2u, 3u);
  let v = vec4(x[at + min(j.x, last)], x[at + min(j.y, last)], x[at + min(j.z, last)], x[at + min(j.w, last)]);
  return select(vec4(0.0), v, j < vec4(inner()));
#endif
}

// Columns c .. c + 4 of row t; the first of them is there.
#ifdef VEC4
fn store4(t: u32, c: u32, v: vec4<f32>) {
  let at = y_at(t, c) / 4u;
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
  let at = y_at(t, c);
  store1(at, c, v.x);
  store1(at + 1u, c + 1u, v.y);
  store1(at + 2u, c + 2u, v.z);
  store1(at + 3u, c + 3u, v.w);
}
#endif
