//! Jinja2's filters on sequences, and a sort that can fail.

use std::cmp::Ordering;

use super::arguments::{Given, int_or};
use super::limits::{Res, fault};
use super::value::{Heap, Value, equal};
use super::{lookup, operators, print};

/// Applies a filter of that name, if it is one of these.
pub(super) fn filter(name: &str, value: &Value, given: Given, heap: &Heap) -> Res<Option<Value>> {
    Ok(Some(match name {
        "length" | "count" => {
            given.exactly(name, [])?;
            let length = value.length(heap)?.ok_or_else(|| fault(format!("object of type '{}' has no len()", value.type_name())))?;
            Value::Int(length as i128)
        }
        "first" | "last" => {
            given.exactly(name, [])?;
            end_of(name, value, heap)?
        }
        "list" => {
            given.exactly(name, [])?;
            heap.list(value.items(heap)?)?
        }
        "join" => join(value, given, heap)?,
        "reverse" => {
            given.exactly(name, [])?;
            if let Value::Str(text) = value {
                return Ok(Some(heap.str(text.chars().rev().collect::<String>())?));
            }
            let mut items = value.items(heap)?;
            items.reverse();
            heap.iterator(items)?
        }
        "items" => match value {
            Value::Undefined(_) => heap.list(Vec::new())?,
            Value::Dict(_) => heap.iterator(super::methods::call(value, "items", given, heap)?.items(heap)?)?,
            _ => return Err(fault("can only get item pairs from a mapping")),
        },
        "sort" | "dictsort" | "unique" | "min" | "max" | "groupby" => sorted(name, value, given, heap)?,
        "sum" => {
            let [attribute, start] = given.bind(name, ["attribute", "start"])?;
            let mut total = start.unwrap_or(Value::Int(0));
            for item in value.items(heap)? {
                total = operators::binary(&total, super::ast::Operator::Add, &at(&item, attribute.as_ref(), heap)?, heap)?;
            }
            total
        }
        "batch" => {
            let [count, fill] = given.bind(name, ["linecount", "fill_with"])?;
            let count = usize::try_from(int_or(count.as_ref(), 0)?).unwrap_or(0);
            batch(value.items(heap)?, count, fill, heap)?
        }
        "slice" => {
            let [count, fill] = given.bind(name, ["slices", "fill_with"])?;
            let count = usize::try_from(int_or(count.as_ref(), 0)?).unwrap_or(0);
            slices(&value.items(heap)?, count, fill, heap)?
        }
        _ => return Ok(None),
    }))
}

/// What `attribute='a.b.0'` finds in an item.
pub(super) fn path(item: &Value, attribute: &Value, heap: &Heap) -> Res<Value> {
    path_or(item, attribute, None, heap)
}

/// As [`path`]; wherever nothing is found, the default takes its place.
pub(super) fn path_or(item: &Value, attribute: &Value, default: Option<&Value>, heap: &Heap) -> Res<Value> {
    let parts: Vec<Value> = match attribute {
        Value::Str(path) => {
            heap.budget.scan(path.len())?;
            let dots = path.bytes().filter(|byte| *byte == b'.').count();
            heap.budget.piece(dots.saturating_mul(2 * size_of::<Value>()))?;
            let number = |part: &str| part.parse().ok().filter(|_| part.bytes().all(|b| b.is_ascii_digit())).map(Value::Int);
            path.split('.').map(|part| number(part).unwrap_or_else(|| Value::Str(part.into()))).collect()
        }
        other => vec![other.clone()],
    };
    let mut found = item.clone();
    for part in &parts {
        found = lookup::item(&found, part, heap)?;
        if let (true, Some(default)) = (found.is_undefined(), default) {
            found = default.clone();
        }
    }
    Ok(found)
}

fn at(item: &Value, attribute: Option<&Value>, heap: &Heap) -> Res<Value> {
    match attribute {
        None | Some(Value::None) => Ok(item.clone()),
        Some(attribute) => path(item, attribute, heap),
    }
}

