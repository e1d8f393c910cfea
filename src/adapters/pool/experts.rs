//! Routers and experts of all jobs: their tables, and the buffers that hold a batch's routing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::experts::{Balance, Experts, Routing, Strategy};
use super::super::layout::{AdapterLayout, SiteAdapter};
use super::super::params::ALIGN;
use super::super::product::Slice;
use super::super::site::{Projection, Site};
use super::places::Places;
use super::ranks::Ranks;
use super::slots::{not_one, site_row};
use crate::config::ModelConfig;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::lowrank::{LowrankSite, LowrankTables, NO_GRADIENT, Segment, SiteRow};
use crate::kernels::moe::{MOST_SEGMENTS, Moe, MoeShape, Routed, RouterRow, Stats, strategy};
use crate::{Error, Result};

/// Dropout keys of experts' layers follow those of the layers themselves.
const KEYS: u32 = 1 << 24;

/// Room for routers and experts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExpertCapacity {
    /// Experts of all jobs.
    pub segments: usize,
    /// Most experts of a job.
    pub experts: usize,
    /// Most experts of a row.
    pub choices: usize,
    /// Blocks that may have a router.
    pub layers: BTreeSet<usize>,
    /// Layers that may have experts.
    pub sites: BTreeMap<Site, Ranks>,
    /// Whether an expert may drop inputs.
    pub dropout: bool,
    /// Whether a router may have a capacity.
    pub capacity: bool,
    /// Whether a job may jitter its inputs.
    pub jitter: bool,
}

impl ExpertCapacity {
    /// What one job needs.
    pub(super) fn of(layout: &AdapterLayout) -> Self {
        let Some(Experts { routing, routers, sites, dropout }) = &layout.experts else { return Self::default() };
        let rank = |experts: &[Slice]| experts.iter().map(|slice| slice.rank).max().unwrap_or(0);
        let ranks = |experts: &[Slice]| Ranks { rank: rank(experts), trained: rank(experts) };
        Self {
            segments: routing.experts,
            experts: routing.experts,
            choices: choices(routing),
            layers: routers.iter().map(|router| router.layer).collect(),
            sites: sites.iter().map(|expert| (expert.site, ranks(&expert.experts))).collect(),
            dropout: *dropout > 0.0,
            capacity: routing.strategy == Strategy::Switch,
            jitter: routing.jitter > 0.0,
        }
    }

    pub(super) fn and(mut self, other: Self) -> Self {
        for (site, ranks) in other.sites {
            let here = self.sites.entry(site).or_default();
            *here = here.max(ranks);
        }
        self.layers.extend(other.layers);
        Self {
            segments: self.segments + other.segments,
            experts: self.experts.max(other.experts),
            choices: self.choices.max(other.choices),
            layers: self.layers,
            sites: self.sites,
            dropout: self.dropout || other.dropout,
            capacity: self.capacity || other.capacity,
            jitter: self.jitter || other.jitter,
        }
    }

    /// The next of few sizes.
    pub(super) fn rounded(mut self) -> Self {
        if self.segments > 0 {
            self.segments = self.segments.next_power_of_two();
            self.experts = self.experts.next_multiple_of(4);
            let most = self.sites.values().fold(Ranks::default(), |most, ranks| most.max(*ranks));
            self.sites.values_mut().for_each(|ranks| *ranks = most.rounded());
        }
        self
    }

    pub(super) fn holds(&self, need: &Self) -> bool {
        let fits = |(site, ranks): (&Site, &Ranks)| self.sites.get(site).is_some_and(|here| here.max(*ranks) == *here);
        need.sites.iter().all(fits)
            && need.layers.is_subset(&self.layers)
            && need.segments <= self.segments
            && need.experts <= self.experts
            && need.choices <= self.choices
            && (self.dropout || !need.dropout)
            && (self.capacity || !need.capacity)
            && (self.jitter || !need.jitter)
    }
}

