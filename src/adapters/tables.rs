//! The adapters of all jobs on the GPU: one buffer of values, one of gradients, and the table that tells kernels which slice is whose.

use std::collections::BTreeMap;

use super::layout::{AdapterLayout, ParamSpec, SiteAdapter, Slice, Storage};
use super::modules::{Base, ModuleTables};
use super::site::{Projection, Site};
use crate::config::ModelConfig;
use crate::gpu::{Class, Gpu, Recorder, Store, Tensor};
use crate::kernels::lowrank::{JobRow, LowrankSite, LowrankTables, NO_GRADIENT, SiteRow};
use crate::kernels::optimizer::{Group, State};
use crate::{Error, Result};

/// All jobs' adapters within one run.
#[derive(Debug, Clone)]
pub struct AdapterTables {
    /// Values, gradients, moments, norms.
    pub state: State,
    /// `[jobs]` [`JobRow`].
    pub jobs: Tensor,
    tables: LowrankTables,
    modules: ModuleTables,
    sites: BTreeMap<Site, SiteInfo>,
    rows: Vec<SiteRow>,
    job_count: usize,
    dropout: bool,
    half: bool,
    /// Where each job's values and gradients lie.
    pub spans: Vec<Span>,
    model: ModelConfig,
}

/// One site that at least one job adapts.
#[derive(Debug, Clone, Copy)]
struct SiteInfo {
    index: usize,
    r_max: usize,
    t_max: usize,
}

/// One job's part of the flat buffers.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Words of `state.values`.
    pub values: std::ops::Range<usize>,
    /// Words of `state.grads`, `m` and `v`.
    pub grads: std::ops::Range<usize>,
    /// What AdamW updates together.
    pub groups: Vec<Group>,
}

/// Neighbouring trainable parameters with equal settings become one group. Unused rows before a parameter belong to its group: they are
/// zero and stay so.
fn groups(specs: &[ParamSpec], grads: &[usize], values_base: usize, grads_base: usize) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (i, (spec, grad)) in specs.iter().zip(grads).enumerate().filter(|(_, (s, _))| s.trainable) {
        let neighbour = i > 0 && specs[i - 1].trainable;
        let (begin, grad_begin) = (values_base + spec.offset - spec.spare, grads_base + grad - spec.spare);
        let (lr_multiplier, decay) = (spec.lr_multiplier as f32, f32::from(u8::from(spec.weight_decay)));
        let end = begin + spec.spare + spec.len();
        match groups.last_mut() {
            // Nothing but zeros between the two, as much among the values as among the gradients.
            Some(g)
                if neighbour && (g.lr_multiplier, g.decay) == (lr_multiplier, decay) && begin - g.begin == grad_begin - g.grad_begin =>
            {
                g.len = end - g.begin;
            }
            _ => groups.push(Group { begin, grad_begin, len: end - begin, lr_multiplier, decay }),
        }
    }
    groups
}

fn not_one(job: usize, problem: String) -> Error {
    Error::Adapter { adapter: format!("job {job}"), problem, hint: "fold their scales and lay them out side by side first" }
}

/// One job's row of the sites table, or what is wrong with the site. `values` and `grads` are where the job's buffers begin.
fn site_row(
    layout: &AdapterLayout,
    adapter: &SiteAdapter,
    values: usize,
    (offsets, grads): (&[usize], usize),
) -> std::result::Result<SiteRow, String> {
    let specs = &layout.params.specs;
    let wrong = |problem: &str| format!("the products at {} {problem}", adapter.site);
    let [first, ..] = adapter.slices[..] else { return Err(wrong("are none")) };
    if adapter.slices.iter().any(|slice| slice.scale != first.scale) {
        return Err(wrong("have different scales"));
    }
    let adjacent =
        |one: &Slice, next: &Slice| [(one.a, next.a), (one.b, next.b)].iter().all(|&(i, j)| specs[i].range().end == specs[j].offset);
    if !adapter.slices.windows(2).all(|pair| adjacent(&pair[0], &pair[1])) {
        return Err(wrong("are not rows of one stack"));
    }
    let mut row = SiteRow {
        a_offset: (values + specs[first.a].offset) as u32,
        b_offset: (values + specs[first.b].offset) as u32,
        grad_a_offset: NO_GRADIENT,
        grad_b_offset: NO_GRADIENT,
        scale: first.scale,
        ..SiteRow::default()
    };
    for slice in &adapter.slices {
        if specs[slice.a].trainable || specs[slice.b].trainable {
            let whole = row.train_begin == row.train_end;
            if whole {
                row.train_begin = u32::from(row.rank);
                let offset = |param: usize| if specs[param].trainable { (grads + offsets[param]) as u32 } else { NO_GRADIENT };
                (row.grad_a_offset, row.grad_b_offset) = (offset(slice.a), offset(slice.b));
            } else if row.train_end != u32::from(row.rank) {
                return Err(wrong("train with frozen ones between them"));
            }
            row.train_end = u32::from(row.rank) + slice.rank as u32;
        }
        let storage = [specs[slice.a].storage, specs[slice.b].storage];
        match storage {
            [Storage::F32, Storage::F32] if row.half == 0 => {}
            [Storage::F16, Storage::F16] => row.half += slice.rank as u16,
            _ => return Err(wrong("are stored in both ways, or f32 after f16")),
        }
        row.rank += slice.rank as u16;
    }
    Ok(row)
}

