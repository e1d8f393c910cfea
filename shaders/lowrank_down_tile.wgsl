// The product of lowrank_down.wgsl, bit for bit, through workgroup memory: for adapters where a coalesced load is what counts.
//
// A workgroup owns ROWS rows and eight ranks, one output a lane (WG = ROWS * 8). It stages 32 columns of x and of M at a time,
// neighbouring lanes loading neighbouring columns. Workgroup memory: (ROWS + 8) * 33 words, one word of padding a row against bank
// conflicts; with DROPOUT as much again for the input that trainable ranks see.
#import lowrank
#import lowrank_factor

@group(0) @binding(1) var<storage, read> row_job: array<u32>;
@group(0) @binding(2) var<storage, read> jobs: array<u32>;
@group(0) @binding(3) var<storage, read> sites: array<u32>;
@group(0) @binding(5) var<storage, read_write> x: array<f32>;
@group(0) @binding(6) var<storage, read_write> h: array<f32>;

const STAGE: u32 = 32u;
const STRIDE: u32 = 33u;
const WG: u32 = ROWS * 8u;
var<workgroup> x_tile: array<f32, ROWS * STRIDE>;
var<workgroup> m_tile: array<f32, 8u * STRIDE>;
#ifdef DROPOUT
var<workgroup> kept_tile: array<f32, ROWS * STRIDE>;
#endif

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let layer = layer_at(group.z);
    let first = group.x * ROWS;
    let end = min(first + ROWS, p.rows);
    let r0 = group.y * 8u;
    let my_row = lane / 8u;
    let my_rank = lane % 8u;
    let stride = 4u * rank_vectors();
    var begin = first;
    // What a pass begins with is written out: Tint zeroes a variable without a value once, not in every pass of a loop.
    while (begin < end) {
        let id = row_job[begin];
        var stop = begin + 1u;
        var site = Site();
        var job = Job();
        if (id < p.jobs) {
            stop = max(stop, min(end, jobs[id * 8u + 1u]));
            job = load_job(layer, id);
            site = load_site(layer, id);
        }
        var sum = 0.0;
        if (r0 < site.rank) {
#ifdef DROPOUT
            let my_rank_trains = r0 + my_rank >= site.train.x && r0 + my_rank < site.train.y;
#endif
            for (var k0 = 0u; k0 < layer.width; k0 += STAGE) {
                let count = min(STAGE, layer.width - k0);
                workgroupBarrier();
                for (var i = lane; i < ROWS * STAGE; i += WG) {
                    let row = first + i / STAGE;
                    let k = k0 + i % STAGE;
                    if (row >= begin && row < stop && k < layer.width) {
                        let value = x[wide_row(layer, row) + k];
                        x_tile[(i / STAGE) * STRIDE + i % STAGE] = value;
#ifdef DROPOUT
                        kept_tile[(i / STAGE) * STRIDE + i % STAGE] = value * job_dropout(job, row, k);
#endif
                    }
                }
                for (var i = lane; i < 8u * STAGE; i += WG) {
                    let k = k0 + i % STAGE;
                    if (k < layer.width) {
                        m_tile[(i / STAGE) * STRIDE + i % STAGE] = factor1(layer, site, min(r0 + i / STAGE, site.rank - 1u), k);
                    }
                }
                workgroupBarrier();
                for (var i = 0u; i < count; i++) {
                    var value = x_tile[my_row * STRIDE + i];
#ifdef DROPOUT
                    value = select(value, kept_tile[my_row * STRIDE + i], my_rank_trains);
#endif
                    sum = fma(value, m_tile[my_rank * STRIDE + i], sum);
                }
            }
            sum = select(0.0, scale_of(site) * sum, r0 + my_rank < site.rank);
        }
        let row = first + my_row;
        if (row >= begin && row < stop && r0 + my_rank < stride) {
            h[inner_row(layer, row) * stride + r0 + my_rank] = sum;
        }
        begin = stop;
    }
}
