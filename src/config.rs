//! The shape of a LLaMA-family model, with Hugging Face's key names.

/// Architecture constants of one base model, from `config.json` or GGUF metadata.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// `model_type` ("llama", "mistral") as the file gives it.
    pub model_type: String,
    /// Rows of the embedding matrix.
    pub vocab_size: usize,
    /// Width d of the residual stream.
    pub hidden_size: usize,
    /// Width f of the feed-forward layer.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key/value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of one head.
    pub head_dim: usize,
    /// Added to the mean square inside the root.
    pub rms_norm_eps: f32,
    /// Longest trained context.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies (`rope_theta`).
    pub rope_theta: f64,
    /// How the frequencies are stretched.
    pub rope_scaling: RopeScaling,
    /// The head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Keys further back than this many positions are invisible (Mistral); `None` is full causal attention.
    pub sliding_window: Option<usize>,
}

impl ModelConfig {
    /// Tokens that the model reads: beyond the trained context where its angles grow with the length.
    pub fn context_length(&self) -> usize {
        match self.rope_scaling {
            RopeScaling::Dynamic { factor } => (self.max_position_embeddings as f64 * factor.max(1.0)) as usize,
            _ => self.max_position_embeddings,
        }
    }
    /// Width of all query heads together, the input of `o_proj`; the largest number where a lying file makes it overflow.
    pub fn q_width(&self) -> usize {
        self.num_attention_heads.saturating_mul(self.head_dim)
    }
    /// Width of all key (or value) heads together; the largest number where a lying file makes it overflow.
    pub fn kv_width(&self) -> usize {
        self.num_key_value_heads.saturating_mul(self.head_dim)
    }
}

/// RoPE scaling variants of `transformers`, formulas in `model/rope.rs`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RopeScaling {
    /// Plain RoPE.
    #[default]
    None,
    /// Position interpolation: every frequency divided by `factor`.
    Linear {
        /// Stretch of the context.
        factor: f64,
    },
    /// NTK-aware base change that depends on the running length.
    Dynamic {
        /// Stretch of the context.
        factor: f64,
    },
    /// Llama 3.1's smooth interpolation between kept and divided frequencies.
    Llama3 {
        /// Stretch of the context.
        factor: f64,
        /// Wavelengths above `original / low_freq_factor` are fully divided.
        low_freq_factor: f64,
        /// Wavelengths below `original / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Context of the pretraining.
        original_max_position_embeddings: usize,
    },
    /// YaRN: ramp between interpolation and extrapolation, with an attention factor.
    Yarn {
        /// Stretch of the context.
        factor: f64,
        /// Context of the pretraining.
        original_max_position_embeddings: usize,
        /// Rotations above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which a frequency is divided.
        beta_slow: f64,
        /// Multiplies cos and sin; `None` derives it from the factor.
        attention_factor: Option<f64>,
    },
    /// Per-frequency divisors for short and long contexts (`longrope`).
    LongRope {
        /// One divisor per frequency up to the original context.
        short_factor: Vec<f64>,
        /// One divisor per frequency past it.
        long_factor: Vec<f64>,
        /// Context of the pretraining.
        original_max_position_embeddings: usize,
        /// Multiplies cos and sin; `None` derives it from the stretch.
        attention_factor: Option<f64>,
    },
    /// Explicit divisors from the tensor `rope_freqs.weight` of a GGUF file.
    Divisors(Vec<f64>),
}
