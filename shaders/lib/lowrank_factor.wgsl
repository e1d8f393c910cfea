// Elements of M [rank, width], the factor A or Bt of a job; the kernel imports `lowrank` too. VEC4: rows are whole vectors, and so are the
// offsets where they begin. HALF: the last `half` ranks of a site are f16, two a word, each row padded to whole pairs of words.
#ifdef VEC4
#ifdef HALF
@group(0) @binding(4) var<storage, read> adapter: array<vec4<u32>>;
#else
@group(0) @binding(4) var<storage, read> adapter: array<vec4<f32>>;
#endif
#else
#ifdef HALF
@group(0) @binding(4) var<storage, read> adapter: array<u32>;
#else
@group(0) @binding(4) var<storage, read> adapter: array<f32>;
#endif
#endif

#ifdef HALF
// Ranks before the f16 ones.
fn whole(site: Site) -> u32 { return site.rank - site.half; }

// The word where the f16 row r begins.
fn half_row(layer: Layer, site: Site, r: u32) -> u32 {
    return site.matrix[p.matrix] + whole(site) * layer.width + (r - whole(site)) * 2u * ((layer.width + 3u) / 4u);
}
#endif

#ifdef VEC4
// M[r, i .. i + 4], zero past the end of the row.
fn factor4(layer: Layer, site: Site, r: u32, i: u32) -> vec4<f32> {
    let at = site.matrix[p.matrix] + r * layer.width + i;
#ifdef HALF
    var v: vec4<f32>;
    if (r < whole(site)) {
        v = bitcast<vec4<f32>>(adapter[at / 4u]);
    } else {
        let word = half_row(layer, site, r) + i / 2u;
        let four = adapter[word / 4u];
        let two = select(four.xy, four.zw, word % 4u == 2u);
        v = vec4(unpack2x16float(two.x), unpack2x16float(two.y));
    }
    return select(vec4(0.0), v, i < layer.width);
#else
    return select(vec4(0.0), adapter[at / 4u], i < layer.width);
#endif
}
#else
// M[r, i]; i is below the width.
fn factor1(layer: Layer, site: Site, r: u32, i: u32) -> f32 {
    let at = site.matrix[p.matrix] + r * layer.width + i;
#ifdef HALF
    if (r < whole(site)) {
        return bitcast<f32>(adapter[at]);
    }
    return unpack2x16float(adapter[half_row(layer, site, r) + i / 2u])[i % 2u];
#else
    return adapter[at];
#endif
}

// M[r, i .. i + 4], zero past the end of the row.
fn factor4(layer: Layer, site: Site, r: u32, i: u32) -> vec4<f32> {
    let last = layer.width - 1u;
    let v = vec4(
        factor1(layer, site, r, min(i, last)), factor1(layer, site, r, min(i + 1u, last)), factor1(layer, site, r, min(i + 2u, last)), factor1(layer, site, r, min(i + 3u, last)));
    return select(vec4(0.0), v, vec4(i) + vec4(0u, 1u, 2u, 3u) < vec4(layer.width));
}
#endif
