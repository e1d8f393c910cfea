//! A session before it is on a device: everything declared and recorded, all bytes known.

use super::{Recorded, Session};
use crate::adapters::{AdapterLayout, AdapterPool, Capacity};
use crate::formats::ModelFile;
use crate::gpu::device::PlanLimits;
use crate::gpu::executable::Arenas;
use crate::gpu::plan::Footprint;
use crate::gpu::recorder::Untuned;
use crate::gpu::{Executable, Gpu, Plan, Recorder, Store, Tuner};
use crate::model::check::check_rows;
use crate::model::{Base, Inputs, Llama, Recompute, RowParts};
use crate::quant::QuantFormat;
use crate::train::kernels::KernelChoices;
use crate::{Error, Result};

/// What a session is recorded for.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Rows T of a micro-batch.
    pub rows: usize,
    /// Longest position plus one.
    pub positions: usize,
    /// What the forward pass keeps.
    pub recompute: Recompute,
    /// Re-encode float projections at load.
    pub quantize: Option<&'static QuantFormat>,
    /// Record gradients and updates; without, the session only evaluates and neither is planned nor allocated.
    pub training: bool,
}

/// Everything a session needs, declared and recorded; no device yet.
pub struct Planned {
    /// Persistent buffers.
    pub store: Store,
    /// The model.
    pub model: Llama,
    /// All jobs' adapters.
    pub adapters: AdapterPool,
    base: Base,
    inputs: Inputs,
    shape: Shape,
    /// Rows of the smaller micro-batches that are recorded, too, descending.
    smaller: Vec<usize>,
    limits: PlanLimits,
    recordings: Recordings,
}

/// The recordings of a session.
struct Recordings {
    /// By rows, descending.
    sizes: Vec<SizePlans>,
    /// Norm, clipping, AdamW, zeroed gradients.
    update: Plan,
    untuned: Vec<Untuned>,
    kernels: KernelChoices,
}

/// The recordings for one number of rows.
struct SizePlans {
    inputs: Inputs,
    /// Forward and backward of one micro-batch.
    micro: Plan,
    /// Forward and loss.
    eval: Plan,
}

impl Recordings {
    fn all(&self) -> Vec<&Plan> {
        self.sizes.iter().flat_map(|size| [&size.micro, &size.eval]).chain([&self.update]).collect()
    }
}

impl Planned {
    /// Declares and plans a session of one job per layout on the model in `file`. Exact bytes are in [`Planned::footprint`].
    ///
    /// # Errors
    /// What the model, the adapters or the device's limits make impossible.
    pub fn new(file: &ModelFile, layouts: &[&AdapterLayout], shape: Shape, limits: PlanLimits, tuner: &Tuner) -> Result<Planned> {
        Planned::on(Base::declare(file, limits, shape.quantize, shape.rows)?, layouts, shape, limits, tuner)
    }

    /// As [`Planned::new`] on a base that is declared or resident.
    ///
    /// # Errors
    /// As [`Planned::new`].
    pub fn on(base: Base, layouts: &[&AdapterLayout], shape: Shape, limits: PlanLimits, tuner: &Tuner) -> Result<Planned> {
        let mut planned = Planned::within(base, Capacity::exact(layouts.iter().copied()), shape, &[], limits, tuner)?;
        for layout in layouts {
            planned.adapters.add(layout)?;
        }
        Ok(planned)
    }