fn end_of(name: &str, value: &Value, heap: &Heap) -> Res<Value> {
    if let Value::Iterator(lazy) = value {
        if name == "last" {
            return Err(fault("'generator' object is not reversible"));
        }
        let first = lazy.rest.borrow_mut().next();
        return Ok(first.unwrap_or_else(|| Value::Undefined("No first item, sequence was empty.".into())));
    }
    let items = value.items(heap)?;
    let found = if name == "first" { items.first() } else { items.last() };
    Ok(found.cloned().unwrap_or_else(|| Value::Undefined(format!("No {name} item, sequence was empty.").into())))
}

fn join(value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let [separator, attribute] = given.bind("join", ["d", "attribute"])?;
    let separator = separator.unwrap_or_else(|| Value::Str("".into()));
    let separator = print::text(&separator, heap)?;
    let mut out = String::new();
    for (i, item) in value.items(heap)?.iter().enumerate() {
        if i > 0 {
            heap.budget.push(&mut out, &separator)?;
        }
        let item = at(item, attribute.as_ref(), heap)?;
        heap.budget.push(&mut out, &print::text(&item, heap)?)?;
    }
    Ok(Value::Str(out.into()))
}

/// Strings without regard to case, where that is not asked for.
fn folded(value: Value, case_sensitive: bool, heap: &Heap) -> Res<Value> {
    match value {
        Value::Str(text) if !case_sensitive => {
            heap.budget.scan(text.len())?;
            heap.str(text.to_lowercase())
        }
        other => Ok(other),
    }
}

/// The filters that order or compare by a key.
fn sorted(name: &str, value: &Value, given: Given, heap: &Heap) -> Res<Value> {
    let truth = |value: &Option<Value>| value.as_ref().is_some_and(Value::truth);
    match name {
        "sort" => {
            let [reverse, case, attribute] = given.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let items = keyed(value, attribute.as_ref(), truth(&case), heap)?;
            // Jinja2 compares lists of keys, so that equal keys need no order of their own.
            let mut items = items.into_iter().map(|(key, item)| Ok((heap.tuple(vec![key])?, item))).collect::<Res<Vec<_>>>()?;
            order_by(&mut items, truth(&reverse), heap)?;
            heap.list(items.into_iter().map(|(_, item)| item).collect())
        }
        "dictsort" => {
            let [case, by, reverse] = given.bind(name, ["case_sensitive", "by", "reverse"])?;
            let place = match by.as_ref().map(Value::as_str) {
                None | Some(Some("key")) => 0,
                Some(Some("value")) => 1,
                _ => return Err(fault("you can only sort by either \"key\" or \"value\"")),
            };
            let Value::Dict(_) = value else { return Err(fault("dictsort needs a dict")) };
            let pairs = super::methods::call(value, "items", Given::default(), heap)?;
            let mut items = keyed(&pairs, Some(&Value::Int(place)), truth(&case), heap)?;
            order_by(&mut items, truth(&reverse), heap)?;
            heap.list(items.into_iter().map(|(_, item)| item).collect())
        }
        "groupby" => {
            let [attribute, default, case] = given.bind(name, ["attribute", "default", "case_sensitive"])?;
            let attribute = attribute.ok_or_else(|| fault("groupby needs an attribute"))?;
            groups(value, &attribute, default, truth(&case), heap)
        }
        _ => {
            let [case, attribute] = given.bind(name, ["case_sensitive", "attribute"])?;
            let mut kept: Vec<(Value, Value)> = Vec::new();
            for (key, item) in keyed(value, attribute.as_ref(), truth(&case), heap)? {
                let better = match (name, kept.first()) {
                    ("unique", _) => !any_key(&kept, &key, heap)?,
                    (_, None) => true,
                    (_, Some((best, _))) => {
                        let wanted = if name == "max" { Ordering::Greater } else { Ordering::Less };
                        let better = operators::order(&key, best, heap)? == Some(wanted);
                        if better {
                            kept.clear();
                        }
                        better
                    }
                };
                if better {
                    kept.push((key, item));
                }
            }
            let mut items: Vec<Value> = kept.into_iter().map(|(_, item)| item).collect();
            match name {
                "unique" => heap.iterator(items),
                _ => Ok(items.pop().unwrap_or_else(|| Value::Undefined("No aggregated item, sequence was empty.".into()))),
            }
        }
    }
}

