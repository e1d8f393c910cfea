//! Python's operators on values.

use std::cmp::Ordering;

use super::ast::{Comparison, Operator};
use super::limits::{Res, fault};
use super::value::{Heap, Value, equal};

/// `<` and its kind; types that Python does not order are an error.
pub(super) fn order(a: &Value, b: &Value, heap: &Heap) -> Res<Option<Ordering>> {
    heap.budget.steps(1)?;
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            heap.budget.steps(a.len().min(b.len()) / 64)?;
            return Ok(Some(a.cmp(b)));
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b, heap)? {
                    return order(a, b, heap);
                }
            }
            return Ok(Some(a.items.len().cmp(&b.items.len())));
        }
        _ => {}
    }
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        return Ok(Some(a.cmp(&b)));
    }
    match (a.as_float(), b.as_float()) {
        (Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
        _ => Err(used(&[a, b]).unwrap_or_else(|| fault(format!("'{}' and '{}' cannot be ordered", a.type_name(), b.type_name())))),
    }
}

/// The error of an undefined value among these.
pub(super) fn used(values: &[&Value]) -> Option<super::limits::Fault> {
    values.iter().find_map(|value| match value {
        Value::Undefined(what) => Some(fault(&**what)),
        _ => None,
    })
}

pub(super) fn compare(a: &Value, comparison: Comparison, b: &Value, heap: &Heap) -> Res<bool> {
    Ok(match comparison {
        Comparison::Equal => equal(a, b, heap)?,
        Comparison::NotEqual => !equal(a, b, heap)?,
        Comparison::Less => order(a, b, heap)? == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order(a, b, heap)?, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order(a, b, heap)? == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order(a, b, heap)?, Some(Ordering::Greater | Ordering::Equal)),
        Comparison::In => contains(b, a, heap)?,
        Comparison::NotIn => !contains(b, a, heap)?,
    })
}

/// `item in container`
pub(super) fn contains(container: &Value, item: &Value, heap: &Heap) -> Res<bool> {
    match (container, item) {
        (Value::Str(text), Value::Str(part)) => {
            heap.budget.steps((text.len() + part.len()) / 16)?;
            Ok(text.contains(&**part))
        }
        (Value::Str(_), other) => {
            Err(used(&[other])
                .unwrap_or_else(|| fault(format!("'in <string>' requires string as left operand, not {}", other.type_name()))))
        }
        (Value::Dict(dict), key) => Ok(dict.get(key, heap)?.is_some()),
        (Value::List(items) | Value::Tuple(items), _) => any_equal(&items.items, item, heap),
        _ => match container.iterate(heap)? {
            Some(items) => any_equal(&items, item, heap),
            None => Err(fault(format!("argument of type '{}' is not iterable", container.type_name()))),
        },
    }
}

