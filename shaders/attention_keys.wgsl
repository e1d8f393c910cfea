// Loads 8 consecutive elements of a k or v row, broadcast to all lanes. Reads past HEAD_DIM return other elements of the row, which callers
// ignore. The importer declares k and v.
fn key8(at: u32, d: u32) -> array<f32, 8> {
#ifdef QUADS
    return share(k[at + d + lane4], k[at + min(d + 4u, HEAD_DIM - 4u) + lane4]);
#else
#ifdef SUBGROUPS
    return share(k[at + min(d + lane8, HEAD_DIM - 1u)]);
#else
    let e = at + min(d + 4u, HEAD_DIM - 4u);
    return array<f32, 8>(
        k[at + d], k[at + d + 1u], k[at + d + 2u], k[at + d + 3u], k[e], k[e + 1u], k[e + 2u], k[e + 3u]);
#endif
#endif
}
fn value8(at: u32, d: u32) -> array<f32, 8> {
#ifdef QUADS
    return share(v[at + d + lane4], v[at + min(d + 4u, HEAD_DIM - 4u) + lane4]);
#else
#ifdef SUBGROUPS
    return share(v[at + min(d + lane8, HEAD_DIM - 1u)]);
#else
    let e = at + min(d + 4u, HEAD_DIM - 4u);
    return array<f32, 8>(
        v[at + d], v[at + d + 1u], v[at + d + 2u], v[at + d + 3u], v[e], v[e + 1u], v[e + 2u], v[e + 3u]);
#endif
#endif
}