fn choices(routing: &Routing) -> usize {
    match routing.strategy {
        Strategy::TopK => routing.top_k,
        Strategy::TopP => routing.experts,
        Strategy::Switch => 1,
    }
}

/// The routers and experts of all jobs.
#[derive(Debug, Clone)]
pub(super) struct ExpertTables {
    capacity: ExpertCapacity,
    jobs: usize,
    /// Segments of each job.
    placed: Vec<Option<usize>>,
    router_rows: Vec<RouterRow>,
    gate_rows: Vec<SiteRow>,
    expert_rows: Vec<SiteRow>,
    routers: Tensor,
    gates: Tensor,
    experts: Tensor,
    norms: Tensor,
    buffers: Buffers,
}

/// What holds a batch's routing, block after block.
#[derive(Debug, Clone, Copy)]
struct Buffers {
    rows: usize,
    probs: Tensor,
    places: Tensor,
    weight: Tensor,
    slots: Tensor,
    segments: Tensor,
    chosen: Tensor,
    aux: Tensor,
    stats: Tensor,
}

/// What one job's routers and experts did in a micro-batch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RouterStats {
    /// By block: number in the model, and by expert its mean probability P and the share f of rows that chose it.
    pub blocks: Vec<BlockStats>,
}

/// One block of [`RouterStats`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BlockStats {
    /// Which block.
    pub layer: usize,
    /// Mean probability of each expert.
    pub probability: Vec<f32>,
    /// Share of the rows that chose each expert; they sum to the experts of a row.
    pub load: Vec<f32>,
    /// Mean entropy of the probabilities in nats.
    pub entropy: f32,
    /// Mean square of the log-sum-exp of the logits.
    pub z: f32,
}

fn size(capacity: &ExpertCapacity, jobs: usize, rows: usize, training: bool) -> MoeShape {
    let shape = MoeShape {
        rows,
        jobs,
        segments: capacity.segments,
        choices: capacity.choices,
        experts: capacity.experts,
        layers: capacity.layers.len(),
        layer_probs: 0,
        training,
    };
    MoeShape { layer_probs: (rows * shape.prob_stride()).next_multiple_of(ALIGN), ..shape }
}

impl Buffers {
    fn declare(capacity: &ExpertCapacity, jobs: usize, rows: usize, store: &mut Store) -> Result<Self> {
        let shape = size(capacity, jobs, rows, false);
        let layers = shape.layers;
        let mut tensor =
            |label: &str, words: usize| store.declare(format!("experts.{label}"), Class::Io, layers * words.next_multiple_of(ALIGN));
        Ok(Self {
            rows,
            probs: tensor("probs", rows * shape.prob_stride())?,
            places: tensor("places", rows * shape.choices * 2)?,
            weight: tensor("weight", rows * shape.choices)?,
            slots: tensor("slots", shape.slot_words())?,
            segments: tensor("segments", shape.segments * size_of::<Segment>() / 4)?,
            chosen: store.declare("experts.chosen", Class::Io, layers * shape.segments)?,
            aux: store.declare("experts.aux", Class::Io, layers * (shape.segments + shape.jobs))?,
            stats: store.declare("experts.stats", Class::Io, layers * shape.stat_words())?,
        })
    }
}