fn any_equal(items: &[Value], item: &Value, heap: &Heap) -> Res<bool> {
    for own in items {
        if equal(own, item, heap)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// `a op b`
pub(super) fn binary(a: &Value, operator: Operator, b: &Value, heap: &Heap) -> Res<Value> {
    match (operator, a, b) {
        (Operator::Add, Value::Str(a), Value::Str(b)) => {
            heap.budget.text(a.len() + b.len())?;
            Ok(Value::Str([&**a, &**b].concat().into()))
        }
        (Operator::Add, Value::List(a), Value::List(b)) => heap.list(joined(&a.items, &b.items, heap)?),
        (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => heap.tuple(joined(&a.items, &b.items, heap)?),
        (Operator::Multiply, Value::Str(_) | Value::List(_) | Value::Tuple(_), n) if n.as_int().is_some() => repeat(a, n, heap),
        (Operator::Multiply, n, Value::Str(_) | Value::List(_) | Value::Tuple(_)) if n.as_int().is_some() => repeat(b, n, heap),
        (Operator::Modulo, Value::Str(format), values) => super::printf::format(format, values, heap),
        _ => match (a.as_int(), b.as_int()) {
            (Some(x), Some(y)) => whole(x, operator, y),
            _ => match (a.as_float(), b.as_float()) {
                (Some(x), Some(y)) => real(x, operator, y).map(Value::Float),
                _ => Err(used(&[a, b]).unwrap_or_else(|| unsupported(a, operator, b))),
            },
        },
    }
}

fn unsupported(a: &Value, operator: Operator, b: &Value) -> super::limits::Fault {
    let sign = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Modulo => "%",
        Operator::Power => "**",
    };
    fault(format!("unsupported operand types for {sign}: '{}' and '{}'", a.type_name(), b.type_name()))
}

fn joined(a: &[Value], b: &[Value], heap: &Heap) -> Res<Vec<Value>> {
    heap.budget.bytes(std::mem::size_of_val(a) + std::mem::size_of_val(b))?;
    Ok([a, b].concat())
}

fn repeat(items: &Value, n: &Value, heap: &Heap) -> Res<Value> {
    let n = usize::try_from(n.as_int().unwrap_or(0).max(0)).unwrap_or(usize::MAX);
    match items {
        Value::Str(text) => {
            heap.budget.text(text.len().saturating_mul(n))?;
            Ok(Value::Str(if text.is_empty() { String::new() } else { text.repeat(n) }.into()))
        }
        Value::List(own) | Value::Tuple(own) => {
            heap.budget.bytes(std::mem::size_of_val(own.items.as_slice()).saturating_mul(n))?;
            let all = own.items.iter().cycle().take(own.items.len().saturating_mul(n)).cloned().collect();
            if matches!(items, Value::List(_)) { heap.list(all) } else { heap.tuple(all) }
        }
        _ => Ok(Value::None),
    }
}

fn too_large() -> super::limits::Fault {
    fault("a number is too large")
}

fn whole(a: i128, operator: Operator, b: i128) -> Res<Value> {
    let by_zero = || fault("division by zero");
    let result = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Subtract => a.checked_sub(b),
        Operator::Multiply => a.checked_mul(b),
        Operator::Divide if b == 0 => return Err(by_zero()),
        Operator::Divide => return Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDivide | Operator::Modulo if b == 0 => return Err(by_zero()),
        // Python rounds towards minus infinity.
        Operator::FloorDivide => a.checked_div(b).map(|q| if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q }),
        Operator::Modulo => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r }),
        Operator::Power if b < 0 => return real(a as f64, operator, b as f64).map(Value::Float),
        Operator::Power => match (a, u32::try_from(b)) {
            (0 | 1, _) => Some(if b == 0 { 1 } else { a }),
            (_, Ok(exponent)) => a.checked_pow(exponent),
            _ => None,
        },
    };
    result.map(Value::Int).ok_or_else(too_large)
}

fn real(a: f64, operator: Operator, b: f64) -> Res<f64> {
    if b == 0.0 && matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Modulo) {
        return Err(fault("float division by zero"));
    }
    Ok(match operator {
        Operator::Add => a + b,
        Operator::Subtract => a - b,
        Operator::Multiply => a * b,
        Operator::Divide => a / b,
        Operator::FloorDivide => (a / b).floor(),
        Operator::Modulo => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        Operator::Power if a == 0.0 && b < 0.0 => return Err(fault("0.0 cannot be raised to a negative power")),
        Operator::Power => {
            let power = a.powf(b);
            if power.is_infinite() && a.is_finite() && b.is_finite() {
                return Err(too_large());
            }
            power
        }
    })
}

/// `-value` and `+value`
pub(super) fn signed(value: &Value, negative: bool) -> Res<Value> {
    match value {
        Value::Float(x) => Ok(Value::Float(if negative { -x } else { *x })),
        _ => match value.as_int() {
            Some(x) => Ok(Value::Int(if negative { x.checked_neg().ok_or_else(too_large)? } else { x })),
            None => Err(used(&[value]).unwrap_or_else(|| fault(format!("bad operand type for a sign: '{}'", value.type_name())))),
        },
    }
}
