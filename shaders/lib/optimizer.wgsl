// The tables of the optimizer. The including kernel declares `blocks` and `hyper` as array<u32>.
//
//   blocks: 10 words a block of trainable words, or a page's part of it: [job, first word among gradients and moments, first word among values,
//           words, learning rate multiplier as f32, weight decay multiplier as f32, place of its sum (CONTINUES: the block goes on in the next
//           page), words in pages before, place of the lanes' sums from there, and for the next page]; 0 words: an unused row
//   hyper:  12 words a job: [lr, β1, β2, eps, weight decay, c1, sqrt(c2), clip (all f32), steps now, first sum, one past its last sum, 0]

// Rows of the table for this page, and the first of them.
struct Params { blocks: u32, first: u32, pad0: u32, pad1: u32 }
@group(0) @binding(0) var<uniform> p: Params;

const LR: u32 = 0u;
const BETA1: u32 = 1u;
const BETA2: u32 = 2u;
const EPS: u32 = 3u;
const DECAY: u32 = 4u;
const C1: u32 = 5u;
const ROOT_C2: u32 = 6u;
const CLIP: u32 = 7u;

const CONTINUES: u32 = 0xffffffffu;

struct Block {
    job: u32, grad_begin: u32, begin: u32, len: u32, lr_multiplier: f32, decay: f32,
    sum: u32, skip: u32, carry_in: u32, carry_out: u32,
}

// Row `index` of this page.
fn load_block(index: u32) -> Block {
    let at = 10u * (p.first + index);
    return Block(blocks[at], blocks[at + 1u], blocks[at + 2u], blocks[at + 3u], bitcast<f32>(blocks[at + 4u]), bitcast<f32>(blocks[at + 5u]),
                 blocks[at + 6u], blocks[at + 7u], blocks[at + 8u], blocks[at + 9u]);
}

fn hyper_value(job: u32, which: u32) -> f32 {
    return bitcast<f32>(hyper[12u * job + which]);
}

// Whether the accumulated gradients of `job` are applied now.
fn steps_now(job: u32) -> bool {
    return hyper[12u * job + 8u] != 0u;
}

fn block_range(job: u32) -> vec2<u32> {
    return vec2(hyper[12u * job + 9u], hyper[12u * job + 10u]);
}
