//! The arguments of every verb.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::settings::TrainArgs;

/// Fine-tune low-rank adapters on small quantised LLaMA models, on any GPU that Vulkan, Metal or DX12 can reach.
#[derive(Debug, Parser)]
#[command(name = "weblora", version, arg_required_else_help = true, max_term_width = 110)]
pub struct Cli {
    /// Print one JSON event per line on stdout and nothing else there.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
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
    /// Show what a model file, an adapter folder or a data file holds.
    #[command(after_help = "Examples:
  weblora inspect model.gguf                       shape, formats, metadata
  weblora inspect model.gguf --tensors             every tensor
  weblora inspect model.gguf --data rows.jsonl     which tokens of the first rows are trained
  weblora inspect model.gguf --adapter my-adapter  whether an adapter fits the model, and its ranks")]
    Inspect(InspectArgs),
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A GGUF file, a safetensors file, or a folder with either.
    pub model: PathBuf,
    /// List every tensor: name, format, shape, bytes.
    #[arg(long)]
    pub tensors: bool,
    /// A PEFT folder to check against the model.
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// A file of rows: show how the first of them are tokenised and which tokens are trained.
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// How many rows of --data to show.
    #[arg(long, default_value_t = 3, value_name = "N", requires = "data")]
    pub rows: usize,
    /// Longest row in tokens.
    #[arg(long, default_value_t = 512, value_name = "N", requires = "data", value_parser = clap::value_parser!(u32).range(2..))]
    pub seq: u32,
    /// How rows become text: auto, plain, chat or alpaca.
    #[arg(long, default_value = "auto", requires = "data")]
    pub format: String,
    /// Train on prompts too.
    #[arg(long, requires = "data")]
    pub train_on_prompt: bool,
}
