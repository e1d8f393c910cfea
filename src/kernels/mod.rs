//! One file per kernel family: parameters, recording, and the naive CPU twin that tests compare with.
//!
//! Shape letters: `t` rows (tokens of a packed batch), `d` hidden width, `f` feed-forward width, `h` query heads, `kv` key/value heads,
//! `hd` head width, `v` vocabulary, `r` rank, `k` inputs and `n` outputs of a linear layer. Activations are row-major `[t, width]`.

pub mod attention;
pub mod cross_entropy;
pub mod elementwise;
pub mod embed;
pub mod lowrank;
pub mod lowrank_twin;
pub mod matmul;
pub mod matrix;
pub mod matvec;
pub mod moe;
pub mod multilora;
pub mod norm;
pub mod optimizer;
pub mod peak;
pub mod preference;
pub mod real;
mod reduce;
pub mod rope;
pub mod rows;
pub mod samples;
pub mod sum_parts;
mod work;

use crate::gpu::KernelSpec;

/// Every kernel of the crate, for `weblora shaders`, for validation and for the tests' completeness check.
pub const KERNELS: &[&KernelSpec] = &[
    &matmul::MATMUL,
    &matmul::MATMUL_TILE,
    &matmul::MATMUL_MIXED,
    &matmul::ROW_SCALE,
    &sum_parts::SUM_PARTS,
    &matvec::MATVEC,
    &embed::EMBED,
    &embed::OWN,
    &embed::OWN_GRADIENT,
    &attention::TILE_FORWARD,
    &attention::TILE_DQ,
    &attention::TILE_DKV,
    &attention::LANES_FORWARD,
    &attention::LANES_DQ,
    &attention::LANES_DKV,
    &attention::DELTA,
    &attention::DECODE,
    &attention::DECODE_LANES,
    &attention::DECODE_MERGE,
    &lowrank::DOWN,
    &lowrank::DOWN_LANES,
    &lowrank::UP,
    &lowrank::GRAD,
    &lowrank::GRAD_RANGE,
    &lowrank::GRAD_CHUNKS,
    &lowrank::GRAD_CHUNKS_RANGE,
    &lowrank::GRAD_SUM,
    &lowrank::GRAD_SUM_RANGE,
    &multilora::EXPAND,
    &multilora::GRADIENT,
    &multilora::GRADIENT_SCALAR,
    &moe::ROUTE,
    &moe::COUNT,
    &moe::SCAN,
    &moe::SCATTER,
    &moe::ROUTE_BACKWARD,
    &moe::GATHER,
    &moe::COMBINE,
    &moe::WEIGH,
    &moe::SPREAD,
    &moe::JITTER,
    &moe::SWIGLU,
    &moe::SWIGLU_BACKWARD,
    &moe::EXPERTS_BACKWARD,
    &moe::EXPERTS_BACKWARD_DROPPED,
    &moe::OVERFLOW,
    &moe::OVERFLOW_BACKWARD,
    &moe::BALANCE,
    &moe::ROUTER_NORM,
    &norm::FORWARD,
    &norm::ADD_FORWARD,
    &norm::BACKWARD,
    &norm::OWN_FORWARD,
    &norm::OWN_ADD_FORWARD,
    &norm::OWN_BACKWARD,
    &norm::OWN_GRADIENT,
    &rope::ROPE,
    &elementwise::SWIGLU,
    &elementwise::SWIGLU_BACKWARD,
    &elementwise::ADD,
    &rows::ROWS,
    &cross_entropy::CROSS_ENTROPY,
    &preference::PREFERENCE,
    &optimizer::SQUARE_SUM,
    &optimizer::GLOBAL_NORM,
    &optimizer::ADAMW,
    &peak::PEAK,
];
