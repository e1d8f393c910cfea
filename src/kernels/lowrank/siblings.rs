//! The dispatches of the low-rank products, for several linear layers of one input at once.

use bytemuck::{Pod, Zeroable};

use super::candidates::{self, Chunks, Lanes, Work};
use super::{LowrankSite, RowRange, Segment, SiteRow};
use crate::gpu::{Candidate, Dispatch, Recorder, Tensor};
use crate::kernels::matrix::MOST_MEMBERS;

/// Adapters beside linear layers of one input (q, k and v, or gate and up, or one alone): each product is one dispatch for all of them.
///
/// Their outputs `[rows, n]` are one tensor, each at a place of its own, and their inner activations are `[layers · rows, stride]`, layer after
/// layer, with the stride of the largest rank. Every layer has the bits that it has alone.
#[derive(Debug, Clone)]
pub struct LowrankSiblings {
    /// One to three, which share rows, inputs, jobs and tables.
    sites: Vec<LowrankSite>,
    /// First word of each one's outputs.
    outputs: Vec<usize>,
    /// Where sums of gradients wait, where the rows are a range of the batch.
    carry: Option<Carry>,
}

/// Sums of gradients on their way from one range of rows to the next, of layers of one input: `[layers, 2, jobs, ranks, width]`, each layer with
/// its own width (`shaders/lib/lowrank_carry.wgsl`).
#[derive(Debug, Clone, Copy)]
pub struct Carry {
    /// Of `dA`.
    a: Tensor,
    /// Of `dBt`.
    bt: Tensor,
}

/// One layer of a dispatch, as `shaders/lib/lowrank.wgsl` has it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
struct Layer {
    width: u32,
    site: u32,
    dropout_key: u32,
    wide: u32,
    inner: u32,
    carry: u32,
    pad: [u32; 2],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    jobs: u32,
    matrix: u32,
    scaled: u32,
    r_max: u32,
    count: u32,
    chunks: u32,
    part_ranks: u32,
    part_width: u32,
    first: u32,
    total: u32,
    pad: u32,
    layers: [Layer; MOST_MEMBERS],
}

/// Which factor a dispatch uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Factor {
    A,
    Bt,
}

/// One product: which factor, whether the job's scale multiplies it, whether the input's dropout mask applies, whether layers add to one tensor.
#[derive(Debug, Clone, Copy)]
struct Product {
    factor: Factor,
    scaled: bool,
    dropout: bool,
    sum: bool,
}

/// `scale · h Bt` and its gradients.
const OUT: Product = Product { factor: Factor::Bt, scaled: true, dropout: false, sum: false };

impl LowrankSiblings {
    /// A layer without siblings.
    pub fn alone(site: &LowrankSite) -> Self {
        Self { sites: vec![*site], outputs: vec![0], carry: None }
    }

    /// Layers of one input, in their order, each with the first word of its outputs.
    ///
    /// # Panics
    /// If they are none, more than three, or of different inputs: a bug in a recording.
    pub fn new(layers: &[(LowrankSite, usize)]) -> Self {
        let (sites, outputs): (Vec<LowrankSite>, Vec<usize>) = layers.iter().copied().unzip();
        assert!((1..=MOST_MEMBERS).contains(&sites.len()), "{} layers of one input", sites.len());
        let of = |site: &LowrankSite| (site.rows, site.range, site.k, site.jobs, site.dropout, site.half);
        assert!(sites.windows(2).all(|two| of(&two[0]) == of(&two[1])), "layers of different inputs");
        Self { sites, outputs, carry: None }
    }

    /// A place for the sums of gradients between ranges of rows: one for all ranges of a batch.
    pub fn new_carry(&self, rec: &mut Recorder, label: &str) -> Carry {
        let words = |factor| self.sites.iter().map(|site| 4 * self.carried(site, factor)).sum::<usize>();
        let [a, bt] =
            [("da", Factor::A), ("db", Factor::Bt)].map(|(name, factor)| rec.transient(&format!("{label}.{name}.carry"), words(factor)));
        Carry { a, bt }
    }

    /// With such a place. Ranges must be recorded in the order of their rows.
    pub fn carrying(self, carry: Carry) -> Self {
        Self { carry: Some(carry), ..self }
    }

