//! Arguments in, exit code out.
//!
//! Exit codes: 0 done, 1 an error (one sentence on stderr, and an `error` event with `--json`), 2 wrong usage, 130 interrupted after saving.
//! With `--json` stdout carries one event per line and nothing else. A reader that has gone (`| head`, a closed terminal) ends nothing.

mod analyze;
mod args;
mod base;
mod bench;
mod data;
mod demo;
mod device;
mod doctor;
mod eval;
mod export;
mod files;
mod generate;
mod help;
mod inspect;
mod io_error;
mod jobs;
mod live;
mod lock;
mod merge;
mod method_args;
mod output;
mod plan;
mod retrieval;
mod rows;
mod run;
mod setting_args;
mod settings;
mod shaders;
mod signals;
mod simulate;
mod sink;
mod train;

use std::process::ExitCode;

use weblora::Error;

use args::Command;
use output::Output;
use signals::INTERRUPTED;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = help::parse(); // prints usage and exits with 2 by itself
    let mut output = Output::new(cli.json);
    let result = match &cli.command {
        None => demo::run(&mut output),
        Some(Command::Train(args)) => run::run(args, &mut output),
        Some(Command::Jobs(args)) => jobs::run(args, &mut output),
        Some(Command::Plan(args)) => plan::run(args, &mut output),
        Some(Command::Generate(args)) => generate::run(args, &mut output),
        Some(Command::Eval(args)) => eval::run(args, &mut output),
        Some(Command::Shaders(args)) => shaders::run(args, &mut output),
        Some(Command::Doctor(args)) => doctor::run(args, &mut output),
        Some(Command::Bench(args)) => bench::run(args, &mut output),
        Some(Command::Simulate(args)) => simulate::run(args, &mut output),
        Some(Command::Inspect(args)) => inspect::run(args, &mut output),
        Some(Command::Analyze(args)) => analyze::run(args, &mut output),
        Some(Command::Merge(args)) => merge::run(args, &mut output),
        Some(Command::Export(args)) => export::run(args, &mut output),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Stopped) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            output.fail(&error);
            ExitCode::FAILURE
        }
    }
}
