//! The frozen base: declared from a header for plans, loaded once per device for everything that runs on it.

use std::sync::Arc;

use super::Weights;
use super::check::check_shape;
use crate::Result;
use crate::config::ModelConfig;
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::{Gpu, Store};
use crate::quant::QuantFormat;

/// The weights of a model and the store that holds them. Training, evaluation and generation lay their own stores over it
/// ([`Store::over`]) and record against its weights; it is freed when the last of them is.
#[derive(Debug, Clone)]
pub struct Base {
    /// Shape.
    pub config: ModelConfig,
    /// Frozen weights.
    pub weights: Arc<Weights>,
    store: Arc<Store>,
    resident: bool,
}

impl Base {
    /// Declares the weights of `file` for products with up to `rows` rows of activations; reads nothing but the header. `quantize` re-encodes
    /// float projections at load.
    ///
    /// # Errors
    /// [`crate::Error::Unsupported`] for a shape that no kernel is written for; else as [`Weights::declare`].
    pub fn declare(file: &ModelFile, limits: PlanLimits, quantize: Option<&'static QuantFormat>, rows: usize) -> Result<Base> {
        check_shape(file.name(), &file.config)?;
        let mut store = Store::new();
        let weights = Weights::declare(file, &mut store, limits, quantize, rows)?;
        Ok(Base { config: file.config.clone(), weights: Arc::new(weights), store: shared(store), resident: false })
    }

    /// `resident`, where it suits products with `rows` rows of activations; else the base declared for them.
    ///
    /// # Errors
    /// As [`Base::declare`].
    pub fn suiting(
        resident: Option<&Base>,
        file: &ModelFile,
        limits: PlanLimits,
        quantize: Option<&'static QuantFormat>,
        rows: usize,
    ) -> Result<Base> {
        match resident.filter(|base| base.suits(rows, limits)) {
            Some(base) => Ok(base.clone()),
            None => Base::declare(file, limits, quantize, rows),
        }
    }

    /// The same base on a device: allocates, streams the weights. `progress` gets (bytes done, bytes in all). A base that is there
    /// already is given back as it is.
    ///
    /// # Errors
    /// Out of memory, unreadable weights, a lost device.
    pub async fn load(&self, gpu: &Gpu, file: &ModelFile, progress: impl FnMut(u64, u64)) -> Result<Base> {
        if self.resident {
            return Ok(self.clone());
        }
        let mut store = self.store.declared();
        store.allocate(gpu).await?;
        self.weights.upload(gpu, &store, file, progress).await?;
        Ok(Base { store: shared(store), resident: true, ..self.clone() })
    }

    /// The same weights under another configuration of the same shape: other rotary angles.
    #[must_use]
    pub fn with_config(self, config: ModelConfig) -> Base {
        Base { config, ..self }
    }

    /// Whether the weights are on a device.
    pub fn is_resident(&self) -> bool {
        self.resident
    }

    /// Whether products with `rows` rows of activations keep within `limits`: projections that lie below each other are multiplied
    /// together, and their outputs must fit one binding. A base that was declared for other rows may have to be declared anew.
    pub fn suits(&self, rows: usize, limits: PlanLimits) -> bool {
        self.weights.largest_joint_output(rows) <= limits.addressable()
    }

    /// A store for what is recorded against this base.
    pub fn store(&self) -> Store {
        Store::over(self.store.clone())
    }

    /// Puts `store`, which was made by the declared base, over this one.
    ///
    /// # Panics
    /// When it is of another base.
    pub fn adopt(&self, store: &mut Store) {
        store.rebase(self.store.clone());
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> u64 {
        self.store.entries().iter().map(|entry| entry.bytes).sum()
    }
}

#[allow(clippy::arc_with_non_send_sync, reason = "wgpu's handles may change threads everywhere but in a browser")]
fn shared(store: Store) -> Arc<Store> {
    Arc::new(store)
}