    /// Vectors of a layer's sums.
    fn carried(&self, site: &LowrankSite, factor: Factor) -> usize {
        2 * site.jobs * self.work(self.product(factor)).grad_ranks() * Self::width(site, factor).div_ceil(4)
    }

    /// Words of their inner activations, and of the gradient of those.
    pub fn inner_words(&self) -> usize {
        self.sites.len() * self.sites[0].rows * self.stride()
    }

    fn stride(&self) -> usize {
        self.r_max().next_multiple_of(4)
    }

    fn r_max(&self) -> usize {
        self.sites.iter().map(|site| site.r_max).max().unwrap_or(1)
    }

    fn product(&self, factor: Factor) -> Product {
        if factor == Factor::A { self.into() } else { OUT }
    }

    /// `drop(x) Aᵀ`, its gradients, and what has to do with the input.
    fn into(&self) -> Product {
        Product { factor: Factor::A, scaled: false, dropout: self.sites[0].dropout, sum: false }
    }

    fn width(site: &LowrankSite, factor: Factor) -> usize {
        match factor {
            Factor::A => site.k,
            Factor::Bt => site.n,
        }
    }

    fn work(&self, product: Product) -> Work {
        let site = &self.sites[0];
        Work {
            rows: site.rows,
            total: site.range.map_or(site.rows, |range| range.total),
            width: self.sites.iter().map(|site| Self::width(site, product.factor)).max().unwrap_or(1),
            r_max: self.r_max(),
            t_max: self.sites.iter().map(|site| site.t_max).max().unwrap_or(1),
            jobs: site.jobs,
            layers: self.sites.len(),
            sum: product.sum && self.sites.len() > 1,
            vectors: self.sites.iter().all(|site| site.k.is_multiple_of(4) && site.n.is_multiple_of(4)),
            dropout: product.dropout,
            half: site.half,
            range: site.range.is_some(),
        }
    }

    /// `tables_at` is the binding of the jobs table, which the sites table follows; `ranks` of a layer make work.
    fn dispatch(&self, label: String, product: Product, ranks: fn(&LowrankSite) -> usize, bind: &[Tensor], tables_at: usize) -> Dispatch {
        self.dispatch_chunks(label, product, ranks, bind, tables_at, None)
    }

    fn dispatch_chunks(
        &self,
        label: String,
        product: Product,
        ranks: fn(&LowrankSite) -> usize,
        bind: &[Tensor],
        tables_at: usize,
        chunks: Option<Chunks>,
    ) -> Dispatch {
        let LowrankSite { rows, jobs, .. } = self.sites[0];
        let mut layers = [Layer::default(); MOST_MEMBERS];
        let mut carry = 0;
        for (i, (site, output)) in self.sites.iter().zip(&self.outputs).enumerate() {
            layers[i] = Layer {
                width: Self::width(site, product.factor) as u32,
                site: site.site as u32,
                dropout_key: site.dropout_key,
                wide: if product.factor == Factor::A { 0 } else { *output as u32 },
                inner: (i * rows) as u32,
                carry: carry as u32,
                pad: [0; 2],
            };
            carry += self.carried(site, product.factor);
        }
        let RowRange { first, total } = self.sites[0].range.unwrap_or(RowRange { first: 0, total: rows });
        let params = Params {
            rows: (first + rows) as u32,
            jobs: jobs as u32,
            matrix: u32::from(product.factor == Factor::Bt),
            scaled: u32::from(product.scaled),
            r_max: self.r_max() as u32,
            count: self.sites.len() as u32,
            chunks: chunks.map_or(0, |c| c.count as u32),
            part_ranks: self.work(product).grad_ranks() as u32,
            part_width: chunks.map_or(0, |c| c.width as u32),
            first: first as u32,
            total: total as u32,
            pad: 0,
            layers,
        };
        let each =
            |f: &dyn Fn(usize, usize) -> usize| self.sites.iter().map(|s| f(Self::width(s, product.factor), ranks(s))).sum::<usize>();
        // Rows on both sides of the product, and a factor a job.
        let words = each(&|width, ranks| 2 * rows * (width + self.stride()) + jobs * ranks * width);
        let mut what = Dispatch::new(label, &params, bind, each(&|width, ranks| 2 * rows * width * ranks) as u64).touching(words);
        // What candidates are measured on: all rows belong to the first job, with the largest rank.
        let job = Segment::new(0..total).with_dropout(if product.dropout { 0.1 } else { 0.0 }, 1, 1);
        what = what.sample(tables_at, 0, bytemuck::bytes_of(&job));
        for site in &self.sites {
            let row = SiteRow { rank: site.r_max as u16, train_end: site.t_max as u32, scale: 1.0, ..SiteRow::default() };
            what = what.sample(tables_at + 1, site.site * jobs * size_of::<SiteRow>(), bytemuck::bytes_of(&row));
        }
        what
    }

