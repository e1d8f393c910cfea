// What the MixLoRA kernels share. A row of the batch chooses up to `choices` experts; a chosen (row, choice) is a slot. Slots lie sorted by
// segment = (job, expert), every segment begins at a multiple of `align`, and what is left over belongs to nobody.
//
//   routers:  16 words a (block, job): [first segment, experts (0: no router), strategy, most choices, top_p, temperature, renormalize,
//                                       capacity, jitter, balance coefficient, z coefficient, blocks with a router, concatenated,
//                                       dropout threshold, dropout keep, 0]
//   segments: 8 words a segment, as `jobs` in lib/segments.wgsl
//   places:   [rows, choices, 2] (expert or NONE, slot or NONE), weight: [rows, choices]
//   probs:    [rows, experts + 4]: softmax of the logits, zero past the job's experts, then the log of the sum of exponentials
//   slot_row: [slots] row * choices + choice, or NONE

const NONE: u32 = 0xffffffffu;
const TOP_P: u32 = 1u;
const SWITCH: u32 = 2u;

struct Params {
    rows: u32,
    jobs: u32,
    segments: u32,
    choices: u32,
    experts: u32,     // of any job, rounded up to whole vectors
    slots: u32,
    align: u32,
    layer: u32,       // among the blocks with a router
    layers: u32,
    training: u32,
    width: u32,
    layer_probs: u32, // words of one block's probs
}
@group(0) @binding(0) var<uniform> p: Params;

fn router_at(layer: u32, job: u32) -> u32 { return (layer * p.jobs + job) * 16u; }

fn probs_at(t: u32) -> u32 { return t * (p.experts + 4u); }