impl AdapterTables {
    /// Declares the buffers of `layouts`, one per job, for batches whose rows' jobs are in `row_job`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the slices of a site have different scales or do not lie side by side; [`Error::Limit`] past 32-bit addressing.
    pub fn declare(layouts: &[&AdapterLayout], model: &ModelConfig, store: &mut Store, row_job: Tensor) -> Result<AdapterTables> {
        let mut entries: BTreeMap<Site, (Vec<SiteRow>, usize, usize)> = BTreeMap::new();
        let mut spans = Vec::new();
        let mut modules = ModuleTables::default();
        let (mut values, mut grads) = (0, 0);
        for (job, layout) in layouts.iter().enumerate() {
            let (offsets, grad_words) = layout.params.gradient_offsets();
            // Effective factors come after the job's parameters: they are made anew and belong to no file.
            let mut end = values + layout.params.words;
            for adapter in &layout.sites {
                let mut row = site_row(layout, adapter, values, (&offsets, grads)).map_err(|problem| not_one(job, problem))?;
                end += modules.push(layout, adapter, Base { values, grads, offsets: &offsets }, end, &mut row);
                entries.entry(adapter.site).or_insert_with(|| (vec![SiteRow::default(); layouts.len()], 1, 1)).0[job] = row;
                if let Some((_, r_max, t_max)) = entries.get_mut(&adapter.site) {
                    (*r_max, *t_max) = ((*r_max).max(adapter.max_rank), (*t_max).max(adapter.max_trained));
                }
            }
            let groups = groups(&layout.params.specs, &offsets, values, grads);
            spans.push(Span { values: values..values + layout.params.words, grads: grads..grads + grad_words, groups });
            values = end;
            grads += grad_words;
        }
        modules.declare(store)?;
        let mut tensor = |label: &str, class: Class, len: usize| store.declare(format!("adapter.{label}"), class, len);
        let state = State {
            values: tensor("values", Class::Adapter, values)?,
            grads: tensor("grads", Class::Gradient, grads)?,
            m: tensor("m", Class::Optimizer, grads)?,
            v: tensor("v", Class::Optimizer, grads)?,
            hyper: tensor("hyper", Class::Io, layouts.len() * crate::kernels::optimizer::HYPER_WORDS)?,
            norms: tensor("norms", Class::Io, 2 * layouts.len())?,
        };
        let jobs = tensor("jobs", Class::Io, layouts.len() * size_of::<JobRow>() / 4)?;
        let rows: Vec<SiteRow> = entries.values().flat_map(|(rows, ..)| rows).copied().collect();
        let sites_table = tensor("sites", Class::Io, rows.len() * size_of::<SiteRow>() / 4)?;
        let sites = entries
            .iter()
            .enumerate()
            .map(|(index, (site, (_, r_max, t_max)))| (*site, SiteInfo { index, r_max: *r_max, t_max: *t_max }))
            .collect();
        let tables = LowrankTables { row_job, jobs, sites: sites_table, adapter: state.values, grads: state.grads };
        let dropout = layouts.iter().any(|l| l.dropout > 0.0);
        let half = layouts.iter().any(|l| l.half);
        Ok(AdapterTables {
            state,
            jobs,
            tables,
            modules,
            sites,
            rows,
            job_count: layouts.len(),
            dropout,
            half,
            spans,
            model: model.clone(),
        })
    }

    /// The same adapters for another batch shape (evaluation, generation): other `row_job` and job rows, and no dropout.
    ///
    /// # Errors
    /// [`Error::Limit`] past 32-bit addressing.
    pub fn for_inference(&self, store: &mut Store, row_job: Tensor) -> Result<AdapterTables> {
        let mut other = self.clone();
        other.jobs = store.declare("adapter.jobs", Class::Io, self.jobs.len as usize)?;
        other.tables.row_job = row_job;
        other.tables.jobs = other.jobs;
        other.dropout = false;
        Ok(other)
    }

