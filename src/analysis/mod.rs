//! What an update `ΔW = Σ c_j B_j A_j` does to a weight: its singular values, how many directions it uses, and which directions two updates
//! share. Pure CPU in f64, and always from the factors: QR of the tall ones and an SVD of the small core, so that no `ΔW` is ever formed.
//!
//! [`spectrum`] is for one product, [`decompose`] gives singular vectors too and takes a sum of products (the links of a chain, the modules of
//! MultiLoRA), [`similarity`] and [`links`] compare, [`SiteModules`] measures what only a run of MultiLoRA knows, [`ExpertsReport`] is of MixLoRA's experts. [`report`] does it for every site of an adapter, [`svg`] draws the report.

mod experts;
mod factors;
mod links;
mod load;
mod matrix;
pub mod median;
mod modules;
mod qr;
pub mod report;
mod similarity;
pub mod site_report;
mod spectrum;
mod svd;
pub mod svg;

pub use experts::{BlockExperts, ExpertsReport};
pub use factors::{Factors, Svd, decompose, decompose_cut, inner_product};
pub use links::{Links, links};
pub use load::RouterLoad;
pub use matrix::Matrix;
pub use modules::{Module, ModuleReport, Modules, SiteModules, mean_scales, scale_words};
pub use similarity::{Grid, Similarity, similarity};
pub use spectrum::{Spectrum, spectrum, spectrum_of_sum};