    /// Declares and plans a session with room for jobs, and none yet. Micro-batches of up to `shape.rows` rows are recorded, and those of
    /// `smaller` numbers of rows, so that a batch of few rows costs less.
    ///
    /// # Errors
    /// As [`Planned::new`].
    pub fn within(base: Base, capacity: Capacity, shape: Shape, smaller: &[usize], limits: PlanLimits, tuner: &Tuner) -> Result<Planned> {
        let mut store = base.store();
        let mut model = Llama::on(&base, &mut store, shape.positions)?;
        model.row_parts = RowParts::of(&base.config, shape.recompute, limits);
        let inputs = Inputs::declare(&mut store, shape.rows, shape.training && capacity.embeddings)?;
        let has_experts = capacity.experts.experts > 0;
        let rank = capacity.sites.values().map(|ranks| ranks.rank).max().unwrap_or(0);
        let adapters = AdapterPool::declare(capacity, &base.config, &mut store, inputs.row_job, limits)?;
        if let Some(entry) = store.entries().into_iter().find(|e| e.bytes > limits.max_binding) {
            let (of_rows, of_experts) = (entry.label.starts_with("inputs."), entry.label.starts_with("experts."));
            return Err(Error::Limit {
                what: format!("buffer {}", entry.label),
                needed: format!("{} bytes in one binding", entry.bytes),
                allowed: format!("{} bytes", limits.max_binding),
                hint: match (of_rows, of_experts) {
                    _ if entry.label == "rope" => "use a shorter --context",
                    (true, _) => "use a smaller --batch or --seq",
                    (_, true) => "use a smaller --batch or --seq, fewer --experts, or fewer jobs at once",
                    _ => "use fewer jobs at once, or a smaller --rank",
                },
            });
        }
        let mut smaller: Vec<usize> = smaller.iter().copied().filter(|rows| *rows < shape.rows).collect();
        smaller.sort_unstable_by(|a, b| b.cmp(a));
        // Experts' rows lie all over the batch.
        let at_once = if has_experts { shape.rows } else { model.row_parts.at_once(shape.rows) };
        check_rows(&base.config, rank, shape.rows, at_once, limits)?;
        let recordings = Recordings::record(&model, &adapters, &inputs, shape, &smaller, limits, tuner)?;
        Ok(Planned { store, model, adapters, base, inputs, shape, smaller, limits, recordings })
    }

    /// The same rows of the same base with another adapter, for evaluation only.
    ///
    /// # Errors
    /// As [`Planned::new`].
    pub fn evaluating(&self, layout: &AdapterLayout, tuner: &Tuner) -> Result<Planned> {
        let mut layout = layout.clone();
        layout.freeze();
        Planned::on(self.base.clone(), &[&layout], Shape { training: false, ..self.shape }, self.limits, tuner)
    }

    /// Exact bytes on the GPU, by purpose.
    pub fn footprint(&self) -> Footprint {
        let all = self.recordings.all();
        let mut footprint = Footprint::of(&self.store, &self.recordings.update);
        let count = all.iter().map(|plan| plan.arenas.len()).max().unwrap_or(0);
        footprint.arenas = (0..count).map(|i| all.iter().filter_map(|plan| plan.arenas.get(i)).max().copied().unwrap_or(0)).sum();
        footprint.params = all.iter().map(|plan| plan.params_bytes).sum();
        footprint
    }

    /// Kernel launches of one micro-batch and of one update.
    pub fn dispatches(&self) -> (usize, usize) {
        (self.recordings.sizes.first().map_or(0, |size| size.micro.dispatches()), self.recordings.update.dispatches())
    }

    /// Kernel choices that its bits depend on.
    pub fn kernels(&self) -> &KernelChoices {
        &self.recordings.kernels
    }

    /// Tunable cases for which the tuner had no choice, with their candidates.
    pub fn untuned(&self) -> &[Untuned] {
        &self.recordings.untuned
    }

    /// The dispatch with the most operations of a micro-batch: its label and how many they are, were all rows one document.
    pub fn longest_dispatch(&self) -> Option<(&str, u64)> {
        self.recordings.sizes.first().and_then(|size| size.micro.longest_dispatch())
    }

    /// The largest range of a buffer that any dispatch binds: the dispatch's label and bytes.
    pub fn largest_binding(&self) -> Option<(&str, u64)> {
        self.recordings.all().into_iter().filter_map(Plan::largest_binding).max_by_key(|(_, bytes)| *bytes)
    }

    /// Model operations per token of a training step as papers count them: 2 N forward and 2 N for input gradients.
    pub fn model_flops_per_token(&self) -> u64 {
        4 * self.model.weights.matmul_parameters()
    }

    /// Measures kernels that `tuner` does not know on this device and records again with the winners.
    ///
    /// # Errors
    /// Errors of the device.
    pub async fn tune(&mut self, gpu: &Gpu, tuner: &mut Tuner) -> Result<usize> {
        let untuned = std::mem::take(&mut self.recordings.untuned);
        if untuned.is_empty() {
            return Ok(0);
        }
        tuner.measure(gpu, &untuned).await?;
        self.recordings = Recordings::record(&self.model, &self.adapters, &self.inputs, self.shape, &self.smaller, self.limits, tuner)?;
        Ok(untuned.len())
    }