    fn key(&self, name: &str, product: Product, ranks: usize) -> String {
        let dropout = if product.dropout { " dropout" } else { "" };
        let half = if self.sites[0].half { " half" } else { "" };
        let widths: Vec<String> = self.sites.iter().map(|site| Self::width(site, product.factor).to_string()).collect();
        let sum = if product.sum && self.sites.len() > 1 { " sum" } else { "" };
        let range = if self.sites[0].range.is_some() { " range" } else { "" };
        format!("{name} {}x{} r{ranks} j{}{dropout}{half}{sum}{range}", self.sites[0].rows, widths.join("+"), self.sites[0].jobs)
    }

    fn down(&self, rec: &mut Recorder, label: String, product: Product, x: Tensor, h: Tensor) {
        let t = self.sites[0].tables;
        let what = self.dispatch(label, product, |site| site.r_max, &[t.row_job, t.jobs, t.sites, t.adapter, x, h], 1);
        let all: Vec<Candidate> = candidates::down(&self.work(product), Lanes::of(rec));
        rec.dispatch_tuned(self.key("lowrank_down", product, self.r_max()), all, what);
    }

    fn up(&self, rec: &mut Recorder, label: String, product: Product, h: Tensor, y: Tensor) {
        let t = self.sites[0].tables;
        let what = self.dispatch(label, product, |site| site.r_max, &[t.row_job, t.jobs, t.sites, t.adapter, h, y], 1);
        let all = candidates::up(&self.work(product), Lanes::of(rec));
        rec.dispatch_tuned(self.key("lowrank_up", product, self.r_max()), all, what);
    }

    fn grad(&self, rec: &mut Recorder, label: String, product: Product, g: Tensor, z: Tensor) {
        let t = self.sites[0].tables;
        if let Some(chunks) = Chunks::of(&self.work(product), Lanes::of(rec)) {
            return self.grad_in_chunks(rec, label, product, g, z, chunks);
        }
        // Only as many ranks as train make work.
        let bind: Vec<Tensor> = [t.jobs, t.sites, g, z, t.grads].into_iter().chain(self.carry_of(product)).collect();
        let what = self.dispatch(label, product, |site| site.t_max, &bind, 0);
        let work = self.work(product);
        let all = candidates::grad(&work, Lanes::of(rec));
        rec.dispatch_tuned(self.key("lowrank_grad", product, work.t_max), all, what);
    }

    /// Of a range of rows, where the sums of a gradient wait.
    fn carry_of(&self, product: Product) -> Option<Tensor> {
        self.carry.map(|carry| if product.factor == Factor::A { carry.a } else { carry.bt })
    }

    fn grad_in_chunks(&self, rec: &mut Recorder, label: String, product: Product, g: Tensor, z: Tensor, chunks: Chunks) {
        let (t, work) = (self.sites[0].tables, self.work(product));
        let parts = rec.transient(&format!("{label}.parts"), chunks.words(&work));
        let [sums, sum] = chunks.passes(&work);
        let bind: Vec<Tensor> = [t.jobs, t.sites, g, z, parts].into_iter().chain(self.carry_of(product)).collect();
        let what = self.dispatch_chunks(label.clone(), product, |site| site.t_max, &bind, 0, Some(chunks));
        rec.dispatch(sums.spec, sums.variant, sums.grid, what);
        let bind: Vec<Tensor> = [t.jobs, t.sites, parts, t.grads].into_iter().chain(self.carry_of(product)).collect();
        let what = self.dispatch_chunks(format!("{label}.sum"), product, |_| 0, &bind, 0, Some(chunks));
        rec.dispatch(sum.spec, sum.variant, sum.grid, what.touching(parts.len as usize));
    }

