// dw[c] += sum over the rows t of a job of dy[t,c] · x[t,c] · rstd[t], for every job that trains its own weights of a norm.
//
// A workgroup owns COLUMNS columns of one job. Row lane r adds the job's rows r, r + ROW_LANES, …, counted from its first row, and the row lanes
// are added in order: a job's bits do not depend on where its rows lie in the batch.
// Grid: (columns / COLUMNS, jobs).
struct Params { rows: u32, cols: u32, eps: f32, first: u32, jobs: u32, pad0: u32, pad1: u32, pad2: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;     // [rows, cols]
@group(0) @binding(2) var<storage, read_write> rstd: array<f32>;  // [rows]
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;    // [rows, cols]
@group(0) @binding(4) var<storage, read> jobs: array<u32>;        // as lib/segments describes it
@group(0) @binding(5) var<storage, read> own: array<u32>;         // [norms, jobs, 2], as lib/own_norm describes it
@group(0) @binding(6) var<storage, read_write> grads: array<f32>;

const NO_GRADIENT: u32 = 0xffffffffu;

var<workgroup> partial: array<f32, COLUMNS * ROW_LANES>;

@compute @workgroup_size(COLUMNS, ROW_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let column = group.x * COLUMNS + lane.x;
    let place = own[2u * (p.first + group.y) + 1u];
    let trains = place != NO_GRADIENT && column < p.cols;
    let begin = jobs[8u * group.y];
    let end = select(begin, min(jobs[8u * group.y + 1u], p.rows), trains);
    var sum = 0.0;
    for (var row = begin + lane.y; row < end; row += ROW_LANES) {
        sum = fma(dy[row * p.cols + column], x[row * p.cols + column] * rstd[row], sum);
    }
    partial[lane.y * COLUMNS + lane.x] = sum;
    workgroupBarrier();
    if (lane.y == 0u && trains) {
        var all = 0.0;
        for (var r = 0u; r < ROW_LANES; r++) {
            all += partial[r * COLUMNS + lane.x];
        }
        grads[place + column] += all;
    }
}
