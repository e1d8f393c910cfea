//! Where one job's parameters are in the pages of a pool.

use std::ops::Range;

use super::super::layout::AdapterLayout;
use super::super::params::ParamSpec;
use super::groups::groups;
use super::spans::Spans;
use super::units::{Part, Unit, Words, parts};
use crate::kernels::lowrank::NO_GRADIENT;
use crate::kernels::optimizer::{self, Block, CONTINUES, Group};

/// Words of a job's own buffer, and where they are: in which page, from which word on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Of the job's own buffer.
    pub words: Range<usize>,
    /// Which page.
    pub page: usize,
    /// First word in the page.
    pub begin: usize,
}

/// One job's part of the buffers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allocation {
    /// Words of its parameters.
    pub values: usize,
    /// Words of its gradients, and of each moment.
    pub grads: usize,
    /// The words of all parameters, in their order.
    pub value_extents: Vec<Extent>,
    /// The same of the gradients: those of the same parameters.
    pub grad_extents: Vec<Extent>,
    parts: Vec<Part>,
    /// Its words of each page.
    pages: Vec<PageWords>,
    groups: Vec<Group>,
}

/// A job's words of one page.
#[derive(Debug, Clone, PartialEq, Default)]
struct PageWords {
    values: Range<usize>,
    grads: Range<usize>,
    /// First word that no parameter has: of what is made from them.
    derived: usize,
}

/// First words of a job's parameters in their pages, by parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    pub values: Vec<u32>,
    /// [`NO_GRADIENT`] where it does not train.
    pub grads: Vec<u32>,
}