impl ExpertTables {
    /// Declares tables and buffers, where there is room for anything in them.
    ///
    /// # Errors
    /// [`Error::Limit`] for more experts than a recording can have.
    pub fn declare(capacity: &ExpertCapacity, jobs: usize, rows: usize, store: &mut Store) -> Result<Option<Self>> {
        if capacity.segments == 0 {
            return Ok(None);
        }
        if capacity.segments > MOST_SEGMENTS {
            return Err(Error::Limit {
                what: "experts of all jobs".into(),
                needed: capacity.segments.to_string(),
                allowed: MOST_SEGMENTS.to_string(),
                hint: "use fewer --experts, or fewer jobs at once",
            });
        }
        let (layers, sites) = (capacity.layers.len(), capacity.sites.len());
        let mut table = |label: &str, words: usize| store.declare(format!("experts.{label}"), Class::Io, words);
        let row_words = size_of::<SiteRow>() / 4;
        let routers = table("routers", layers * jobs * size_of::<RouterRow>() / 4)?;
        let gates = table("gates", layers * jobs * row_words)?;
        let experts = table("sites", sites * capacity.segments * row_words)?;
        let norms = table("router_norms", layers * jobs)?;
        Ok(Some(Self {
            capacity: capacity.clone(),
            jobs,
            placed: vec![None; jobs],
            router_rows: vec![RouterRow::default(); layers * jobs],
            gate_rows: vec![SiteRow::default(); layers * jobs],
            expert_rows: vec![SiteRow::default(); sites * capacity.segments],
            routers,
            gates,
            experts,
            norms,
            buffers: Buffers::declare(capacity, jobs, rows, store)?,
        }))
    }

    /// The same tables for batches of other rows.
    pub fn for_inference(&self, rows: usize, store: &mut Store) -> Result<Self> {
        Ok(Self { buffers: Buffers::declare(&self.capacity, self.jobs, rows, store)?, ..self.clone() })
    }

    /// First of the segments that a job with `count` experts can have.
    fn room(&self, count: usize) -> Option<usize> {
        let first_rows = self.router_rows.iter();
        let mut taken: Vec<(usize, usize)> =
            first_rows.filter(|row| row.experts > 0).map(|row| (row.first_segment as usize, row.experts as usize)).collect();
        taken.sort_unstable();
        let mut begin = 0;
        for (first, experts) in taken {
            if first >= begin + count {
                break;
            }
            begin = begin.max(first + experts);
        }
        (begin + count <= self.capacity.segments).then_some(begin)
    }

    /// Writes a job's rows of the tables.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where its experts do not fit beside the others'.
    pub fn describe(&mut self, job: usize, layout: &AdapterLayout, places: &Places) -> Result<()> {
        self.remove(job);
        let Some(own) = &layout.experts else { return Ok(()) };
        let full = || Error::OutOfMemory { what: "experts beside the others".into(), bytes: 0 };
        let first = self.room(own.routing.experts).ok_or_else(full)?;
        self.placed[job] = Some(first);
        for router in &own.routers {
            let at = self.place_of(router.layer) * self.jobs + job;
            let row = Segment::new(0..0).with_dropout(own.dropout, 0, 0);
            self.router_rows[at] = router_row(&own.routing, own.routers.len(), router.layer, first, row);
            self.gate_rows[at] = SiteRow {
                rank: own.routing.experts as u16,
                a_offset: places.values[router.param],
                grad_a_offset: places.grads[router.param],
                grad_b_offset: NO_GRADIENT,
                train_end: own.routing.experts as u32,
                scale: 1.0,
                ..SiteRow::default()
            };
        }
        for expert in &own.sites {
            let site = self.capacity.sites.keys().position(|site| *site == expert.site).ok_or_else(full)?;
            for (e, slice) in expert.experts.iter().enumerate() {
                let one = SiteAdapter::new(expert.site, vec![*slice]);
                let row = site_row(layout, &one, places).map_err(|problem| not_one(job, problem))?;
                self.expert_rows[site * self.capacity.segments + first + e] = row;
            }
        }
        Ok(())
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: usize) {
        let rows = self.router_rows.iter_mut().zip(&mut self.gate_rows).skip(job).step_by(self.jobs);
        let mut segments = 0..0;
        for (router, gate) in rows {
            if router.experts > 0 {
                segments = router.first_segment as usize..(router.first_segment + router.experts) as usize;
            }
            (*router, *gate) = (RouterRow::default(), SiteRow::default());
        }
        for site in self.expert_rows.chunks_exact_mut(self.capacity.segments) {
            site[segments.clone()].fill(SiteRow::default());
        }
        self.placed[job] = None;
    }

