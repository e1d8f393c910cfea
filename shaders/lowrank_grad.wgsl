// dM[r, k] += c * sum over the job's rows t of g[t, r] * drop(z[t, k]), for trainable r: dA with g = dh, z = x, c = 1;
// dBt with g = h, z = dy, c = scale, no dropout. g [rows, r_max], z [rows, width], dM [train_end - train_begin, width].
//
// Lanes lie along k; a lane owns COLS columns WG apart and eight ranks, and walks the job's rows in order: no partial sums, no atomics,
// nothing that depends on other jobs. Grid: column tiles x blocks of eight trainable ranks x jobs. SUBGROUPS: a lane loads one rank
// of g and eight lanes hand it round.

struct Params {
    rows: u32,
    width: u32,
    r_max: u32,
    site: u32,
    jobs: u32,
    matrix: u32, // 0: A, 1: Bt
    scaled: u32, // 1: c = scale of the job
    pad: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> jobs: array<u32>;
@group(0) @binding(2) var<storage, read> sites: array<u32>;
@group(0) @binding(3) var<storage, read_write> g: array<f32>;
@group(0) @binding(4) var<storage, read_write> z: array<f32>;
@group(0) @binding(5) var<storage, read_write> grads: array<f32>;

#import segments

// Ranks r0..r0+3 of a row of g; the caller does not store what lies past `train_end`.
fn ranks_of(row: u32, r0: u32, last: u32) -> vec4<f32> {
    let at = row * p.r_max + min(vec4(r0) + vec4(0u, 1u, 2u, 3u), vec4(last));
    return vec4(g[at.x], g[at.y], g[at.z], g[at.w]);
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
#ifdef SUBGROUPS
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
    @builtin(subgroup_size) subgroup_size: u32,
#endif
) {
    let k0 = group.x * WG * COLS + lane;
    let job = load_job(group.z);
    let site = load_site(group.z);
    let r0 = site.train.x + group.y * 8u;
    if (site.rank == 0u || r0 >= site.train.y || site.gradient[p.matrix] == NO_GRADIENT) {
        return;
    }
    let last = site.train.y - 1u;
#ifdef SUBGROUPS
    let eighth = subgroup_lane & 7u;
    let base = subgroup_lane - eighth;
#endif
    var acc_lo: array<vec4<f32>, COLS>;
    var acc_hi: array<vec4<f32>, COLS>;
    for (var j = 0u; j < COLS; j++) {
        acc_lo[j] = vec4(0.0);
        acc_hi[j] = vec4(0.0);
    }
    for (var row = job.row_begin; row < min(job.row_end, p.rows); row++) {
        var lo: vec4<f32>;
        var hi: vec4<f32>;
#ifdef SUBGROUPS
        if (subgroup_size >= 8u) {
            let mine = g[row * p.r_max + min(r0 + eighth, last)];
            lo = vec4(subgroupShuffle(mine, base), subgroupShuffle(mine, base + 1u),
                subgroupShuffle(mine, base + 2u), subgroupShuffle(mine, base + 3u));
            hi = vec4(subgroupShuffle(mine, base + 4u), subgroupShuffle(mine, base + 5u),
                subgroupShuffle(mine, base + 6u), subgroupShuffle(mine, base + 7u));
        } else {
            lo = ranks_of(row, r0, last);
            hi = ranks_of(row, r0 + 4u, last);
        }
#else
        lo = ranks_of(row, r0, last);
        hi = ranks_of(row, r0 + 4u, last);
#endif
        for (var j = 0u; j < COLS; j++) {
            let k = min(k0 + j * WG, p.width - 1u);
            var value = z[row * p.width + k];
#ifdef DROPOUT
            value *= job_dropout(job, row, k);
#endif
            acc_lo[j] = fma(vec4(value), lo, acc_lo[j]);
            acc_hi[j] = fma(vec4(value), hi, acc_hi[j]);
        }
    }
    let c = select(1.0, site.scale, p.scaled == 1u);
    let at = site.gradient[p.matrix] + (r0 - site.train.x) * p.width;
    for (var j = 0u; j < COLS; j++) {
        let k = k0 + j * WG;
        for (var i = 0u; i < 4u; i++) {
            if (k < p.width && r0 + i <= last) {
                grads[at + i * p.width + k] = fma(c, acc_lo[j][i], grads[at + i * p.width + k]);
            }
            if (k < p.width && r0 + i + 4u <= last) {
                grads[at + (i + 4u) * p.width + k] = fma(c, acc_hi[j][i], grads[at + (i + 4u) * p.width + k]);
            }
        }
    }
}
