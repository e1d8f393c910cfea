//! `weblora bench`: what the kernels and a training step reach on this adapter, as fractions of its measured peak.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use weblora::analysis::svg::{Line, attention};
use weblora::bench::{
    self, AttentionFitRecord, AttentionRecord, CompareRecord, JobsRecord, KernelRecord, MatmulRecord, MixLoraRecord, ModelShape, Options,
    ProfileRecord, Record, StepRecord, Workload,
};
use weblora::formats::ModelFile;
use weblora::{Error, Result, demo, quant};

use super::device::{Device, DeviceArgs};
use super::files::write_atomic;
use super::output::{Output, bytes};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Only this; repeatable. Default: kernels, step-s, step-m, and the step of --model where one is given.
    #[arg(long, value_enum, value_name = "NAME")]
    config: Vec<Config>,
    /// Measure a training step of this model too: 4 x 128 tokens, rank 8, all seven projections.
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Measure a training step of a model of this shape, whose weights are made on the spot: smollm2-135m, llama-3.2-1b or llama-2-7b.
    #[arg(long, value_name = "NAME")]
    shape: Option<String>,
    /// How the weights of --shape are stored: q4_0, q4_k, q8_0, f16 or another format of GGUF files.
    #[arg(long, value_name = "FORMAT", default_value = "q4_0", requires = "shape")]
    format: String,
    /// Rows of the step of --shape: N tokens of one document, or DOCUMENTSxTOKENS; repeatable.
    #[arg(long, value_name = "N|DxN", default_value = "4x128", requires = "shape", value_parser = batch)]
    rows: Vec<(usize, usize)>,
    /// Compute activations again in the step of --shape instead of keeping them.
    #[arg(long, requires = "shape")]
    recompute: bool,
    /// Fewer cases, fewer rounds, no step-m.
    #[arg(long)]
    quick: bool,
    /// Show which kernels and which places in the model a step's GPU time goes to.
    #[arg(long)]
    profile: bool,
    /// With --config attention: rows of so many tokens, a multiple of 8, instead of 512 to 32768.
    #[arg(long, value_name = "N", value_parser = row_length)]
    tokens: Option<usize>,
    /// With --config attention: an SVG file that shows its times by length.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// The GPU.
    #[command(flatten)]
    device: DeviceArgs,
}

/// What can be measured alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Config {
    /// Matrix products and the other kernels at the shapes of SmolLM2-135M
    Kernels,
    /// Every form of the matrix products beside each other, at shapes of two models
    Forms,
    /// A step of a synthetic f32 model: 2 layers of width 256, 128 tokens
    StepS,
    /// A step of a synthetic f32 model: 30 layers of width 576, 128 tokens
    StepM,
    /// A step of the model given with --model
    Smollm2,
    /// A step of the embedded demo: 16 x 32 tokens
    Demo,
    /// Attention over rows of 512 to 32768 tokens, full and in the shifted groups of LongLoRA: its kernels alone, and steps of every model named (default demo)
    Attention,
    /// The feed-forward layer of SmolLM2-135M and Llama-3.2-1B with eight routed experts, beside the dense one and the naive form
    #[value(name = "mixlora")]
    Experts,
    /// Other methods beside plain LoRA of the same size, instead of the step, for every step named (default demo)
    Methods,
    /// Eight jobs in one pass beside each of them alone, instead of the step, for every step named (default the model given, or demo)
    Jobs,
}

fn row_length(text: &str) -> std::result::Result<usize, String> {
    let found = text.parse().ok().filter(|n: &usize| (8..=1 << 20).contains(n) && n.is_multiple_of(8));
    found.ok_or_else(|| "expected a multiple of 8, such as 8192".into())
}

/// `4x512`: four documents of 512 tokens; `512`: one.
fn batch(text: &str) -> std::result::Result<(usize, usize), String> {
    let (documents, tokens) = text.split_once('x').unwrap_or(("1", text));
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| (1..=1 << 20).contains(n));
    match (number(documents), number(tokens)) {
        (Some(documents), Some(tokens)) if documents * tokens <= 1 << 20 => Ok((documents, tokens)),
        _ => Err("expected a number of tokens, or DOCUMENTSxTOKENS, such as 4x512".into()),
    }
}

impl BenchArgs {
    fn configs(&self) -> Vec<Config> {
        if self.config == [Config::Methods] {
            return vec![Config::Methods, Config::Demo];
        }
        if self.config == [Config::Attention] {
            return vec![Config::Attention, Config::Demo];
        }
        if self.config == [Config::Jobs] {
            return vec![Config::Jobs, if self.model.is_some() { Config::Smollm2 } else { Config::Demo }];
        }
        if !self.config.is_empty() || self.shape.is_some() {
            return self.config.clone();
        }
        let mut all = vec![Config::Kernels, Config::StepS];
        if !self.quick {
            all.push(Config::StepM);
        }
        if self.model.is_some() {
            all.push(Config::Smollm2);
        }
        all
    }
}