    /// Writes the tables.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        store.write(gpu, self.routers, &self.router_rows)?;
        store.write(gpu, self.gates, &self.gate_rows)?;
        store.write(gpu, self.experts, &self.expert_rows)
    }

    /// Which of the blocks with a router a block is.
    fn place_of(&self, layer: usize) -> usize {
        self.capacity.layers.range(..layer).count()
    }

    fn shape(&self, rows: usize, training: bool) -> MoeShape {
        size(&self.capacity, self.jobs, rows, training)
    }

    /// The routing of one block, if it may have a router. `tables` are those of the pages of routers and of the block's experts.
    pub fn block(
        &self,
        layer: usize,
        rows: usize,
        documents: Tensor,
        training: bool,
        (gates, tables): (LowrankTables, LowrankTables),
        model: &ModelConfig,
    ) -> Option<ExpertBlock> {
        if !self.capacity.layers.contains(&layer) {
            return None;
        }
        let (shape, place, b) = (self.shape(rows, training), self.place_of(layer), &self.buffers);
        assert!(rows <= b.rows, "{rows} rows of at most {}", b.rows);
        let of = |tensor: Tensor, words: usize| {
            let begin = place * words.next_multiple_of(ALIGN);
            tensor.slice(begin..begin + words)
        };
        let routed = Routed {
            probs: of(b.probs, rows * shape.prob_stride()),
            places: of(b.places, rows * shape.choices * 2),
            weight: of(b.weight, rows * shape.choices),
            slots: of(b.slots, shape.slot_words()),
            segments: of(b.segments, shape.segments * size_of::<Segment>() / 4),
            chosen: b.chosen,
            aux: b.aux,
        };
        let moe = Moe { shape, layer: place, row_job: tables.row_job, jobs: tables.jobs, routers: self.routers, documents, routed };
        let gate = LowrankSite {
            rows,
            range: None,
            k: model.hidden_size,
            n: shape.stride(),
            r_max: shape.experts,
            t_max: shape.experts,
            site: place,
            dropout_key: 0,
            jobs: self.jobs,
            dropout: false,
            half: false,
            tables: LowrankTables { sites: self.gates, ..gates },
        };
        let slots = LowrankTables { row_job: moe.slot_segment(), jobs: routed.segments, sites: self.experts, ..tables };
        let expert = |projection: Projection| {
            let site = Site { layer, projection };
            let ranks = self.capacity.sites.get(&site)?;
            let (n, k) = projection.shape(model);
            Some(LowrankSite {
                rows: shape.slots(),
                range: None,
                k,
                n,
                r_max: ranks.rank.max(1),
                t_max: ranks.trained.max(1),
                site: self.capacity.sites.range(..site).count(),
                dropout_key: KEYS + site.number(),
                jobs: self.capacity.segments,
                dropout: self.capacity.dropout && training,
                half: false,
                tables: slots,
            })
        };
        let [gate_proj, up, down] = [Projection::Gate, Projection::Up, Projection::Down].map(expert);
        // One kernel puts together what all of them add.
        let most = |of: fn(&LowrankSite) -> usize| gate_proj.iter().chain(&up).chain(&down).map(of).max().unwrap_or(1);
        let (r_max, t_max) = (most(|site| site.r_max), most(|site| site.t_max));
        let [gate_proj, up, down] = [gate_proj, up, down].map(|site| site.map(|site| LowrankSite { r_max, t_max, ..site }));
        Some(ExpertBlock {
            moe,
            router: gate,
            gate: gate_proj,
            up,
            down,
            tables: slots,
            capacity: self.capacity.capacity,
            jitter: self.capacity.jitter,
        })
    }

    /// Records the balance losses' coefficients and the statistics of all blocks.
    pub fn balance(&self, rec: &mut Recorder, rows: usize, jobs: Tensor) {
        let b = &self.buffers;
        self.shape(rows, true).balance(rec, jobs, self.routers, Stats { probs: b.probs, chosen: b.chosen, aux: b.aux, stats: b.stats });
    }

    /// Records the norms of the routers' gradients.
    pub fn router_norms(&self, rec: &mut Recorder, grads: Tensor, model: &ModelConfig) {
        self.shape(self.buffers.rows, true).router_norms(rec, model.hidden_size, self.gates, grads, self.norms);
    }

    /// What [`Self::job_stats`] and [`Self::job_norms`] read.
    pub fn outputs(&self) -> (Tensor, Tensor) {
        (self.buffers.stats, self.norms)
    }

    /// A job's part of the statistics; `None` where it has no router.
    pub fn job_stats(&self, job: usize, stats: &[f32]) -> Option<RouterStats> {
        self.placed.get(job).copied().flatten()?;
        let shape = self.shape(self.buffers.rows, true);
        let mut blocks = Vec::new();
        for (place, layer) in self.capacity.layers.iter().enumerate() {
            let row = self.router_rows[place * self.jobs + job];
            if row.experts > 0 {
                let block = &stats[place * shape.stat_words()..][..shape.stat_words()];
                let own = &block[2 * row.first_segment as usize..][..2 * row.experts as usize];
                let of_job = &block[2 * (shape.segments + job)..][..2];
                blocks.push(BlockStats {
                    layer: *layer,
                    probability: own.iter().step_by(2).copied().collect(),
                    load: own.iter().skip(1).step_by(2).copied().collect(),
                    entropy: of_job[0],
                    z: of_job[1],
                });
            }
        }
        Some(RouterStats { blocks })
    }

    /// The norm of the gradient of all of a job's routers together.
    pub fn job_norm(&self, job: usize, norms: &[f32]) -> Option<f32> {
        self.placed.get(job).copied().flatten()?;
        let squares = norms.iter().skip(job).step_by(self.jobs).map(|norm| norm * norm);
        Some(squares.sum::<f32>().sqrt())
    }
}