impl Allocation {
    /// Takes what a job needs of each page; `page` says where a unit is.
    ///
    /// # Errors
    /// What there is no room among; nothing is taken then.
    pub(super) fn take(
        layout: &AdapterLayout,
        needs: &[Words],
        page: impl Fn(Unit) -> usize,
        (values, grads): (&mut [Spans], &mut [Spans]),
    ) -> Result<Self, &'static str> {
        let (offsets, grad_words) = layout.params.gradient_offsets();
        let mut own = Self {
            values: layout.params.words,
            grads: grad_words,
            parts: parts(layout),
            groups: groups(&layout.params.specs, &offsets),
            ..Self::default()
        };
        for (number, need) in needs.iter().enumerate() {
            let taken = values[number].take(need.values).ok_or("parameters").and_then(|taken| match grads[number].take(need.grads) {
                Some(grads) => Ok(PageWords { derived: taken.start, values: taken, grads }),
                None => {
                    values[number].give_back(taken);
                    Err("gradients")
                }
            });
            match taken {
                Ok(taken) => own.pages.push(taken),
                Err(what) => {
                    own.give_back((values, grads));
                    return Err(what);
                }
            }
        }
        own.lay_out(page);
        Ok(own)
    }

    /// Gives all of it back.
    pub(super) fn give_back(&mut self, (values, grads): (&mut [Spans], &mut [Spans])) {
        for (page, words) in self.pages.drain(..).enumerate() {
            values[page].give_back(words.values);
            grads[page].give_back(words.grads);
        }
    }

    /// Puts the parts of each page one after the other.
    fn lay_out(&mut self, page: impl Fn(Unit) -> usize) {
        let mut grad_ends: Vec<usize> = self.pages.iter().map(|page| page.grads.start).collect();
        for part in &self.parts {
            let page = page(part.unit);
            append(&mut self.value_extents, &part.values, page, &mut self.pages[page].derived);
            append(&mut self.grad_extents, &part.grads, page, &mut grad_ends[page]);
        }
    }

    /// The first word in page `page` that no parameter of the job has: what is made from them comes after.
    pub(super) fn derived(&self, page: usize) -> usize {
        self.pages[page].derived
    }

    /// Whether `layout` has the same parts and groups.
    pub(super) fn suits(&self, layout: &AdapterLayout) -> bool {
        let (offsets, words) = layout.params.gradient_offsets();
        (layout.params.words, words) == (self.values, self.grads)
            && parts(layout) == self.parts
            && groups(&layout.params.specs, &offsets) == self.groups
    }

    /// Where the parameters of `layout` are.
    pub(super) fn places(&self, layout: &AdapterLayout) -> Places {
        let (offsets, _) = layout.params.gradient_offsets();
        let specs = &layout.params.specs;
        let grad = |(spec, offset): (&ParamSpec, &usize)| {
            if spec.trainable { find(&self.grad_extents, *offset).1 as u32 } else { NO_GRADIENT }
        };
        Places {
            values: specs.iter().map(|spec| find(&self.value_extents, spec.offset).1 as u32).collect(),
            grads: specs.iter().zip(&offsets).map(grad).collect(),
        }
    }

    /// Its blocks, each counted once.
    pub(super) fn blocks(&self) -> usize {
        optimizer::blocks(0, 0, &self.groups).len()
    }

    /// Its rows of the blocks table, each with its page. `first_sum` is the place of its first sum; `carry` that of the sums of blocks which lie
    /// in two pages, and is moved on past those.
    pub(super) fn rows(&self, job: usize, mut first_sum: usize, carry: &mut usize) -> Vec<(usize, Block)> {
        let mut rows = Vec::new();
        for group in &self.groups {
            let blocks = optimizer::blocks(job, first_sum, std::slice::from_ref(group));
            first_sum += blocks.len();
            // Two places in turn: a page may begin inside of one block and end inside of another.
            let mut cuts = 0;
            for block in blocks {
                self.cut(block, *carry as u32, &mut cuts, &mut rows);
            }
            *carry += if cuts > 0 { 2 } else { 0 };
        }
        rows
    }

    /// Appends what each page has of one block of the job's own words. `cuts` counts those of the group so far.
    fn cut(&self, block: Block, carry: u32, cuts: &mut u32, rows: &mut Vec<(usize, Block)>) {
        let mut skip = 0;
        let mut page = 0;
        while skip < block.len {
            let (value, begin) = find(&self.value_extents, (block.begin + skip) as usize);
            let (grad, grad_begin) = find(&self.grad_extents, (block.grad_begin + skip) as usize);
            assert!(value.page >= page && grad.page == value.page, "a block goes on in later pages only");
            page = value.page;
            let rest = (value.words.end as u32 - (block.begin + skip)).min(grad.words.end as u32 - (block.grad_begin + skip));
            let len = rest.min(block.len - skip);
            let carry_in = carry + (cuts.wrapping_sub(1) & 1);
            let mut row = Block { begin: begin as u32, grad_begin: grad_begin as u32, len, skip, carry_in, ..block };
            if skip + len < block.len {
                (row.sum, row.carry_out) = (CONTINUES, carry + (*cuts & 1));
                *cuts += 1;
            }
            rows.push((page, row));
            skip += len;
        }
    }
}

impl Places {
    /// Of a job whose buffers lie in one page from these words on.
    #[cfg(test)]
    pub fn at(layout: &AdapterLayout, values: usize, grads: usize) -> Self {
        let (offsets, _) = layout.params.gradient_offsets();
        let specs = &layout.params.specs;
        let grad = |i: usize| if specs[i].trainable { (grads + offsets[i]) as u32 } else { NO_GRADIENT };
        Self { values: specs.iter().map(|spec| (values + spec.offset) as u32).collect(), grads: (0..specs.len()).map(grad).collect() }
    }
}

/// Puts `words` at `end` of a page, and moves that.
fn append(extents: &mut Vec<Extent>, words: &Range<usize>, page: usize, end: &mut usize) {
    match extents.last_mut() {
        Some(last) if last.page == page => last.words.end = words.end,
        _ => extents.push(Extent { words: words.clone(), page, begin: *end }),
    }
    *end += words.len();
}

/// The extent of a word, and where the word is in its page.
fn find(extents: &[Extent], word: usize) -> (&Extent, usize) {
    let at = extents.partition_point(|extent| extent.words.end <= word);
    let extent = &extents[at];
    (extent, extent.begin + word - extent.words.start)
}