/// Runs the verb.
pub fn run(args: &BenchArgs, output: &mut Output) -> Result<()> {
    let configs = args.configs();
    let workloads = pollster::block_on(workloads(args, &configs))?;
    let mut device = Device::open(&args.device)?;
    let Device { gpu, tuner, measure } = &mut device;
    let options = Options {
        kernels: configs.contains(&Config::Kernels),
        forms: configs.contains(&Config::Forms),
        attention: configs.contains(&Config::Attention),
        tokens: args.tokens,
        methods: configs.contains(&Config::Methods),
        mixlora: configs.contains(&Config::Experts),
        jobs: configs.contains(&Config::Jobs),
        quick: args.quick,
        profile: args.profile,
        tune: *measure,
    };
    let mut section = "";
    let mut times: Vec<AttentionRecord> = Vec::new();
    let mut report = |record: &Record| {
        if let Record::Attention(one) = record {
            times.push(one.clone());
        }
        show(record, &mut section, output)
    };
    let done = pollster::block_on(bench::run(gpu, tuner, workloads, options, &mut report));
    device.remember(); // also what was learnt before an error
    done?;
    args.svg.as_ref().map_or(Ok(()), |path| write_atomic(path, attention_picture(&times).as_bytes()))
}

/// Times by length: a panel for each model, a line for each form.
fn attention_picture(times: &[AttentionRecord]) -> String {
    let mut panels: Vec<(String, Vec<Line>)> = Vec::new();
    for one in times {
        let panel = panels.iter().position(|(what, _)| *what == one.what).unwrap_or_else(|| {
            panels.push((one.what.clone(), Vec::new()));
            panels.len() - 1
        });
        let lines = &mut panels[panel].1;
        let line = lines.iter().position(|(form, _)| form == one.form).unwrap_or_else(|| {
            lines.push((one.form.to_owned(), Vec::new()));
            lines.len() - 1
        });
        lines[line].1.push((one.tokens, one.ms));
    }
    attention("Attention over one long row", &panels)
}

async fn workloads(args: &BenchArgs, configs: &[Config]) -> Result<Vec<Workload>> {
    let mut workloads = Vec::new();
    for config in configs {
        workloads.push(match config {
            Config::Kernels | Config::Forms | Config::Attention | Config::Methods | Config::Experts | Config::Jobs => continue,
            Config::StepS => Workload::small().await?,
            Config::StepM => Workload::medium().await?,
            Config::Demo => Workload::new("demo", demo::model().await?, 16, 32),
            Config::Smollm2 => {
                let path = args.model.as_ref().ok_or_else(|| {
                    Error::config("model", "no model was given for the step `smollm2`", "pass the GGUF file with --model")
                })?;
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                Workload::new(name, ModelFile::open_path(path).await?, 4, 128)
            }
        });
    }
    if let Some(name) = &args.shape {
        let shape = ModelShape::by_name(name)?;
        let format = quant::by_name(&args.format)
            .ok_or_else(|| Error::config("format", format!("`{}` is unknown", args.format), "give q4_0, q4_k, q8_0 or f16"))?;
        for (documents, tokens) in &args.rows {
            let name = format!("{name} {} {documents}x{tokens}", args.format);
            let workload = Workload::new(name, shape.open(format).await?, *documents, *tokens);
            workloads.push(if args.recompute { workload.recomputing() } else { workload });
        }
    }
    Ok(workloads)
}

/// One record as an event, or as a row under its section's heading.
fn show(record: &Record, section: &mut &'static str, output: &mut Output) -> Result<()> {
    if output.is_json() {
        return output.print(&record.to_json());
    }
    let (heading, row) = match record {
        Record::Adapter(a) => ("", format!("weblora {} on {} ({}, {})", a.version, a.adapter, a.backend, a.driver)),
        Record::Peak(p) => ("", format!("peak: {:.1} GFLOP/s of f32 multiply-adds in registers, median of {}", p.gflops, p.runs)),
        Record::Matmul(m) => (MATMULS, matmul_row(m)),
        Record::Kernel(k) => (KERNELS, kernel_row(k)),
        Record::Attention(a) => (ATTENTION, attention_row(a)),
        Record::AttentionFit(fit) => (ATTENTION, attention_fit_row(fit)),
        Record::Step(s) => (STEPS, step_row(s)),
        Record::Compare(c) => (METHODS, compare_row(c)),
        Record::Jobs(j) => (JOBS, jobs_rows(j)),
        Record::MixLora(m) => (MIXLORA, mixlora_row(m)),
        Record::Profile(p) => (PROFILES, profile_row(p)),
    };
    if *section != heading {
        *section = heading;
        output.print(&format!("\n{heading}"))?;
    }
    output.print(&row)
}

