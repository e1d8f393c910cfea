//! `[sweep]`: many jobs from one set of settings and the values that some keys take.
//!
//! ```toml
//! [sweep]
//! name = "rates"                       # jobs are called rates-1-lr0.0001-rank4 and so on
//! [sweep.keys]
//! lr = [1e-4, 3e-4, 1e-3]              # grid (the default): every combination
//! rank = { min = 4, max = 16, count = 3 }
//! ```
//!
//! `search = "random"` with `trials` and `seed` draws from lists and ranges; `search = "list"` takes the tables `[[sweep.list]]` as they are.
//!
//! Draws come from [`crate::rng`]: the value of `key` in draw `i` (from 1) uses `z = bits(fnv1a("{seed}/sweep/{key}"), i)`, a list's element
//! `(z * n) >> 64`, or `u = ((z >> 11) + 1/2) * 2^-53` and `min + u (max - min)`, or `exp(ln min + u (ln max - ln min))` on a logarithmic
//! scale, rounded to three significant digits so that it is short and the same on every platform. A draw that was there before is skipped.

use std::collections::HashSet;

use serde_json::Value;

use super::limits::{MAX_JOBS, priority};
use super::names;
use super::range::Axis;
use crate::rng::fnv1a;
use crate::settings::{Map, Settings, unknown};
use crate::{Error, Result};

/// A job that a sweep makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Its name: the sweep's, a number, and the values that differ between trials.
    pub name: String,
    /// What the sweep sets.
    pub assigned: Map,
}

/// How trials are made from axes: a row of [`SEARCHES`].
#[derive(Debug)]
pub struct Search {
    /// As in a jobs file.
    pub name: &'static str,
    /// One line.
    pub help: &'static str,
    /// Keys of `[sweep]` that only this search reads.
    pub keys: &'static [&'static str],
    expand: fn(&Sweep) -> Result<Vec<Map>>,
}

/// Every way to search.
pub static SEARCHES: &[Search] = &[
    Search { name: "grid", help: "Every combination of the values, the last key changing fastest", keys: &["keys"], expand: grid },
    Search { name: "random", help: "`trials` draws from lists and ranges", keys: &["keys", "trials", "seed"], expand: random },
    Search { name: "list", help: "The tables [[sweep.list]]", keys: &["list"], expand: list },
];

/// Keys of `[sweep]` that every search reads.
const COMMON: &[&str] = &["name", "search", "priority"];

/// Keys that cannot differ by trial: what tells jobs apart.
const FIXED: &[&str] = &["name", "out"];

/// A `[sweep]` table.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// What its jobs' names begin with; their group, within which early stopping compares.
    pub name: String,
    /// Priority of its jobs.
    pub priority: i64,
    search: &'static Search,
    axes: Vec<(String, Axis)>,
    list: Vec<Map>,
    trials: usize,
    seed: u64,
}

