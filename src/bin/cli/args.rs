//! The arguments of every verb.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::analyze::AnalyzeArgs;
use super::base::AngleArgs;
use super::bench::BenchArgs;
use super::device::DeviceArgs;
use super::export::ExportArgs;
use super::jobs::JobsArgs;
use super::merge::MergeArgs;
use super::plan::PlanArgs;
use super::rows::{ChatArgs, RowArgs};
use super::setting_args::finite;
use super::settings::TrainArgs;
use super::simulate::SimulateArgs;

/// Fine-tune low-rank adapters on small quantised LLaMA models, on any GPU that Vulkan, Metal or DX12 can reach.
#[derive(Debug, Parser)]
#[command(name = "weblora", version, max_term_width = 110)]
pub struct Cli {
    /// Print one JSON event per line on stdout and nothing else there.
    #[arg(long, global = true)]
    pub json: bool,
    /// Without a verb: the embedded demo.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train an adapter.
    #[command(after_help = "Examples:
  weblora train --model model.gguf --data rows.jsonl --out my-adapter
  weblora train --model model.gguf --data rows.jsonl --rank 16 --targets q,v --steps 200 --eval-split 0.1 --eval-every 20
  weblora train --config run.toml --lr 1e-3 --out other
  weblora train --out my-adapter --resume

A row is one JSON object a line: prompt and completion, instruction and output, messages, or text.
Ctrl-C saves a checkpoint; --resume goes on from it bit for bit.")]
    Train(Box<TrainArgs>),
    /// Train several adapters at once over one base: any methods, ranks, rows and rates, in fused steps.
    #[command(after_help = "Examples:
  weblora jobs sweep.toml
  weblora jobs status --run runs
  weblora jobs pause --run runs big
  weblora jobs add --run runs more.toml

A jobs file has the keys of train as defaults, [[job]] tables with a name and keys of their own, and [sweep]:
  model = 'model.gguf'
  data = 'rows.jsonl'
  out = 'runs'
  [[job]]
  name = 'small'
  rank = 4
  [sweep.keys]
  lr = [1e-4, 3e-4, 1e-3]
See docs/jobs.md for priorities, memory budgets and early stopping.")]
    Jobs(Box<JobsArgs>),
    /// Print the exact memory of a run before anything is allocated; takes the flags of train, opens no device.
    #[command(after_help = "Examples:
  weblora plan --model model.gguf --rank 8 --batch 4 --seq 512
  weblora plan --model model.gguf --batch 1 --context 32768 --max-binding 2GiB")]
    Plan(Box<PlanArgs>),
    /// Answer a prompt with a model, and with adapters over it.
    #[command(after_help = "Examples:
  weblora generate --model model.gguf --prompt 'What is the capital of France?'
  weblora generate --model model.gguf --adapter my-adapter --base --prompt 'Who are you?'
  weblora generate --model model.gguf --raw --temperature 0.8 --top-p 0.95 --prompt 'Once upon a time'")]
    Generate(GenerateArgs),
    /// Measure loss, perplexity or accuracy of a model, before and after adapters.
    #[command(after_help = "Examples:
  weblora eval --model model.gguf --text book.txt --seq 1024
  weblora eval --model model.gguf --data test.jsonl --adapter my-adapter
  weblora eval --model model.gguf --text book.txt --window 512,1024,2048 --adapter long
  weblora eval --model model.gguf --retrieval passkey --window 512,1024,2048 --adapter long --svg pictures")]
    Eval(EvalArgs),
    /// List the kernels, print the final WGSL of some, or show which variants were measured to be fastest on this GPU.
    #[command(after_help = "Examples:
  weblora shaders
  weblora shaders matmul
  weblora shaders --tuned
  weblora shaders --tuned --gpu nvidia lowrank")]
    Shaders(ShadersArgs),
    /// Show the adapters, which of them a run takes and why, and what keeps a GPU from answering; run one checked product.
    #[command(after_help = "Examples:
  weblora doctor
  weblora doctor --gpu nvidia
  weblora doctor --require-gpu --json

Exit code 1 where no adapter answers, the device cannot be opened, or the product is wrong.
See docs/commands.md for GPUs in containers.")]
    Doctor(DeviceArgs),
    /// Measure kernels and training steps as fractions of what this GPU's arithmetic can do.
    #[command(after_help = "Examples:
  weblora bench --quick
  weblora bench --config step-s --profile
  weblora bench --model model.gguf --json > bench.jsonl")]
    Bench(BenchArgs),
    /// Try scheduling policies for many jobs on a workload, without a GPU.
    #[command(after_help = "Examples:
  weblora simulate --step-ms 50 --row-us 400
  weblora simulate --step-ms 50 --row-us 400 --workload urgent --policy fair,priority --memory 1GiB --jobs
  weblora simulate --step-ms 50 --row-us 400 --workload sweep --early-stop halving --json

Take the two times from `weblora bench` on the device in question.")]
    Simulate(SimulateArgs),
    /// Show what a model file, an adapter folder or a data file holds.
    #[command(after_help = "Examples:
  weblora inspect model.gguf                       shape, formats, metadata
  weblora inspect model.gguf --tensors             every tensor
  weblora inspect model.gguf --data rows.jsonl     which tokens of the first rows are trained
  weblora inspect my-adapter                       what an adapter holds: base, method, ranks, steps, links
  weblora inspect model.gguf --adapter my-adapter  whether an adapter fits the model")]
    Inspect(InspectArgs),
    /// Measure what an adapter does to the weights: singular values, effective ranks, directions that adapters or links share.
    #[command(after_help = "Examples:
  weblora analyze my-adapter
  weblora analyze my-chain --links --svg pictures
  weblora analyze lora multilora --json > analysis.jsonl

Needs no model and no GPU. Several adapters of one base are compared in pairs.")]
    Analyze(AnalyzeArgs),
    /// List, drop or split the links of a chain; join or add up adapters of one base; cut ranks.
    #[command(after_help = "Examples:
  weblora merge my-chain --list
  weblora merge my-chain --drop 1 --out shorter
  weblora merge my-chain --split --out links
  weblora merge first second --out both                      one adapter whose links can be split again
  weblora merge first second --weights 1,-0.5 --out sum
  weblora merge my-chain --max-rank 16 --out small           reports the energy that is dropped

Exact but for --max-rank and --energy; needs no model and no GPU.")]
    Merge(MergeArgs),
    /// Write an adapter, or base and adapter merged, for other programs.
    #[command(after_help = "Examples:
  weblora export --adapter my-adapter --model model.gguf --to gguf --out adapter.gguf     for llama.cpp and Ollama
  weblora export --adapter my-adapter --model model.gguf --to merged-safetensors --out merged
  weblora export --adapter my-adapter --model model.gguf --to merged-gguf --format f16 --out merged.gguf

What was written is opened again and scores a text as base and adapter do, or nothing is left of it.
A merge into few bits loses much of an adapter: the retention figure says how much is left, with a warning below 0.9.")]
    Export(ExportArgs),
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Base model: a GGUF file, a safetensors file, or a folder with either.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// A tokenizer.json, or a folder with one, instead of the model's own tokenizer.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// What to answer; with --raw what to continue.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
    /// A PEFT folder; repeat it to compare adapters over one base.
    #[arg(long, value_name = "DIR")]
    pub adapter: Vec<PathBuf>,
    /// Refuse an adapter that was trained on another file of the base (Q4 for F16), instead of warning.
    #[arg(long)]
    pub strict_base: bool,
    /// Answer with the base alone too.
    #[arg(long)]
    pub base: bool,
    /// Put no chat template around the prompt.
    #[arg(long)]
    pub raw: bool,
    /// System message of the chat.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    pub system: Option<String>,
    /// The chat template.
    #[command(flatten)]
    pub chat: ChatArgs,
    /// Quantise float weights when loading: nf4, q4_0, q8_0 or none.
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    pub quantize: String,
    /// Stop after this many tokens [default: 128, or as many as the context leaves].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// 0 takes the likeliest token, 1 draws as the model says.
    #[arg(long, value_name = "X", default_value_t = 0.0, help_heading = "Sampling", value_parser = finite)]
    pub temperature: f64,
    /// Draw from the N likeliest tokens only; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")]
    pub top_k: usize,
    /// Draw from the likeliest tokens that have this probability together.
    #[arg(long, value_name = "P", default_value_t = 1.0, help_heading = "Sampling", value_parser = finite)]
    pub top_p: f64,
    /// Make tokens that are there already less likely by this factor.
    #[arg(long, value_name = "X", default_value_t = 1.0, help_heading = "Sampling", value_parser = finite)]
    pub repetition_penalty: f64,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")]
    pub seed: u64,
    /// The rotary angles.
    #[command(flatten)]
    pub angles: AngleArgs,
    /// The GPU.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Longest row or window of an evaluation where nothing is said.
pub const DEFAULT_SEQ: usize = 512;

/// Arguments of `eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Base model: a GGUF file, a safetensors file, or a folder with either.
    #[arg(long, value_name = "PATH")]
    pub model: PathBuf,
    /// A tokenizer.json, or a folder with one, instead of the model's own tokenizer.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// A text file: mean NLL and perplexity over windows of --seq tokens.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["data", "retrieval"])]
    pub text: Option<PathBuf>,
    /// A file of rows: mean loss of their targets, and accuracy where rows have `choices`.
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    pub data: Option<PathBuf>,
    /// A PEFT folder: the same again with this adapter; repeatable.
    #[arg(long, value_name = "DIR")]
    pub adapter: Vec<PathBuf>,
    /// Refuse an adapter that was trained on another file of the base (Q4 for F16), instead of warning.
    #[arg(long)]
    pub strict_base: bool,
    /// Longest row or window in tokens [default: 512, with --retrieval no more than the model reads].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub seq: Option<u32>,
    /// With --text: perplexity over sliding windows of these lengths, as 512,1024; with --retrieval: lengths of the texts.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', value_parser = window)]
    pub window: Vec<usize>,
    /// Tokens between the beginnings of sliding windows [default: half a window].
    #[arg(long, value_name = "N", requires = "window")]
    pub stride: Option<usize>,
    /// Instead of a file: ask for something hidden in a long text, by length and depth: passkey, keys, variables, or note (in the words of the embedded model).
    #[arg(long, value_name = "TASK", conflicts_with_all = ["text", "data"])]
    pub retrieval: Option<String>,
    /// With --retrieval: places in the text, evenly from its beginning to its end [default: 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub depths: Option<u32>,
    /// With --retrieval: questions for each length and depth [default: 4].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub trials: Option<u32>,
    /// With --retrieval: a new folder for a heat map of each adapter.
    #[arg(long, value_name = "DIR")]
    pub svg: Option<PathBuf>,
    /// Also measure under shifted sparse attention (LongLoRA) in groups of this many rows.
    #[arg(long, value_name = "N", conflicts_with = "group_ratio")]
    pub group: Option<usize>,
    /// Also measure under shifted sparse attention in groups of this share of --seq, or of each --window.
    #[arg(long, value_name = "SHARE", value_parser = finite)]
    pub group_ratio: Option<f64>,
    /// Sequences that go through the model together.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,
    /// How rows become text.
    #[command(flatten)]
    pub how: RowArgs,
    /// Quantise float weights when loading: nf4, q4_0, q8_0 or none.
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    pub quantize: String,
    /// The rotary angles.
    #[command(flatten)]
    pub angles: AngleArgs,
    /// The GPU.
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl EvalArgs {
    /// Longest row or window in tokens.
    pub fn seq(&self) -> usize {
        self.seq.map_or(DEFAULT_SEQ, |tokens| tokens as usize)
    }
}

/// Tokens of a window.
fn window(text: &str) -> std::result::Result<usize, String> {
    text.trim().parse().ok().filter(|n| (4..=1 << 24).contains(n)).ok_or_else(|| format!("{text:?} is no length of 4 tokens or more"))
}

/// Arguments of `shaders`.
#[derive(Debug, Args)]
pub struct ShadersArgs {
    /// Print the WGSL of kernels whose name contains this; without it, list all kernels. With --tuned: only cases that contain it.
    pub name: Option<String>,
    /// Show the kernel choices that are remembered for the GPU: case, chosen variant, times of all candidates.
    #[arg(long)]
    pub tuned: bool,
    /// The GPU.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A GGUF file, a safetensors file, a folder with either, or an adapter's folder.
    pub model: PathBuf,
    /// A tokenizer.json, or a folder with one, instead of the model's own tokenizer.
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// List every tensor: name, format, shape, bytes.
    #[arg(long)]
    pub tensors: bool,
    /// A PEFT folder to check against the model.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Refuse an --adapter that was trained on another file of the base (Q4 for F16), instead of warning.
    #[arg(long, requires = "adapter")]
    pub strict_base: bool,
    /// A file of rows: show how the first of them are tokenised and which tokens are trained.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// How many rows of --data to show.
    #[arg(long, default_value_t = 3, value_name = "N", requires = "data")]
    pub rows: usize,
    /// Longest row in tokens.
    #[arg(long, default_value_t = 512, value_name = "N", requires = "data", value_parser = clap::value_parser!(u32).range(2..))]
    pub seq: u32,
    /// How rows become text.
    #[command(flatten)]
    pub how: RowArgs,
}
