//! Jinja2's tests: what stands after `is`.

use super::arguments::Given;
use super::ast::{Comparison, Operator};
use super::limits::{Res, fault};
use super::run::Run;
use super::value::{Value, equal};
use super::{filters, operators, print};

/// The names of all tests.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    "!=", "<", "<=", "==", ">", ">=", "boolean", "callable", "defined", "divisibleby", "eq", "equalto", "escaped", "even", "false", "filter",
    "float", "ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne", "none", "number", "odd",
    "sameas", "sequence", "string", "test", "true", "undefined", "upper",
];

impl Run<'_> {
    pub(super) fn test(&mut self, name: &str, value: &Value, given: Given) -> Res<bool> {
        let heap = &self.heap;
        heap.budget.steps(1)?;
        let comparison = match name {
            "eq" | "equalto" | "==" => Some(Comparison::Equal),
            "ne" | "!=" => Some(Comparison::NotEqual),
            "lt" | "lessthan" | "<" => Some(Comparison::Less),
            "le" | "<=" => Some(Comparison::LessOrEqual),
            "gt" | "greaterthan" | ">" => Some(Comparison::Greater),
            "ge" | ">=" => Some(Comparison::GreaterOrEqual),
            "in" => Some(Comparison::In),
            _ => None,
        };
        if let Some(comparison) = comparison {
            let [other] = given.exactly(name, ["other"])?;
            return operators::compare(value, comparison, &other, heap);
        }
        match name {
            "divisibleby" => {
                let [divisor] = given.exactly(name, ["num"])?;
                return equal(&operators::binary(value, Operator::Modulo, &divisor, heap)?, &Value::Int(0), heap);
            }
            "sameas" => {
                let [other] = given.exactly(name, ["other"])?;
                return Ok(value.type_name() == other.type_name() && equal(value, &other, heap)?);
            }
            _ => {}
        }
        given.exactly(name, [])?;
        let remainder = |wanted: i128| {
            let rest = operators::binary(value, Operator::Modulo, &Value::Int(2), heap)?;
            equal(&rest, &Value::Int(wanted), heap)
        };
        Ok(match name {
            "defined" => !value.is_undefined(),
            "undefined" => value.is_undefined(),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_float().is_some(),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "iterable" => matches!(
                value,
                Value::Undefined(_)
                    | Value::Str(_)
                    | Value::List(_)
                    | Value::Tuple(_)
                    | Value::Dict(_)
                    | Value::Range(..)
                    | Value::Iterator(_)
                    | Value::Loop(_)
            ),
            "sequence" => {
                matches!(value, Value::Undefined(_) | Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Range(..))
            }
            "callable" => matches!(
                value,
                Value::Undefined(_) | Value::Macro(_) | Value::Function(_) | Value::Method(_) | Value::Loop(_) | Value::Joiner(..)
            ),
            "odd" => remainder(1)?,
            "even" => remainder(0)?,
            "lower" | "upper" => {
                let text = print::text(value, heap)?;
                heap.budget.scan(2 * text.len())?;
                let (lower, upper) = (text.chars().any(char::is_lowercase), text.chars().any(char::is_uppercase));
                if name == "lower" { lower && !upper } else { upper && !lower }
            }
            "escaped" => false,
            "filter" | "test" => {
                value.check_hashable(heap)?;
                let names = if name == "filter" { filters::NAMES } else { NAMES };
                value.as_str().is_some_and(|asked| names.contains(&asked))
            }
            _ => return Err(fault(format!("unknown test {name:?}"))),
        })
    }
}