/// What a recording of one block needs: its routing, the router as a low-rank product, the experts' products on slots.
#[derive(Debug, Clone, Copy)]
pub struct ExpertBlock {
    /// The routing.
    pub moe: Moe,
    /// A is the router's weight; there is no B.
    pub router: LowrankSite,
    /// Experts beside `gate_proj`, where there are any.
    pub gate: Option<LowrankSite>,
    /// Experts beside `up_proj`.
    pub up: Option<LowrankSite>,
    /// Experts beside `down_proj`.
    pub down: Option<LowrankSite>,
    /// The tables of the experts' products.
    pub tables: LowrankTables,
    /// Whether experts may be full.
    pub capacity: bool,
    /// Whether inputs may be jittered.
    pub jitter: bool,
}

fn router_row(routing: &Routing, layers: usize, layer: usize, first: usize, dropout: Segment) -> RouterRow {
    RouterRow {
        first_segment: first as u32,
        experts: routing.experts as u32,
        strategy: match routing.strategy {
            Strategy::TopK => strategy::TOP_K,
            Strategy::TopP => strategy::TOP_P,
            Strategy::Switch => strategy::SWITCH,
        },
        choices: choices(routing) as u32,
        top_p: routing.top_p as f32,
        temperature: if routing.temperature > 0.0 { routing.temperature as f32 } else { 1.0 },
        renormalize: u32::from(routing.strategy == Strategy::TopK || routing.renormalize),
        capacity: routing.capacity.min(u32::MAX as usize) as u32,
        jitter: routing.jitter as f32,
        aux_coef: routing.aux_coef as f32,
        z_coef: routing.z_coef as f32,
        layers: layers as u32,
        concatenated: u32::from(routing.balance == Balance::Concatenated),
        dropout_threshold: dropout.dropout_threshold,
        keep: dropout.keep,
        block: layer as u32,
    }
}
