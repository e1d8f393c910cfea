//! The flags of the methods, made from the method table: a new method's settings need no line here.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use weblora::adapters::{METHODS, OptionKind, OptionSpec};
use weblora::settings::Map;

/// The method settings that were given on the command line.
#[derive(Debug, Clone, Default)]
pub struct MethodArgs(pub Map);

/// Every option once, with the names of the methods that have it.
fn options() -> Vec<(&'static OptionSpec, Vec<&'static str>)> {
    let mut options: Vec<(&OptionSpec, Vec<&str>)> = Vec::new();
    for method in METHODS {
        for spec in method.options {
            match options.iter_mut().find(|(known, _)| known.key == spec.key) {
                Some((_, methods)) => methods.push(method.name),
                None => options.push((spec, vec![method.name])),
            }
        }
    }
    options
}

fn arg(spec: &'static OptionSpec, methods: &[&str]) -> Arg {
    let arg = Arg::new(spec.key).long(spec.key).help_heading("Method settings");
    let help = format!("{} [{}]", spec.help, methods.join(", "));
    if spec.kind == OptionKind::Switch {
        return arg.action(ArgAction::SetTrue).help(help);
    }
    let shape = match spec.kind {
        OptionKind::Counts | OptionKind::Numbers => "N,N,…",
        OptionKind::Choice(_) => "NAME",
        _ => "N",
    };
    let parse = move |text: &str| spec.parse(text).map_err(|e| e.to_string());
    arg.value_name(shape).value_parser(parse).allow_negative_numbers(true).help(if spec.default.is_empty() {
        help
    } else {
        format!("{help} [default: {}]", spec.default)
    })
}

impl clap::Args for MethodArgs {
    fn augment_args(command: Command) -> Command {
        options().into_iter().fold(command, |command, (spec, methods)| command.arg(arg(spec, &methods)))
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for MethodArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut map = Map::new();
        for (spec, _) in options() {
            if spec.kind == OptionKind::Switch {
                if matches.get_flag(spec.key) {
                    map.insert(spec.key.to_owned(), true.into());
                }
            } else if let Some(value) = matches.get_one::<serde_json::Value>(spec.key) {
                map.insert(spec.key.to_owned(), value.clone());
            }
        }
        Ok(Self(map))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