    /// Records what the low-rank kernels read and no file holds: the factors of modules with their scales in them. Every recording begins
    /// with it, so that nothing can be left from older values.
    pub fn record_derived(&self, rec: &mut Recorder) {
        self.modules.expand(rec, self.state);
    }

    /// Records the gradients of the parameters themselves, once before each update, out of those of what [`Self::record_derived`] made.
    pub fn record_gradients(&self, rec: &mut Recorder) {
        self.modules.gradient(rec, self.state);
    }

    /// The rows of one job, in the order of all jobs' sites.
    pub fn rows(&self, job: usize) -> Vec<SiteRow> {
        self.rows.iter().skip(job).step_by(self.job_count).copied().collect()
    }

    /// Replaces the rows of one job, as [`Self::rows`] gives them; [`Self::upload`] makes it known to the kernels.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn set_rows(&mut self, job: usize, rows: &[SiteRow]) {
        assert_eq!(rows.len() * self.job_count, self.rows.len(), "one row per site");
        self.rows.iter_mut().skip(job).step_by(self.job_count).zip(rows).for_each(|(old, new)| *old = *new);
    }

    /// Takes another layout of one job, with the same sites, sizes and optimizer groups: the next stage of a chain.
    ///
    /// # Errors
    /// When a site cannot be described by one row.
    ///
    /// # Panics
    /// When the layout is not of the same size: a bug in the method.
    pub fn relayout(&mut self, job: usize, layout: &AdapterLayout) -> Result<()> {
        let span = &self.spans[job];
        let (offsets, words) = layout.params.gradient_offsets();
        assert_eq!((layout.params.words, words), (span.values.len(), span.grads.len()), "a stage has the size of the chain");
        assert_eq!(
            groups(&layout.params.specs, &offsets, span.values.start, span.grads.start),
            span.groups,
            "a stage has the chain's slot"
        );
        let (values, grads) = (span.values.start, span.grads.start);
        for adapter in &layout.sites {
            let row = site_row(layout, adapter, values, (&offsets, grads)).map_err(|problem| not_one(job, problem))?;
            let info = self.sites[&adapter.site];
            assert!(row.rank as usize <= info.r_max && row.train_end as usize <= info.t_max, "a stage fits the chain's buffers");
            self.rows[info.index * self.job_count + job] = row;
        }
        Ok(())
    }

    /// Writes the tables, after allocation and after changes.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffers were not allocated.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        self.modules.upload(gpu, store)?;
        store.write(gpu, self.tables.sites, &self.rows)
    }

    /// The adapters at one linear layer, `None` where no job has one.
    pub fn site(&self, layer: usize, projection: Projection, rows: usize) -> Option<LowrankSite> {
        let info = self.sites.get(&Site { layer, projection })?;
        let (n, k) = projection.shape(&self.model);
        Some(LowrankSite {
            rows,
            k,
            n,
            r_max: info.r_max,
            t_max: info.t_max,
            site: info.index,
            jobs: self.job_count,
            dropout: self.dropout,
            half: self.half,
            tables: self.tables,
        })
    }

    /// Number of jobs.
    pub fn job_count(&self) -> usize {
        self.job_count
    }

    /// The lowest block with an adapter: nothing below it needs a gradient.
    pub fn lowest_layer(&self) -> Option<usize> {
        self.sites.keys().map(|s| s.layer).min()
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::{ALIGN, Init, ParamLayout};
    use super::*;

    const WIDTHS: (usize, usize) = (48, 48);

    fn spec(name: &str, rank: usize, trainable: bool, follows: bool, spare: usize) -> ParamSpec {
        let (transposed, width) = (name.ends_with('B'), WIDTHS.0);
        let shape = if transposed { vec![width, rank] } else { vec![rank, width] };
        let name = name.to_owned();
        ParamSpec {
            name,
            shape,
            transposed,
            offset: 0,
            follows,
            spare: spare * width,
            init: Init::Zeros,
            lr_multiplier: 1.0,
            weight_decay: true,
            trainable,
            storage: Storage::F32,
        }
    }

    /// One site with a slot of three ranks, of which the trainable slice fills two, and frozen slices of ranks 1 and 2 after it.
    fn layout() -> AdapterLayout {
        stored([Storage::F32; 2])
    }

    /// The same with the frozen slices stored like this.
    fn stored([old, oldest]: [Storage; 2]) -> AdapterLayout {
        let mut params = ParamLayout::default();
        let mut stack = |half: &str| {
            let trained = params.push(spec(&format!("new.{half}"), 2, true, false, 1));
            [
                trained,
                params.push(ParamSpec { storage: old, ..spec(&format!("old.{half}"), 1, false, true, 0) }),
                params.push(ParamSpec { storage: oldest, ..spec(&format!("oldest.{half}"), 2, false, true, 0) }),
            ]
        };
        let (a, b) = (stack("A"), stack("B"));
        let slice = |i: usize, rank: usize| Slice { a: a[i], b: b[i], rank, alpha: 4.0, scale: 2.0 };
        let site = SiteAdapter::new(Site { layer: 0, projection: Projection::Q }, vec![slice(0, 2), slice(1, 1), slice(2, 2)]);
        AdapterLayout { sites: vec![site], params, dropout: 0.0, half: false, rslora: false, blocks: 1 }
    }

    fn row(layout: &AdapterLayout) -> std::result::Result<SiteRow, String> {
        let (offsets, _) = layout.params.gradient_offsets();
        site_row(layout, &layout.sites[0], 1000, (&offsets, 500))
    }

    #[test]
    fn slices_side_by_side_are_one_product() {
        let layout = layout();
        let a_words = (6 * 48usize).next_multiple_of(ALIGN);
        let grad_b = (3 * 48usize).next_multiple_of(ALIGN);
        let (offsets, words) = layout.params.gradient_offsets();
        assert_eq!((layout.params.words, words), (2 * a_words, 2 * grad_b));
        let expected = SiteRow {
            rank: 5,
            half: 0,
            a_offset: 1000 + 48,
            b_offset: (1000 + a_words + 48) as u32,
            grad_a_offset: 500 + 48,
            grad_b_offset: (500 + grad_b + 48) as u32,
            train_begin: 0,
            train_end: 2,
            scale: 2.0,
        };
        assert_eq!(row(&layout), Ok(expected));
        // The optimizer covers the slot, unused row included, and no word of a frozen slice.
        let group = |begin, grad_begin| Group { begin, grad_begin, len: 3 * 48, lr_multiplier: 1.0, decay: 1.0 };
        assert_eq!(groups(&layout.params.specs, &offsets, 1000, 500), [group(1000, 500), group(1000 + a_words, 500 + grad_b)]);
    }

    #[test]
    fn factors_train_alone_and_what_is_no_stack_is_refused() {
        let mut rac = layout();
        rac.params.specs[0].trainable = false;
        let found = row(&rac).expect("a row");
        assert_eq!((found.grad_a_offset, found.grad_b_offset, found.train_end), (NO_GRADIENT, 500 + 48, 2));
        let refused = |change: &dyn Fn(&mut AdapterLayout), why: &str| {
            let mut other = layout();
            change(&mut other);
            let problem = row(&other).expect_err("refused");
            assert!(problem.contains(why), "{problem}");
        };
        refused(&|l| l.sites[0].slices[1].scale = 1.0, "different scales");
        refused(&|l| l.sites[0].slices.swap(1, 2), "not rows of one stack");
        refused(&|l| l.sites[0].slices.clear(), "are none");
        refused(&|l| [2, 5].iter().for_each(|i| l.params.specs[*i].trainable = true), "frozen ones between");
    }

    #[test]
    fn the_last_slices_may_be_f16() {
        let halves = |storage| row(&stored(storage)).map(|row| (row.rank, row.half));
        assert_eq!(halves([Storage::F16; 2]), Ok((5, 3)));
        assert_eq!(halves([Storage::F32, Storage::F16]), Ok((5, 2)));
        assert!(halves([Storage::F16, Storage::F32]).expect_err("refused").contains("f32 after f16"));
        let words = |storage| stored(storage).params.words;
        assert_eq!(words([Storage::F16; 2]), 2 * (3 * 48 + 3 * 24usize).next_multiple_of(ALIGN));
        assert!(words([Storage::F16; 2]) < words([Storage::F32; 2]));
    }

    #[test]
    fn parallel_trainable_slices_are_updated_together() {
        let mut all = layout();
        all.params.specs.iter_mut().for_each(|spec| spec.trainable = true);
        let found = row(&all).expect("a row");
        assert_eq!((found.train_begin, found.train_end), (0, 5));
        let (offsets, words) = all.params.gradient_offsets();
        assert_eq!(words, all.params.words);
        let [group] = groups(&all.params.specs, &offsets, 0, 0)[..] else { unreachable!("one group") };
        assert_eq!((group.begin, group.grad_begin, group.len), (0, 0, words / 2 + 6 * 48));
    }
}
