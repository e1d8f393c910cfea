//! The command line program. Everything is in `cli`, one file per verb.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
