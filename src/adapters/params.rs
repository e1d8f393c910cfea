//! The named parameters of an adapter, and where they lie in one flat buffer.

use half::f16;

use crate::kernels::lowrank::half_stride;

/// Words between the starts of parameters: a bound slice of a GPU buffer must start at a multiple of 256 bytes.
pub const ALIGN: usize = 64;

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Uniform in the open interval `(-bound, bound)`, from the counter generator; `1/sqrt(in)` is Kaiming-uniform with a = sqrt 5.
    Uniform {
        /// The interval's end.
        bound: f64,
    },
    /// Normal around zero, from the counter generator.
    Normal {
        /// The standard deviation.
        deviation: f64,
    },
}

/// How the numbers of a parameter lie in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Storage {
    /// One a word.
    #[default]
    F32,
    /// Rounded, two a word, each row of the buffer [`half_stride`] words. Only for factors that do not train.
    F16,
}

impl Storage {
    /// Words of a row of `width` numbers.
    pub fn row_words(self, width: usize) -> usize {
        match self {
            Self::F32 => width,
            Self::F16 => half_stride(width),
        }
    }
}

/// One parameter of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// Hugging Face short name: `layers.0.self_attn.q_proj.lora_A`. It keys the generator, checkpoints and messages.
    pub name: String,
    /// Sizes in Hugging Face order, row-major: A `[rank, in]`, B `[out, rank]`.
    pub shape: Vec<usize>,
    /// The buffer holds the matrix transposed: B as `[rank, out]`, so that every factor is `rank` rows.
    pub transposed: bool,
    /// First word in the adapter's buffer; that of a stack is a multiple of [`ALIGN`].
    pub offset: usize,
    /// It begins where the parameter before it ends: further rows of one stack, which the kernels read as one matrix.
    pub adjacent: bool,
    /// Unused words before it, among the values and among the gradients: rows of a slot that it does not fill.
    pub padding: usize,
    /// How it starts.
    pub init: Init,
    /// Its learning rate is the run's times this (LoRA+ gives B more).
    pub lr_multiplier: f64,
    /// Whether the run's weight decay applies.
    pub weight_decay: bool,
    /// Whether it has a gradient and moments.
    pub trainable: bool,
    /// How its numbers are stored.
    pub storage: Storage,
}

impl ParamSpec {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().fold(1, |len, size| len.saturating_mul(*size))
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words it takes in a flat buffer.
    fn words(&self) -> usize {
        match self.storage {
            Storage::F32 => self.len(),
            Storage::F16 => self.len() / self.row() * self.storage.row_words(self.row()),
        }
    }

    /// Numbers of a row of the buffer: inputs of A, outputs of a transposed B.
    fn row(&self) -> usize {
        let last = if self.transposed { self.shape.first() } else { self.shape.last() };
        last.copied().unwrap_or(1).max(1)
    }

    /// Its words in a flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset.saturating_add(self.words())
    }

    /// Its values in a flat buffer, in Hugging Face order.
    ///
    /// # Panics
    /// When the buffer is shorter than the layout.
    pub fn to_hf(&self, buffer: &[f32]) -> Vec<f32> {
        self.to_hf_at(buffer, self.offset)
    }

    /// As [`Self::to_hf`], for a buffer where it begins at word `offset`.
    ///
    /// # Panics
    /// When it does not fit there.
    pub fn to_hf_at(&self, buffer: &[f32], offset: usize) -> Vec<f32> {
        let rows = self.rows_at(buffer, offset);
        if self.transposed { transpose(&rows, self.shape[1], self.shape[0]) } else { rows }
    }

    /// Its values in a flat buffer, in the buffer's own order: factors as `rank` rows.
    ///
    /// # Panics
    /// When the buffer is shorter than the layout.
    pub fn to_rows(&self, buffer: &[f32]) -> Vec<f32> {
        self.rows_at(buffer, self.offset)
    }

    fn rows_at(&self, buffer: &[f32], offset: usize) -> Vec<f32> {
        let words = &buffer[offset..offset + self.words()];
        match self.storage {
            Storage::F32 => words.to_vec(),
            Storage::F16 => words.chunks_exact(half_stride(self.row())).flat_map(|row| unpack(row, self.row())).collect(),
        }
    }

    /// Puts values in Hugging Face order into their place in a flat buffer.
    ///
    /// # Panics
    /// When the number of values is not the parameter's, or the buffer is shorter than the layout.
    pub fn put_hf(&self, values: &[f32], buffer: &mut [f32]) {
        self.put_hf_at(values, buffer, self.offset);
    }

    /// As [`Self::put_hf`], for a buffer where it begins at word `offset`.
    ///
    /// # Panics
    /// When the number of values is not the parameter's, or it does not fit there.
    pub fn put_hf_at(&self, values: &[f32], buffer: &mut [f32], offset: usize) {
        let turned = self.transposed.then(|| transpose(values, self.shape[0], self.shape[1]));
        let rows = turned.as_deref().unwrap_or(values);
        let place = &mut buffer[offset..offset + self.words()];
        match self.storage {
            Storage::F32 => place.copy_from_slice(rows),
            Storage::F16 => {
                assert_eq!(rows.len(), self.len(), "values of {}", self.name);
                for (row, words) in rows.chunks_exact(self.row()).zip(place.chunks_exact_mut(half_stride(self.row()))) {
                    pack(row, words);
                }
            }
        }
    }
}

