//! Methods of Python's values. Those that change a list or a dict are refused, as Hugging Face's sandbox refuses them.

use super::arguments::Given;
use super::limits::{Res, fault};
use super::method_names::changes;
use super::text_methods;
use super::value::{Heap, Items, Value, equal};

/// Calls a method that exists.
pub(super) fn call(value: &Value, name: &str, given: Given, heap: &Heap) -> Res<Value> {
    heap.budget.steps(1)?;
    if changes(value, name) {
        let what = format!("'{}.{name}' would change its value, which a chat template may not; use a namespace", value.type_name());
        return Err(fault(what));
    }
    match (value, name) {
        (Value::Str(text), _) => text_methods::call(text, name, given, heap),
        (Value::List(items) | Value::Tuple(items), "index" | "count") => search(items, name, given, heap),
        (Value::List(_) | Value::Dict(_), "copy") => {
            given.exactly("copy", [])?;
            Ok(value.clone())
        }
        (Value::Dict(dict), "get") => {
            let [key, default] = given.bind("get", ["key", "default"])?;
            let key = key.ok_or_else(|| fault("get needs a key"))?;
            Ok(dict.get(&key, heap)?.cloned().or(default).unwrap_or(Value::None))
        }
        (Value::Dict(dict), _) => {
            given.exactly(name, [])?;
            let each = |(key, own): &(Value, Value)| match name {
                "keys" => Ok(key.clone()),
                "values" => Ok(own.clone()),
                _ => heap.tuple(vec![key.clone(), own.clone()]),
            };
            heap.list(dict.entries().iter().map(each).collect::<Res<_>>()?)
        }
        (Value::Float(value), _) => Ok(Value::Bool(value.is_finite() && value.fract() == 0.0)),
        (Value::Cycler(items, place), _) => {
            let mut counters = heap.counters.borrow_mut();
            let counter = counters.get_mut(*place).ok_or_else(|| fault("a cycler that is gone"))?;
            if name == "reset" {
                *counter = 0;
                return Ok(Value::None);
            }
            let item = items.items.get(*counter).cloned().unwrap_or(Value::None);
            *counter = (*counter + 1) % items.items.len().max(1);
            Ok(item)
        }
        (other, _) => Ok(Value::Int(i128::from(128 - other.as_int().unwrap_or(0).unsigned_abs().leading_zeros()))),
    }
}

fn search(items: &Items, name: &str, given: Given, heap: &Heap) -> Res<Value> {
    let [wanted] = given.exactly(name, ["value"])?;
    let mut count = 0;
    for (place, item) in items.items.iter().enumerate() {
        if equal(item, &wanted, heap)? {
            if name == "index" {
                return Ok(Value::Int(place as i128));
            }
            count += 1;
        }
    }
    if name == "index" { Err(fault("the list has no such item")) } else { Ok(Value::Int(count)) }
}