    /// Compiles what the session will need, so that [`Planned::realize`] finds it. `progress` gets pipelines done and in all.
    ///
    /// # Errors
    /// A refused shader, a lost device.
    pub async fn prewarm(&self, gpu: &Gpu, progress: impl FnMut(usize, usize)) -> Result<()> {
        gpu.prewarm(&self.recordings.all(), progress).await
    }

    /// Loads the base, where it is not resident yet, so that several sessions can share it. `progress` gets (bytes done, bytes in all).
    ///
    /// # Errors
    /// Out of memory, unreadable weights, a lost device.
    pub async fn load_base(&mut self, gpu: &Gpu, file: &ModelFile, progress: impl FnMut(u64, u64)) -> Result<Base> {
        if !self.base.is_resident() {
            self.base = self.base.load(gpu, file, progress).await?;
            self.base.adopt(&mut self.store);
        }
        Ok(self.base.clone())
    }

    /// Loads the base where it is not resident yet, allocates, compiles. `progress` gets (bytes done, bytes in all) of the weights.
    ///
    /// # Errors
    /// Out of memory, unreadable weights, a lost device.
    pub async fn realize(mut self, gpu: &Gpu, file: &ModelFile, progress: impl FnMut(u64, u64)) -> Result<Session> {
        let footprint = self.footprint();
        self.load_base(gpu, file, progress).await?;
        self.store.allocate(gpu).await?;
        let arenas = Arenas::allocate(gpu, &self.recordings.all()).await?;
        self.model.upload(gpu, &self.store)?;
        self.adapters.upload(gpu, &self.store)?;
        let Recordings { sizes, update, kernels, .. } = self.recordings;
        let mut recorded = Vec::with_capacity(sizes.len());
        for SizePlans { inputs, micro, eval } in sizes {
            let micro = Executable::new(gpu, &self.store, &arenas, micro).await?;
            recorded.push(Recorded { inputs, micro, eval: Executable::new(gpu, &self.store, &arenas, eval).await? });
        }
        let update = Executable::new(gpu, &self.store, &arenas, update).await?;
        let params: u64 = recorded.iter().flat_map(|size| [&size.micro, &size.eval]).chain([&update]).map(Executable::params_bytes).sum();
        let beside = arenas.bytes() + params;
        Ok(Session {
            store: self.store,
            model: self.model,
            adapters: self.adapters,
            base: self.base,
            sizes: recorded,
            update,
            footprint,
            beside,
            kernels,
        })
    }
}

impl Recordings {
    fn record(
        model: &Llama,
        adapters: &AdapterPool,
        inputs: &Inputs,
        shape: Shape,
        smaller: &[usize],
        limits: PlanLimits,
        tuner: &Tuner,
    ) -> Result<Recordings> {
        let mut untuned: Vec<Untuned> = Vec::new();
        let mut plan = |body: &dyn Fn(&mut Recorder)| -> Result<Plan> {
            let mut recorder = Recorder::new(tuner);
            body(&mut recorder);
            for case in recorder.untuned() {
                if !untuned.iter().any(|u| u.key == case.key) {
                    untuned.push(case.clone());
                }
            }
            Plan::new(recorder, limits)
        };
        let mut sizes = Vec::new();
        for rows in std::iter::once(inputs.rows).chain(smaller.iter().copied()) {
            let inputs = inputs.first(rows);
            let micro = plan(&|rec| {
                if shape.training {
                    adapters.record_derived(rec);
                    model.record_train(rec, adapters, &inputs, shape.recompute);
                }
            })?;
            let eval = plan(&|rec| {
                adapters.record_derived(rec);
                model.record_eval(rec, Some(adapters), &inputs);
            })?;
            sizes.push(SizePlans { inputs, micro, eval });
        }
        let update = plan(&|rec| {
            if shape.training {
                adapters.record_update(rec);
            }
        })?;
        let plans = sizes.iter().flat_map(|size| [&size.micro, &size.eval]).chain([&update]);
        let kernels = KernelChoices::of(plans, tuner);
        Ok(Recordings { sizes, update, untuned, kernels })
    }
}
