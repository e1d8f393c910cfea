//! The flags of a run's settings, made from the table that forms are made from: a new setting needs no line here.

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use serde_json::Value;
use weblora::adapters::OptionKind;
use weblora::settings::Map;
use weblora::train::keys::{EXCLUSIVE, KEYS, Key, Kind, PLACES};

/// The settings that were given on the command line, as a run file has them.
#[derive(Debug, Clone, Default)]
pub struct SettingArgs(pub Map);

/// Every setting but those of methods.
pub fn all() -> impl Iterator<Item = &'static Key> {
    PLACES.iter().chain(KEYS)
}

fn is_switch(key: &Key) -> bool {
    key.kind == Kind::Option(OptionKind::Switch)
}

/// What a help calls the value.
fn value_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Option(OptionKind::Count { .. }) => "N",
        Kind::Option(OptionKind::Choice(_)) => "NAME",
        Kind::Option(OptionKind::Counts | OptionKind::Numbers) => "X,X,…",
        Kind::Option(_) => "X",
        Kind::Names => "NAMES",
        Kind::Patterns => "PATTERN=X",
        Kind::Text => "TEXT",
        Kind::Path | Kind::Paths => "PATH",
    }
}

fn help(key: &Key) -> String {
    let names = match key.kind {
        Kind::Option(OptionKind::Choice(names)) => format!(" [possible values: {}]", names.join(", ")),
        Kind::Patterns | Kind::Paths => "; repeatable".to_owned(),
        _ => String::new(),
    };
    let default = match serde_json::from_str(key.default) {
        Ok(Value::String(text)) => text,
        Ok(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Ok(Value::Number(number)) => number.to_string(),
        _ => return key.help.to_owned() + &names,
    };
    format!("{}{names} [default: {default}]", key.help)
}

/// One text as the value of a setting, or as an element of its list.
fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Option(OptionKind::Count { .. }) => {
            text.trim().parse::<u64>().map(Value::from).map_err(|_| format!("{text:?} is no whole number"))
        }
        Kind::Option(OptionKind::Number { .. } | OptionKind::Numbers) => finite(text).map(Value::from),
        Kind::Patterns => {
            let (pattern, number) = text.rsplit_once('=').ok_or("expected PATTERN=NUMBER")?;
            Ok(Value::Object(Map::from_iter([(pattern.to_owned(), finite(number)?.into())])))
        }
        _ => Ok(text.into()),
    }
}

/// A number that JSON can hold: NaN would count as not given.
pub fn finite(text: &str) -> Result<f64, String> {
    text.trim().parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| format!("{text:?} is no number"))
}

/// What all that was given for a setting comes to.
fn join(kind: Kind, given: Vec<Value>) -> Option<Value> {
    match kind {
        Kind::Patterns => Some(Value::Object(given.into_iter().filter_map(|one| one.as_object().cloned()).flatten().collect())),
        Kind::Names | Kind::Paths | Kind::Option(OptionKind::Counts | OptionKind::Numbers) => Some(given.into()),
        _ => given.into_iter().next_back(),
    }
}

/// The flags of a setting: one, or one that switches it off, or both.
fn args(key: &'static Key) -> Vec<Arg> {
    let named = |name: &'static str| {
        let arg = Arg::new(name).long(name);
        if key.section.is_empty() { arg } else { arg.help_heading(key.section) }
    };
    let off = key.off.map(|name| named(name).action(ArgAction::SetTrue));
    if is_switch(key) {
        return match off {
            Some(off) => vec![off.help(format!("Switches off: {}", key.help))],
            None => vec![named(key.key).action(ArgAction::SetTrue).help(key.help)],
        };
    }
    let kind = key.kind;
    let mut arg = named(key.key).value_name(value_name(kind)).help(help(key));
    arg = arg.value_parser(move |text: &str| parse(kind, text));
    arg = match kind {
        Kind::Names | Kind::Option(OptionKind::Counts | OptionKind::Numbers) => arg.action(ArgAction::Append).value_delimiter(','),
        Kind::Patterns | Kind::Paths => arg.action(ArgAction::Append),
        _ => arg,
    };
    for pair in EXCLUSIVE {
        if let Some(at) = pair.iter().position(|one| *one == key.key) {
            arg = arg.conflicts_with(pair[1 - at]);
        }
    }
    let off = off.map(|off| off.conflicts_with(key.key).help(format!("The same as --{} off", key.key)));
    std::iter::once(arg).chain(off).collect()
}

impl clap::Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        all().flat_map(args).fold(command, Command::arg)
    }
    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut map = Map::new();
        for key in all() {
            let is_off = key.off.is_some_and(|name| matches.get_flag(name));
            let value = if is_off {
                Some(false.into())
            } else if is_switch(key) {
                (key.off.is_none() && matches.get_flag(key.key)).then(|| true.into())
            } else {
                matches.get_many::<Value>(key.key).and_then(|given| join(key.kind, given.cloned().collect()))
            };
            map.extend(value.map(|value| (key.key.to_owned(), value)));
        }
        Ok(Self(map))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