/// Numbers, rounded to f16, in the halves of words, the first in the lower one.
fn pack(numbers: &[f32], words: &mut [f32]) {
    let bits = |number: Option<&f32>| u32::from(f16::from_f32(number.copied().unwrap_or_default()).to_bits());
    for (i, word) in words.iter_mut().enumerate() {
        *word = f32::from_bits(bits(numbers.get(2 * i)) | bits(numbers.get(2 * i + 1)) << 16);
    }
}

/// The first `count` numbers of packed words.
fn unpack(words: &[f32], count: usize) -> Vec<f32> {
    let halves = words.iter().flat_map(|word| [word.to_bits() as u16, (word.to_bits() >> 16) as u16]);
    halves.take(count).map(|bits| f16::from_bits(bits).to_f32()).collect()
}

/// `[rows, cols]` to `[cols, rows]`.
fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    assert_eq!(values.len(), rows * cols, "a matrix of {rows} x {cols}");
    (0..cols).flat_map(|col| (0..rows).map(move |row| values[row * cols + col])).collect()
}

/// The next multiple of [`ALIGN`], or the last one there is.
fn aligned(words: usize) -> usize {
    words.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX / ALIGN * ALIGN)
}

/// The parameters of one adapter in the flat buffer that holds their values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParamLayout {
    /// The parameters, in the order of their offsets.
    pub specs: Vec<ParamSpec>,
    /// Length of the buffer in words, a multiple of [`ALIGN`]; the words between parameters stay zero.
    pub words: usize,
}

impl ParamLayout {
    /// Appends a parameter, giving it the next free offset, and returns its index.
    pub fn push(&mut self, mut spec: ParamSpec) -> usize {
        let before = self.specs.last().filter(|_| spec.adjacent).map(|last| last.range().end);
        // What overflows here is far past what a buffer may have, and refused there.
        spec.offset = before.unwrap_or(self.words).saturating_add(spec.padding);
        self.words = self.words.max(aligned(spec.range().end));
        self.specs.push(spec);
        self.specs.len() - 1
    }

    /// Number of trainable elements.
    pub fn trainable(&self) -> usize {
        self.specs.iter().filter(|spec| spec.trainable).map(ParamSpec::len).sum()
    }

    /// First word of every parameter in the buffers of gradients and moments, which hold the trainable parameters only, and the length
    /// of those buffers. A parameter that is not trainable has an empty place; trainable neighbours of a stack stay neighbours.
    pub fn gradient_offsets(&self) -> (Vec<usize>, usize) {
        let mut end = 0;
        let mut neighbour = false;
        let offset = |spec: &ParamSpec| {
            let begin = if spec.adjacent && neighbour { end } else { aligned(end) };
            neighbour = spec.trainable;
            if spec.trainable {
                end = begin.saturating_add(spec.padding).saturating_add(spec.len());
                begin.saturating_add(spec.padding)
            } else {
                begin
            }
        };
        let offsets = self.specs.iter().map(offset).collect();
        (offsets, aligned(end))
    }

    /// Index of the parameter of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.specs.iter().position(|spec| spec.name == name)
    }
}
