//! The values that one key of a sweep takes: a list, or a range.

use serde_json::{Number, Value};

use super::limits::MAX_JOBS;
use crate::rng::bits;
use crate::settings::{Map, Settings, unknown};
use crate::{Error, Result};

/// Keys whose ranges are logarithmic unless the range says otherwise: what is tried by factors, not by differences.
const LOGARITHMIC: &[&str] = &["lr", "scale-lr", "lora-plus", "weight-decay", "eps"];

/// Values of one key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Axis {
    List(Vec<Value>),
    Range(Range),
}

/// From `min` to `max`, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    min: f64,
    max: f64,
    log: bool,
    whole: bool,
    /// How many values of a grid.
    count: usize,
}

impl Axis {
    /// A list of values, a table with `min` and `max`, or one value for all trials.
    pub(super) fn read(key: &str, value: &Value, random: bool) -> Result<Self> {
        let named = |error: Error| match error {
            Error::Config { key: inner, problem, hint } => Error::Config { key: format!("sweep.keys.{key}.{inner}"), problem, hint },
            other => other,
        };
        match value {
            Value::Null => Err(empty(key)),
            Value::Array(values) if values.is_empty() => Err(empty(key)),
            Value::Array(values) => Ok(Self::List(values.clone())),
            Value::Object(map) if map.contains_key("min") || map.contains_key("max") => {
                Range::read(key, map, random).map(Self::Range).map_err(named)
            }
            one => Ok(Self::List(vec![one.clone()])),
        }
    }

    /// All values of a grid.
    pub(super) fn values(&self, key: &str) -> Result<Vec<Value>> {
        match self {
            Self::List(values) => Ok(values.clone()),
            Self::Range(range) => range.values(key),
        }
    }

    /// The value of draw `i`.
    pub(super) fn draw(&self, seed: u64, i: u64) -> Value {
        let z = bits(seed, i);
        match self {
            // The product's upper half is below the length.
            Self::List(values) => values[((u128::from(z) * values.len() as u128) >> 64) as usize].clone(),
            Self::Range(range) => range.at(((z >> 11) as f64 + 0.5) * 0.5f64.powi(53), true),
        }
    }
}

fn empty(key: &str) -> Error {
    Error::config(format!("sweep.keys.{key}"), "there is no value", "give a list such as [1e-4, 1e-3], or remove the key")
}

impl Range {
    fn read(key: &str, map: &Map, random: bool) -> Result<Self> {
        let mut settings = Settings::new(map);
        let s = &mut settings;
        let (min, max) = (s.number("min", f64::NAN, "a number", |_| true)?, s.number("max", f64::NAN, "a number", |_| true)?);
        if min.is_nan() || max.is_nan() {
            let missing = if min.is_nan() { "min" } else { "max" };
            return Err(Error::config(missing, "is missing", "give both ends of the range"));
        }
        let integers = ["min", "max"].iter().all(|end| map.get(*end).is_some_and(|value| value.is_u64() || value.is_i64()));
        // 0 and 1 are the ends of a probability rather than two whole numbers.
        let whole = s.flag("whole", integers && max > 1.0)?;
        let log = s.choice("scale", LOGARITHMIC.contains(&key) && min > 0.0, &[("log", true), ("linear", false)])?;
        let count = s.count_or_none("count", 2..=MAX_JOBS as u64)?;
        if let Some((key, _)) = s.rest().next() {
            return Err(unknown(key, s.known().iter().copied()));
        }
        if min >= max {
            return Err(Error::config("max", format!("is {max}, not above min = {min}"), "give min < max, or a list"));
        }
        if log && min <= 0.0 {
            return Err(Error::config("min", format!("is {min} on a logarithmic scale"), "give a positive min, or scale = \"linear\""));
        }
        if whole && (min.fract() != 0.0 || max.fract() != 0.0) {
            return Err(Error::config("whole", "the ends are no whole numbers", "give whole ends, or whole = false"));
        }
        match count {
            None if !random => {
                Err(Error::config("count", "is missing, and a grid needs it", "say how many values to take, or give a list"))
            }
            Some(_) if random => {
                Err(Error::config("count", "a random search takes no steps through a range", "remove it; `trials` says how many"))
            }
            count => Ok(Self { min, max, log, whole, count: count.unwrap_or(0) as usize }),
        }
    }

    fn values(&self, key: &str) -> Result<Vec<Value>> {
        let mut values: Vec<Value> = Vec::new();
        for i in 0..self.count {
            let value = self.at(i as f64 / (self.count - 1) as f64, false);
            if values.last() == Some(&value) {
                let problem = format!("there are not {} different values from {} to {}", self.count, self.min, self.max);
                return Err(Error::config(format!("sweep.keys.{key}.count"), problem, "use fewer"));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// The value at share `u` of the way. Of draws, every whole number is equally likely on a linear scale.
    fn at(&self, u: f64, draw: bool) -> Value {
        // A whole number stands for the half below it and the half above it.
        let half = if self.whole && draw { 0.5 } else { 0.0 };
        let (min, max) = (self.min - half, self.max + half);
        let x = if self.log { (min.ln() + u * (max.ln() - min.ln())).exp() } else { min + u * (max - min) };
        if self.whole {
            return Value::from(x.round().clamp(self.min, self.max) as i64);
        }
        // What is written with three digits can be read by people and is the same where exp and ln differ in the last bit.
        let short: f64 = format!("{x:.2e}").parse().unwrap_or(x);
        let value = if u == 0.0 {
            self.min
        } else if u == 1.0 {
            self.max
        } else {
            short.clamp(self.min, self.max)
        };
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}