fn any_key(kept: &[(Value, Value)], key: &Value, heap: &Heap) -> Res<bool> {
    for (own, _) in kept {
        if equal(own, key, heap)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Each item with what it is ordered by; several attributes have commas between.
fn keyed(value: &Value, attribute: Option<&Value>, case_sensitive: bool, heap: &Heap) -> Res<Vec<(Value, Value)>> {
    let key = |item: &Value| match attribute {
        Some(Value::Str(paths)) if paths.contains(',') => {
            heap.budget.scan(paths.len())?;
            let parts = paths.split(',').map(|part| folded(path(item, &Value::Str(part.into()), heap)?, case_sensitive, heap));
            heap.tuple(parts.collect::<Res<_>>()?)
        }
        _ => folded(at(item, attribute, heap)?, case_sensitive, heap),
    };
    value.items(heap)?.into_iter().map(|item| Ok((key(&item)?, item))).collect()
}

fn order_by(items: &mut Vec<(Value, Value)>, reverse: bool, heap: &Heap) -> Res<()> {
    // Python keeps the order of equal items also in reverse.
    if reverse {
        items.reverse();
    }
    sort_by(items, heap, |(key, _)| key)?;
    if reverse {
        items.reverse();
    }
    Ok(())
}

fn groups(value: &Value, attribute: &Value, default: Option<Value>, case_sensitive: bool, heap: &Heap) -> Res<Value> {
    let mut items = Vec::new();
    for item in value.items(heap)? {
        let key = path_or(&item, attribute, default.as_ref(), heap)?;
        items.push((folded(key.clone(), case_sensitive, heap)?, heap.tuple(vec![key, item])?));
    }
    sort_by(&mut items, heap, |(key, _)| key)?;
    let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
    for (key, pair) in items {
        let pair = pair.items(heap)?;
        let [own, item] = pair.as_slice() else { continue };
        match groups.last_mut() {
            Some((last, _, members)) if equal(last, &key, heap)? => members.push(item.clone()),
            _ => groups.push((key, own.clone(), vec![item.clone()])),
        }
    }
    let group = |(_, key, members): (Value, Value, Vec<Value>)| heap.tuple(vec![key, heap.list(members)?]);
    heap.list(groups.into_iter().map(group).collect::<Res<_>>()?)
}

fn batch(items: Vec<Value>, count: usize, fill: Option<Value>, heap: &Heap) -> Res<Value> {
    let mut batches = Vec::new();
    for chunk in items.chunks(count.max(1)) {
        let mut chunk = chunk.to_vec();
        if let (Some(fill), Some(missing)) = (fill.as_ref().filter(|v| !matches!(v, Value::None)), count.checked_sub(chunk.len())) {
            heap.budget.bytes(missing.saturating_mul(size_of::<Value>()))?;
            chunk.extend(std::iter::repeat_n(fill.clone(), missing));
        }
        batches.push(heap.list(chunk)?);
    }
    heap.iterator(batches)
}

fn slices(items: &[Value], count: usize, fill: Option<Value>, heap: &Heap) -> Res<Value> {
    if count == 0 {
        return Err(fault("slice: division by zero"));
    }
    heap.budget.bytes(count.saturating_mul(size_of::<Value>()))?;
    let (each, more) = (items.len() / count, items.len() % count);
    let mut columns = Vec::new();
    let mut start = 0;
    for i in 0..count {
        let end = start + each + usize::from(i < more);
        let mut column = items[start..end].to_vec();
        if let Some(fill) = fill.as_ref().filter(|v| !matches!(v, Value::None) && i >= more && more > 0) {
            column.push(fill.clone());
        }
        columns.push(heap.list(column)?);
        start = end;
    }
    heap.iterator(columns)
}

/// A stable merge sort by a key, whose comparison may fail and need not be a total order.
pub(super) fn sort_by<T>(items: &mut Vec<T>, heap: &Heap, key: impl Fn(&T) -> &Value + Copy) -> Res<()> {
    if items.len() < 2 {
        return Ok(());
    }
    let mut right = items.split_off(items.len() / 2);
    sort_by(items, heap, key)?;
    sort_by(&mut right, heap, key)?;
    let left = std::mem::take(items);
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let from_right = operators::order(key(b), key(a), heap)? == Some(Ordering::Less);
        items.extend(if from_right { right.next() } else { left.next() });
    }
    items.extend(left);
    items.extend(right);
    Ok(())
}