const MATMULS: &str = "product   format    t      n     k        ms  GFLOP/s  of peak  kernel";
const KERNELS: &str = "kernel                       shape                                   ms  GFLOP/s  of peak";
const ATTENTION: &str = "heads          tokens  attention               ms  of full       memory";
const STEPS: &str = "step";
const METHODS: &str = "methods";
const JOBS: &str = "jobs";
const MIXLORA: &str = "feed-forward   tokens  adapter                    ms  of dense (range)        activations       kept  launches";
const PROFILES: &str = "profile                                                 ms   share  launches  GFLOP/s     GB/s";

fn jobs_rows(j: &JobsRecord) -> String {
    format!(
        "{}: {} jobs of {} rows fused {:.1} ms, alone {:.1} ms in all: {:.3} ({:.3} to {:.3}, {} rounds)\n  padded to {} rows {:.1} ms: {:.3}\n  \
         planned {} against {}: {:.3}\n  launches {} against {} of one job: {:.3}",
        j.config,
        j.jobs,
        j.rows,
        j.fused_ms,
        j.alone_ms,
        j.of_alone,
        j.least,
        j.most,
        j.rounds,
        j.padded_rows,
        j.padded_ms,
        j.of_padded,
        bytes(j.fused_bytes),
        bytes(j.separate_bytes),
        j.of_bytes,
        j.dispatches,
        j.dispatches_one,
        j.dispatches as f64 / j.dispatches_one.max(1) as f64
    )
}

fn matmul_row(m: &MatmulRecord) -> String {
    format!(
        "{:9} {:6} {:4} {:6} {:5} {:9.3} {:8.1} {:6.1} %  {}",
        m.direction,
        m.format,
        m.t,
        m.n,
        m.k,
        m.ms,
        m.gflops,
        100.0 * m.of_peak,
        m.kernel
    )
}

fn kernel_row(k: &KernelRecord) -> String {
    let mut row = format!("{:28} {:33} {:9.3} {:8.1} {:6.1} %", k.name, k.shape, k.ms, k.gflops, 100.0 * k.of_peak);
    for kernel in &k.kernels {
        row += &format!("\n    {kernel}");
    }
    row
}

fn attention_row(a: &AttentionRecord) -> String {
    let of_full = a.of_full.map_or_else(|| "-".to_owned(), |share| format!("{share:.3}"));
    format!("{:13} {:7}  {:14} {:11.2} {of_full:>8} {:>12}", a.what, a.tokens, a.form, a.ms, bytes(a.bytes))
}

fn mixlora_row(m: &MixLoraRecord) -> String {
    let MixLoraRecord { shape, tokens, form, ms, of_dense, least, most, dispatches, .. } = m;
    format!(
        "{shape:13} {tokens:7}  {form:20} {ms:8.1}  {of_dense:.3} ({least:.3} to {most:.3}) {:>14} {:>10} {dispatches:9}",
        bytes(m.bytes),
        bytes(m.kept)
    )
}

fn attention_fit_row(fit: &AttentionFitRecord) -> String {
    let faster = fit.faster_from.map_or_else(String::new, |tokens| format!(", faster than full attention from {tokens} tokens on"));
    let AttentionFitRecord { what, form, time_exponent, memory_exponent, .. } = fit;
    format!("{what}, {form}: time grows with tokens^{time_exponent:.2}, memory with tokens^{memory_exponent:.2}{faster}")
}

fn step_row(s: &StepRecord) -> String {
    let checked = if s.losses_checked { "as other stacks have them" } else { "not compared" };
    let losses: Vec<String> = s.losses.iter().map(|loss| format!("{loss:.5}")).collect();
    format!(
        "{}: {:.1} ms a step ({:.1} to {:.1}, median of {}), {:.0} tokens/s\n  {:.2} GFLOP a step is {:.1} % of the peak of {:.1} GFLOP/s\n  \
         {} + {} dispatches in {} submits, {} planned, {} allocated\n  \
         tuning {:.1} s, loading {:.1} s, first step {:.2} s; losses {}, {checked}",
        s.config,
        s.ms,
        s.min_ms,
        s.max_ms,
        s.steps,
        s.tokens_per_s,
        s.model_gflop,
        100.0 * s.of_peak,
        s.peak_gflops,
        s.dispatches,
        s.update_dispatches,
        s.submits,
        bytes(s.planned_bytes),
        bytes(s.allocated_bytes),
        s.tune_s,
        s.load_s,
        s.first_step_s,
        losses.join(" ")
    )
}

fn compare_row(c: &CompareRecord) -> String {
    format!(
        "{}, {} tokens: {} {:.3} times ({:.3} to {:.3}, median of {}; fastest steps {:.3}), {:.1} ms and {:.1} ms a step",
        c.config, c.tokens, c.pair, c.ratio, c.least, c.most, c.rounds, c.of_fastest, c.ms, c.baseline_ms
    )
}

fn profile_row(p: &ProfileRecord) -> String {
    format!("{:6} {:40} {:10.3} {:5.1} % {:9} {:8.1} {:8.1}", p.by, p.name, p.ms, 100.0 * p.share, p.dispatches, p.gflops, p.gbytes)
}
