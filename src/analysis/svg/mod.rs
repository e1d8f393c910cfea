//! The analysis as SVG pictures: readable on light and dark paper, in grey and with any colour vision; exact values in tool tips.

mod attention;
mod canvas;
mod experts;
mod page;
mod panels;
mod pictures;
mod retrieval;
mod scale;

pub use attention::{Line, attention};
pub use pictures::{Picture, effective_ranks, link_overlap, module_scales, of_adapter, of_pair, spectra, staircase, subspaces};
pub use retrieval::retrieval;