    fn check(&self, input: &[(&str, Tensor)], inner: &[(&str, Tensor)], output: &[(&str, Tensor)]) {
        let (first, layers) = (&self.sites[0], self.sites.len());
        assert!(self.sites.iter().all(|s| s.r_max > 0 && s.jobs > 0), "low-rank layers without ranks or jobs: {:?}", self.sites);
        let outputs = self.sites.iter().zip(&self.outputs).map(|(site, begin)| begin + site.rows * site.n).max().unwrap_or(0);
        for (tensors, needed) in [(input, first.rows * first.k), (inner, self.inner_words()), (output, outputs)] {
            for (name, tensor) in tensors {
                assert!(tensor.holds(needed), "{name} has {} words, {layers} layers of {} rows need {needed}", tensor.len, first.rows);
            }
        }
    }
}

/// As the functions of the same names for one layer, see [`super::forward`]; outputs and inner activations are those of all layers.
impl LowrankSiblings {
    /// Records `h = drop(x) Aᵀ` and `y += scale · h Bt` for every layer.
    ///
    /// # Panics
    /// If a tensor is smaller than its shape: a bug in a recording.
    pub fn forward(&self, rec: &mut Recorder, label: &str, x: Tensor, h: Tensor, y: Tensor) {
        self.inner(rec, label, x, h);
        self.outer(rec, label, h, y);
    }

    /// Records the gradients of [`Self::forward`].
    ///
    /// # Panics
    /// If a tensor is smaller than its shape: a bug in a recording.
    pub fn backward(&self, rec: &mut Recorder, label: &str, x: Tensor, dy: Tensor, h: Tensor, dh: Tensor, dx: Option<Tensor>) {
        self.gradient_b(rec, label, h, dy);
        self.inner_gradient(rec, label, dy, dh);
        if let Some(dx) = dx {
            self.input_gradient(rec, label, dh, dx);
        }
        self.gradient_a(rec, label, dh, x);
    }

    /// Records `h = drop(x) Aᵀ` for every layer.
    ///
    /// # Panics
    /// If a tensor is smaller than its shape: a bug in a recording.
    pub fn inner(&self, rec: &mut Recorder, label: &str, x: Tensor, h: Tensor) {
        self.check(&[("x", x)], &[("h", h)], &[]);
        self.down(rec, format!("{label}.lowrank_down"), self.into(), x, h);
    }

    pub(super) fn outer(&self, rec: &mut Recorder, label: &str, h: Tensor, y: Tensor) {
        self.check(&[], &[("h", h)], &[("y", y)]);
        self.up(rec, format!("{label}.lowrank_up"), OUT, h, y);
    }

    pub(super) fn inner_gradient(&self, rec: &mut Recorder, label: &str, dy: Tensor, dh: Tensor) {
        self.check(&[], &[("dh", dh)], &[("dy", dy)]);
        self.down(rec, format!("{label}.lowrank_dh"), OUT, dy, dh);
    }

    pub(super) fn input_gradient(&self, rec: &mut Recorder, label: &str, dh: Tensor, dx: Tensor) {
        self.check(&[("dx", dx)], &[("dh", dh)], &[]);
        self.up(rec, format!("{label}.lowrank_dx"), Product { sum: true, ..self.into() }, dh, dx);
    }

    pub(super) fn gradient_b(&self, rec: &mut Recorder, label: &str, h: Tensor, dy: Tensor) {
        self.check(&[], &[("h", h)], &[("dy", dy)]);
        self.grad(rec, format!("{label}.lowrank_db"), OUT, h, dy);
    }

    pub(super) fn gradient_a(&self, rec: &mut Recorder, label: &str, dh: Tensor, x: Tensor) {
        self.check(&[("x", x)], &[("dh", dh)], &[]);
        self.grad(rec, format!("{label}.lowrank_da"), self.into(), dh, x);
    }
}
