//! Training: the random numbers and the batches that a run is made of.

pub mod batch;
pub mod rng;
