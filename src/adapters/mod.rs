//! Adapters: which linear layers get one, what parameters it has, how it starts.
//!
//! Pure CPU: the kernels see only an [`AdapterLayout`]. To add a method: a file here that turns an [`AdapterConfig`] into a layout,
//! and a row in [`METHODS`]; its settings become keys of run files and flags of the command line by themselves.

pub mod chain;
pub mod cola;
pub mod config;
pub mod embeddings;
pub mod experts;
pub mod init;
pub mod layout;
pub mod lora;
pub mod method;
pub mod methods;
pub mod mixlora;
pub mod multilora;
pub mod norms;
pub mod params;
pub mod patterns;
pub mod pool;
pub mod product;
pub mod site;

pub use chain::ChainConfig;
pub use config::AdapterConfig;
pub use experts::Experts;
pub use init::initial_buffer;
pub use layout::{AdapterLayout, SiteAdapter};
pub use method::{Method, OptionKind, OptionSpec};
pub use methods::METHODS;
pub use params::{Init, ParamLayout, ParamSpec, Storage};
pub use patterns::Patterns;
pub use pool::{AdapterPool, Capacity, ModuleCapacity};
pub use product::Slice;
pub use site::{Projection, Site};