impl Sweep {
    /// Reads the table; `shared` are the keys that no trial may set: those of the base, of the scheduler and of its jobs.
    ///
    /// # Errors
    /// Names the key that is unknown, empty, or not a list or range.
    pub fn read(map: &Map, shared: &[&str]) -> Result<Self> {
        let mut settings = Settings::new(map);
        let s = &mut settings;
        let table: Vec<(&str, &'static Search)> = SEARCHES.iter().map(|search| (search.name, search)).collect();
        let search = s.choice("search", &SEARCHES[0], &table).map_err(inside)?;
        let name = s.text("name").map_err(inside)?.unwrap_or_else(|| "sweep".to_owned());
        names::check(&name)?;
        let allowed = || COMMON.iter().chain(search.keys).copied();
        if let Some(key) = map.keys().find(|key| !allowed().any(|known| known == key.as_str())) {
            let of = SEARCHES.iter().find(|other| other.keys.contains(&key.as_str()));
            return Err(match of {
                Some(other) => Error::config(
                    format!("sweep.{key}"),
                    format!("the search is {}", search.name),
                    format!("give search = \"{}\"", other.name),
                ),
                None => inside(unknown(key, allowed())),
            });
        }
        let priority = priority(s).map_err(inside)?;
        let (trials, seed) = (s.size("trials", 0, 1..=MAX_JOBS).map_err(inside)?, s.count("seed", 0, 0..=u64::MAX).map_err(inside)?);
        let refuse_fixed = |key: &str| match FIXED.contains(&key) || shared.contains(&key) {
            true => Err(Error::config(format!("sweep.keys.{key}"), "it cannot differ between the trials of a sweep", "remove it")),
            false => Ok(()),
        };
        let mut axes = Vec::new();
        if let Some(value) = s.value("keys") {
            let keys =
                value.as_object().ok_or_else(|| Error::config("sweep.keys", "is no table", "write [sweep.keys] and key = [values]"))?;
            for (key, value) in keys {
                refuse_fixed(key)?;
                axes.push((key.clone(), Axis::read(key, value, search.name == "random")?));
            }
        }
        let list = read_list(s.value("list"))?;
        list.iter().flat_map(Map::keys).try_for_each(|key| refuse_fixed(key))?;
        Ok(Self { name, priority, search, axes, list, trials, seed })
    }

    /// The jobs, in order.
    ///
    /// # Errors
    /// When there are none, more than [`MAX_JOBS`], or two with the same settings.
    pub fn expand(&self) -> Result<Vec<Trial>> {
        let assigned = (self.search.expand)(self)?;
        if assigned.is_empty() {
            return Err(Error::config("sweep", "it makes no job", "give values: [sweep.keys] with lr = [1e-4, 1e-3], or [[sweep.list]]"));
        }
        let mut seen = HashSet::new();
        if let Some(twice) = assigned.iter().find(|map| !seen.insert(identity(map))) {
            let twice = Value::Object(twice.clone()).to_string();
            return Err(Error::config("sweep", format!("two trials have the same settings: {twice}"), "remove the repeated value"));
        }
        // Only what differs is in the names.
        let varies = |key: &String| assigned.iter().any(|map| map.get(key) != assigned[0].get(key));
        let digits = assigned.len().to_string().len();
        let named = assigned.iter().enumerate().map(|(i, map)| {
            let first = format!("{}-{:0digits$}", self.name, i + 1);
            let parts = map.iter().filter(|(key, _)| varies(key)).map(|(key, value)| names::part(key, value));
            Trial { name: names::joined(&first, parts), assigned: map.clone() }
        });
        Ok(named.collect())
    }
}

/// Names the table in front of the key.
fn inside(error: Error) -> Error {
    match error {
        Error::Config { key, problem, hint } => Error::Config { key: format!("sweep.{key}"), problem, hint },
        other => other,
    }
}

fn read_list(value: Option<&Value>) -> Result<Vec<Map>> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let tables = value.as_array().and_then(|items| items.iter().map(|item| item.as_object().cloned()).collect::<Option<Vec<Map>>>());
    tables.ok_or_else(|| Error::config("sweep.list", "is no list of tables", "write [[sweep.list]] before the keys of every trial"))
}

/// Settings as a text that two equal ones share whatever their order.
fn identity(map: &Map) -> String {
    let mut pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.sort();
    pairs.join("\n")
}

fn too_many(count: impl std::fmt::Display) -> Error {
    Error::config("sweep", format!("it makes {count} jobs, more than {MAX_JOBS}"), "use fewer values, or search = \"random\" with `trials`")
}

fn grid(sweep: &Sweep) -> Result<Vec<Map>> {
    if sweep.axes.is_empty() {
        return Ok(Vec::new());
    }
    let mut count: usize = 1;
    let mut axes = Vec::new();
    for (key, axis) in &sweep.axes {
        let values = axis.values(key)?;
        count = count.saturating_mul(values.len());
        axes.push((key, values));
    }
    if count > MAX_JOBS {
        return Err(too_many(if count == usize::MAX { "more than 10^18".to_owned() } else { count.to_string() }));
    }
    let trial = |mut index: usize| {
        let mut chosen: Vec<(String, Value)> = Vec::new();
        for (key, values) in axes.iter().rev() {
            chosen.push(((*key).clone(), values[index % values.len()].clone()));
            index /= values.len();
        }
        chosen.into_iter().rev().collect::<Map>()
    };
    Ok((0..count).map(trial).collect())
}

fn random(sweep: &Sweep) -> Result<Vec<Map>> {
    if sweep.axes.is_empty() || sweep.trials == 0 {
        let key = if sweep.axes.is_empty() { "sweep.keys" } else { "sweep.trials" };
        return Err(Error::config(key, "is missing, and a random search needs it", "give both `trials` and [sweep.keys]"));
    }
    let seeds: Vec<u64> = sweep.axes.iter().map(|(key, _)| fnv1a(&format!("{}/sweep/{key}", sweep.seed))).collect();
    let mut seen = HashSet::new();
    let mut trials = Vec::new();
    // Of n equally likely trials all are expected after n (ln n + 0.6) draws: 12 n at most.
    let draws = 64 * sweep.trials as u64 + 1000;
    for draw in 1..=draws {
        let map: Map = sweep.axes.iter().zip(&seeds).map(|((key, axis), seed)| (key.clone(), axis.draw(*seed, draw))).collect();
        if seen.insert(identity(&map)) {
            trials.push(map);
        }
        if trials.len() == sweep.trials {
            return Ok(trials);
        }
    }
    let problem = format!("{draws} draws gave only {} different trials", trials.len());
    Err(Error::config("sweep.trials", problem, "ask for fewer trials, widen the ranges, or use search = \"grid\""))
}

fn list(sweep: &Sweep) -> Result<Vec<Map>> {
    if sweep.list.len() > MAX_JOBS {
        return Err(too_many(sweep.list.len()));
    }
    Ok(sweep.list.clone())
}
