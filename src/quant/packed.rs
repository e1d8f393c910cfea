//! Weights as the kernels read them: planes of fields, four rows side by side.
//!
//! A format's fields are split into *planes*: a plane holds, for every `span` inputs of a row, `bits` bits (codes of those inputs, or a
//! scale they share). Within a plane, *quads* of four rows follow each other; within a quad, spans; within a span, the words of the four rows
//! are interleaved, so that one `vec4<u32>` holds the same field of four rows: component `r` is row `r`. Fields under 32 bits share words:
//! two rows a word (16 bits) or four (8 bits), row 0 lowest. Every plane starts at a multiple of four words; rows are padded to whole quads and
//! inputs to whole octets with zeros. The shader of the format (`shaders/quant`) reads exactly this.
//!
//! Packing moves bits, so decoded values stay equal bit for bit; the largest growth over the file is 4.7 % (q3_k, whose 6-bit scales become
//! bytes).

/// Rows that share vectors.
pub const QUAD: usize = 4;

/// How a format looks on the GPU.
pub struct GpuLayout {
    /// Its WGSL: `GROUP`, `Group`, `quant_group`, `quant_tile`.
    pub wgsl: &'static str,
    /// Its planes in order.
    pub planes: &'static [Plane],
    /// Weights that one call of `pack` covers: a block, or eight plain floats.
    pub weights: usize,
    /// Splits the bytes of that many weights into fields.
    pub pack: fn(bytes: &[u8], out: &mut Fields<'_>),
}

/// One field of a format, for all weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plane {
    /// Inputs of a row that share one field.
    pub span: usize,
    /// Bits of the field: 8, 16 or a multiple of 32.
    pub bits: usize,
}

impl Plane {
    /// A plane; see the type's fields.
    pub const fn new(span: usize, bits: usize) -> Plane {
        assert!(bits == 8 || bits == 16 || bits.is_multiple_of(32));
        Plane { span, bits }
    }

    /// Words of one quad's field of one span.
    fn unit_words(self) -> usize {
        self.bits * QUAD / 32
    }

    fn words(self, rows: usize, cols: usize) -> usize {
        (rows.div_ceil(QUAD) * cols.div_ceil(self.span) * self.unit_words()).next_multiple_of(4)
    }
}

/// Where the fields of one row's next block go.
pub struct Fields<'a> {
    words: &'a mut [u32],
    planes: &'static [Plane],
    cols: usize,
    row: usize,
    /// First weight of the block.
    col: usize,
    starts: &'a [usize],
}

impl Fields<'_> {
    /// Puts the field of span `unit` (counted within the block) into `plane`: `bits / 32` words, or one for narrow fields.
    pub fn put(&mut self, plane: usize, unit: usize, field: &[u32]) {
        let p = self.planes[plane];
        let span = self.col / p.span + unit;
        let unit_start = self.starts[plane] + (self.row / QUAD * self.cols.div_ceil(p.span) + span) * p.unit_words();
        let r = self.row % QUAD;
        if p.bits < 32 {
            let per_word = 32 / p.bits;
            let mask = (1u32 << p.bits) - 1;
            self.words[unit_start + r / per_word] |= (field[0] & mask) << (p.bits * (r % per_word));
        } else {
            for (i, word) in field.iter().enumerate() {
                self.words[unit_start + QUAD * i + r] = *word;
            }
        }
    }

    /// Packs `width` bits from bit `from` on of each code into spans of `plane`, the first code lowest.
    pub fn put_codes(&mut self, plane: usize, codes: &[u8], from: usize, width: usize) {
        let p = self.planes[plane];
        let mask = ((1u32 << width) - 1) as u8;
        for (unit, span) in codes.chunks(p.span).enumerate() {
            let mut field = [0u32; 8];
            for (i, code) in span.iter().enumerate() {
                let bit = i * width;
                field[bit / 32] |= u32::from(code >> from & mask) << (bit % 32);
            }
            self.put(plane, unit, &field[..(p.bits / 32).max(1)]);
        }
    }
}

/// The u16 at `offset`, for fields that move as they are.
pub(super) fn u16_at(block: &[u8], offset: usize) -> u32 {
    u32::from(u16::from_le_bytes([block[offset], block[offset + 1]]))
}

/// The u32 at `offset`.
pub(super) fn u32_at(block: &[u8], offset: usize) -> u32 {
    u16_at(block, offset) | u16_at(block, offset + 2) << 16
}

/// Low nibbles, then high nibbles.
pub(super) fn nibble_codes<const N: usize>(qs: &[u8]) -> [u8; N] {
    std::array::from_fn(|i| if i < N / 2 { qs[i] & 15 } else { qs[i - N / 2] >> 4 })
}

impl GpuLayout {
    /// Words of `rows` × `cols` weights.
    pub(super) fn words(&self, rows: usize, cols: usize) -> usize {
        let cols = cols.next_multiple_of(8);
        self.planes.iter().map(|p| p.words(rows, cols)).sum()
    }

    /// `rows` rows of `cols` weights, stored in `row_bytes` bytes each; one call of `pack` takes `chunk` bytes.
    pub(super) fn pack_rows(&self, rows: usize, cols: usize, bytes: &[u8], row_bytes: usize, chunk: usize) -> Vec<u32> {
        let padded = cols.next_multiple_of(8);
        let mut words = vec![0; self.words(rows, cols)];
        let mut starts = vec![0; self.planes.len()];
        for i in 1..starts.len() {
            starts[i] = starts[i - 1] + self.planes[i - 1].words(rows, padded);
        }
        let mut tail = vec![0; chunk];
        for (row, stored) in bytes.chunks(row_bytes.max(1)).enumerate() {
            for (i, block) in stored.chunks(chunk).enumerate() {
                let mut out = Fields { words: &mut words, planes: self.planes, cols: padded, row, col: i * self.weights, starts: &starts };
                if block.len() == chunk {
                    (self.pack)(block, &mut out);
                } else {
                    tail.fill(0);
                    tail[..block.len()].copy_from_slice(block);
                    (self.pack)(&tail, &mut out);
                }
            }
        }
        words
    }
}
