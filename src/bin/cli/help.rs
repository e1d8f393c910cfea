//! The arguments as they are read, and a help of `train` that people can take in: the usual settings, or every one of a method.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};
use weblora::adapters::METHODS;
use weblora::settings::our_name;

use super::args::Cli;

/// The verbs that take the settings of a run.
const VERBS: [&str; 2] = ["train", "plan"];

/// What `train --help` shows; the others are shown with `--help --method NAME`.
const USUAL: &[&str] = &[
    "model",
    "data",
    "eval-data",
    "eval-split",
    "eval-every",
    "out",
    "method",
    "rank",
    "alpha",
    "targets",
    "steps",
    "epochs",
    "batch-rows",
    "batch",
    "seq",
    "lr",
    "config",
    "resume",
    "overwrite",
    "max-binding",
    "help",
    "json",
];

/// The program's arguments; prints usage and exits where they ask for it or are wrong.
pub fn parse() -> Cli {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let read = command(&arguments).try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    read.unwrap_or_else(|error| with_our_name(error, &arguments).exit())
}

/// An unknown flag of a run that other trainers have is met with ours, not with the one that is spelled most like it.
fn with_our_name(mut error: clap::Error, arguments: &[OsString]) -> clap::Error {
    let of_run = arguments.get(1).and_then(|verb| verb.to_str()).is_some_and(|verb| VERBS.contains(&verb));
    let ours = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) if of_run && error.kind() == ErrorKind::UnknownArgument => our_name(flag.trim_start_matches('-')),
        _ => None,
    };
    if let Some(ours) = ours {
        error.insert(ContextKind::SuggestedArg, ContextValue::String(format!("--{ours}")));
    }
    error
}

/// The command line with a help that fits `arguments`.
fn command(arguments: &[OsString]) -> clap::Command {
    let method = method(arguments);
    VERBS.into_iter().fold(Cli::command(), |command, verb| command.mut_subcommand(verb, |verb| shorten(verb, method)))
}

/// The method that the arguments name, where it is one.
fn method(arguments: &[OsString]) -> Option<&'static str> {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let after = texts.iter().position(|text| *text == "--method").and_then(|at| texts.get(at + 1)).copied();
    let named = after.or_else(|| texts.iter().find_map(|text| text.strip_prefix("--method=")))?;
    METHODS.iter().map(|method| method.name).find(|name| *name == named)
}

/// Hides what is not usual, or with a method what belongs to others. What is hidden is read all the same.
fn shorten(verb: clap::Command, method: Option<&str>) -> clap::Command {
    let of = |key: &str, name: &str| METHODS.iter().any(|m| m.name == name && m.options.iter().any(|option| option.key == key));
    let shown = |key: &str| match method {
        None => USUAL.contains(&key),
        Some(method) => of(key, method) || !METHODS.iter().any(|other| of(key, other.name)),
    };
    let names: Vec<&str> = METHODS.iter().map(|method| method.name).collect();
    let more = match method {
        None => format!("These are the usual settings.\nEvery setting, with those of a method: --help --method {}", names.join("|")),
        Some(method) => format!("Every setting of a run with --method {method}."),
    };
    let verb = verb.mut_args(|arg| {
        let key = arg.get_long().unwrap_or_default().to_owned();
        let hidden = arg.is_hide_set() || !shown(&key);
        arg.hide(hidden)
    });
    let examples = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
    verb.after_help(format!("{more}\n\n{examples}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help(arguments: &[&str]) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        command(&arguments).try_get_matches_from(&arguments).expect_err("help").to_string()
    }

    #[test]
    fn the_usual_settings_come_first_and_all_are_there_for_who_asks() {
        let usual = help(&["weblora", "train", "--help"]);
        for flag in ["--model", "--data", "--lr", "--batch-rows", "--epochs", "--resume", "--method"] {
            assert!(usual.contains(flag), "{flag} in {usual}");
        }
        assert!(!usual.contains("--beta1") && !usual.contains("--knots") && !usual.contains("--lora-plus"), "{usual}");
        assert!(usual.contains("--help --method") && usual.contains("lora|cola|") && usual.contains("Examples:"), "{usual}");
        for arguments in [&["weblora", "train", "--help", "--method", "cola"][..], &["weblora", "train", "--method=cola", "-h"]] {
            let cola = help(arguments);
            assert!(cola.contains("--knots") && cola.contains("--beta1") && !cola.contains("--modules"), "{cola}");
        }
        let plan = help(&["weblora", "plan", "--method", "multilora", "--help"]);
        assert!(plan.contains("--modules") && !plan.contains("--knots"), "{plan}");
        // What is not a method is left to the settings to refuse.
        assert!(!help(&["weblora", "train", "--method", "dora", "--help"]).contains("--beta1"));
    }

    #[test]
    fn the_flags_of_other_trainers_are_met_with_ours() {
        let said = |arguments: &[&str]| {
            let arguments: Vec<OsString> = ["weblora"].iter().chain(arguments).map(OsString::from).collect();
            let error = command(&arguments).try_get_matches_from(&arguments).expect_err("unknown");
            with_our_name(error, &arguments).to_string()
        };
        for (theirs, ours) in [("--lora-alpha", "--alpha"), ("--learning_rate=1", "--lr"), ("--batch-size", "--batch-rows")] {
            let text = said(&["train", theirs, "3"]);
            assert!(text.contains(&format!("'{ours}'")), "{theirs}: {text}");
        }
        assert!(said(&["train", "--epoch", "3"]).contains("'--epochs'"));
        assert!(!said(&["shaders", "--lora-alpha"]).contains("'--alpha'"));
    }

    #[test]
    fn every_usual_setting_is_a_flag() {
        let command = Cli::command();
        let verb = |name: &str| command.find_subcommand(name).expect("a verb");
        let arguments = ["train", "plan"].into_iter().flat_map(|name| verb(name).get_arguments());
        let flags: Vec<&str> = arguments.filter_map(clap::Arg::get_long).collect();
        for flag in USUAL.iter().filter(|flag| !["help", "json"].contains(flag)) {
            assert!(flags.contains(flag), "no flag --{flag}");
        }
    }
}
