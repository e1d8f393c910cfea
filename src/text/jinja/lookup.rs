//! Attributes, items and slices.

use std::rc::Rc;
use std::sync::Arc;

use super::limits::{Res, fault};
use super::method_names;
use super::value::{Heap, Value};

/// `value[key]`
pub(super) fn item(value: &Value, key: &Value, heap: &Heap) -> Res<Value> {
    heap.budget.steps(1 + key.as_str().map_or(0, str::len) / 16)?;
    let found = match (value, key) {
        (Value::Undefined(what), _) => return Err(fault(&**what)),
        (Value::Dict(dict), _) => dict.get(key, heap)?.cloned(),
        (_, key) => match key.as_int() {
            Some(place) => at(value, place, heap)?,
            None => None,
        },
    };
    match (found, key) {
        (Some(found), _) => Ok(found),
        (None, Value::Str(name)) => attribute(value, name, heap),
        (None, key) => Ok(value.missing(&format!("element {}", super::print::text(key, heap)?))),
    }
}

/// `value.name`
pub(super) fn attribute(value: &Value, name: &Arc<str>, heap: &Heap) -> Res<Value> {
    heap.budget.steps(1 + name.len() / 16)?;
    if let Value::Undefined(what) = value {
        return Err(fault(&**what));
    }
    if let Value::Namespace(place) = value {
        let namespaces = heap.namespaces.borrow();
        let found = namespaces.get(*place).and_then(|dict| dict.get_str(name)).cloned();
        return Ok(found.unwrap_or_else(|| value.missing(&format!("attribute '{name}'"))));
    }
    if let Some(method) = method(value, name) {
        return Ok(method);
    }
    let found = match value {
        Value::Dict(dict) => dict.get_str(name).cloned(),
        Value::Cycler(items, place) if &**name == "current" => {
            heap.counters.borrow().get(*place).and_then(|at| items.items.get(*at)).cloned()
        }
        // The pairs that `groupby` gives have names.
        Value::Tuple(pair) if pair.items.len() == 2 => match &**name {
            "grouper" => pair.items.first().cloned(),
            "list" => pair.items.last().cloned(),
            _ => None,
        },
        _ => None,
    };
    Ok(found.unwrap_or_else(|| value.missing(&format!("attribute '{name}'"))))
}

fn method(value: &Value, name: &Arc<str>) -> Option<Value> {
    method_names::exists(value, name).then(|| Value::Method(Rc::new((value.clone(), name.clone()))))
}

/// The item at a place, counted from the end where negative.
fn at(value: &Value, place: i128, heap: &Heap) -> Res<Option<Value>> {
    let Some(length) = value.length(heap)? else { return Ok(None) };
    let place = if place < 0 { place + length as i128 } else { place };
    let Some(place) = usize::try_from(place).ok().filter(|&place| place < length) else { return Ok(None) };
    Ok(match value {
        Value::List(items) | Value::Tuple(items) => items.items.get(place).cloned(),
        Value::Str(text) => text.chars().nth(place).map(|c| Value::Str(c.to_string().into())),
        Value::Range(start, _, step) => Some(Value::Int(i128::from(*start) + place as i128 * i128::from(*step))),
        _ => None,
    })
}

/// `value[start:end:step]`
pub(super) fn slice(value: &Value, bounds: [Option<Value>; 3], heap: &Heap) -> Res<Value> {
    if let Value::Undefined(what) = value {
        return Err(fault(&**what));
    }
    let [start, end, step] = bounds;
    let bound = |value: Option<Value>| match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => value.as_int().map(Some).ok_or_else(|| fault("slice indices must be whole numbers")),
    };
    let (start, end, step) = (bound(start)?, bound(end)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(fault("slice step cannot be zero"));
    }
    let chars: Vec<char>;
    let length = match value {
        Value::Str(text) => {
            heap.budget.bytes(text.len().saturating_mul(4))?;
            chars = text.chars().collect();
            chars.len()
        }
        Value::List(_) | Value::Tuple(_) | Value::Range(..) => {
            chars = Vec::new();
            value.length(heap)?.unwrap_or(0)
        }
        Value::Dict(_) => return Err(fault("unhashable type: 'slice'")),
        other => return Err(fault(format!("'{}' object is not subscriptable", other.type_name()))),
    };
    let places = places(length, start, end, step);
    match value {
        Value::Str(_) => heap.str(places.map(|place| chars[place]).collect::<String>()),
        _ => {
            let all = value.items(heap)?;
            let picked = places.map(|place| all[place].clone()).collect();
            if matches!(value, Value::Tuple(_)) { heap.tuple(picked) } else { heap.list(picked) }
        }
    }
}

/// Which places a slice picks, all below `length`.
fn places(length: usize, start: Option<i128>, end: Option<i128>, step: i128) -> impl Iterator<Item = usize> {
    let n = length as i128;
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let clamp = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(place) if place < 0 => place.saturating_add(n).max(low),
        Some(place) => place.min(high),
    };
    let (start, end) = if step > 0 { (clamp(start, 0), clamp(end, n)) } else { (clamp(start, n - 1), clamp(end, -1)) };
    let mut next = start;
    std::iter::from_fn(move || {
        let inside = if step > 0 { next < end } else { next > end };
        let place = inside.then_some(next)?;
        next = next.saturating_add(step);
        usize::try_from(place).ok()
    })
}
