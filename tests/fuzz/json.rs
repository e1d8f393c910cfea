//! Changes to JSON that leave it JSON: another value, key or number at some place, values moved between places and files.

use serde_json::{Map, Value};

use super::input::{BOUNDARIES, NUMBERS, Rng};

/// Changes the value in `bytes`; bytes that are no JSON get a byte changed.
pub fn change_bytes(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else {
        let at = rng.below(bytes.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte = rng.bits() as u8;
        }
        return;
    };
    let other: Value = serde_json::from_slice(other).unwrap_or(Value::Null);
    let count = nodes(&value);
    let target = rng.below(count);
    let donor = {
        let place = rng.below(nodes(&other));
        find(&other, place).cloned().unwrap_or(Value::Null)
    };
    if let Some(node) = find_mut(&mut value, target) {
        change(rng, node, donor, dictionary);
    }
    *bytes = value.to_string().into_bytes();
    if rng.one_in(6) {
        raw_number(rng, bytes);
    }
}

fn nodes(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(map) => map.values().map(nodes).sum(),
        _ => 0,
    }
}

fn find(value: &Value, mut place: usize) -> Option<&Value> {
    if place == 0 {
        return Some(value);
    }
    place -= 1;
    let children: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => return None,
    };
    for child in children {
        let size = nodes(child);
        if place < size {
            return find(child, place);
        }
        place -= size;
    }
    None
}

fn find_mut(value: &mut Value, mut place: usize) -> Option<&mut Value> {
    if place == 0 {
        return Some(value);
    }
    place -= 1;
    let children: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(map) => map.values_mut().collect(),
        _ => return None,
    };
    for child in children {
        let size = nodes(child);
        if place < size {
            return find_mut(child, place);
        }
        place -= size;
    }
    None
}

fn word(rng: &mut Rng, dictionary: &[&str]) -> String {
    if dictionary.is_empty() { "x".into() } else { (*rng.pick(dictionary)).to_owned() }
}

/// A value that a reader may not expect.
fn odd(rng: &mut Rng, dictionary: &[&str]) -> Value {
    match rng.below(14) {
        0 => Value::Null,
        1 => Value::Bool(rng.one_in(2)),
        2 | 3 => Value::from(*rng.pick(BOUNDARIES)),
        4 => Value::from((rng.bits() % 40) as i64 - 8),
        5 => Value::from(rng.bits() as f64 / 1e18 - 9.0),
        6 => {
            let text: &&str = rng.pick(NUMBERS);
            serde_json::from_str(text).unwrap_or(Value::from(0.5))
        }
        7 => Value::from(""),
        8..=10 => Value::from(word(rng, dictionary)),
        11 => Value::Array(Vec::new()),
        12 => Value::Object(Map::new()),
        _ => Value::from("é\u{0}\u{FDD0}\u{10FFFF}\"\\\u{1b}"),
    }
}

fn change(rng: &mut Rng, node: &mut Value, donor: Value, dictionary: &[&str]) {
    match (rng.below(10), &mut *node) {
        (0, _) => *node = donor,
        (1 | 2, Value::Object(map)) if !map.is_empty() => {
            let keys: Vec<String> = map.keys().cloned().collect();
            let key = rng.pick(&keys).clone();
            match rng.below(4) {
                0 => drop(map.shift_remove(&key)),
                1 => {
                    let old = map.shift_remove(&key).unwrap_or_default();
                    map.insert(word(rng, dictionary), old);
                }
                2 => drop(map.insert(key, donor)),
                _ => drop(map.insert(key, odd(rng, dictionary))),
            }
        }
        (3, Value::Object(map)) => {
            let value = if rng.one_in(2) { donor } else { odd(rng, dictionary) };
            map.insert(word(rng, dictionary), value);
        }
        (1..=4, Value::Array(items)) if !items.is_empty() => {
            let at = rng.below(items.len());
            match rng.below(6) {
                0 => drop(items.remove(at)),
                1 => items.insert(at, donor),
                2 => {
                    let copy = items[at].clone();
                    items.push(copy);
                }
                3 => items.swap(at, 0),
                4 => items.truncate(at),
                _ => items[at] = odd(rng, dictionary),
            }
        }
        (1..=4, Value::String(text)) => {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let at = *rng.pick(&places);
            match rng.below(5) {
                0 => text.truncate(at),
                1 => text.insert_str(at, &word(rng, dictionary)),
                2 => text.insert(at, char::from_u32(rng.bits() as u32 % 0x11_0000).unwrap_or('\u{FFFD}')),
                3 => *text = text.repeat(2),
                _ => *text = word(rng, dictionary),
            }
        }
        (1..=4, Value::Number(_)) => *node = Value::from(*rng.pick(BOUNDARIES)),
        (5, _) => {
            // Deeper than any reader needs.
            let depth = *rng.pick(&[1, 2, 8, 100, 200]);
            for _ in 0..depth {
                let inner = std::mem::take(node);
                *node =
                    if rng.one_in(2) { Value::Array(vec![inner]) } else { Value::Object(Map::from_iter([(word(rng, dictionary), inner)])) };
            }
        }
        (6, _) if rng.one_in(10) => {
            let times = *rng.pick(&[10, 100, 1000]);
            let item = if rng.one_in(2) { node.clone() } else { donor };
            if nodes(&item) < 20 {
                *node = Value::Array(vec![item; times]);
            }
        }
        _ => *node = odd(rng, dictionary),
    }
}

/// Writes a number that `serde_json` would never write in the place of one that it wrote.
fn raw_number(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let begins = |i: usize| bytes[i].is_ascii_digit() && i > 0 && matches!(bytes[i - 1], b':' | b',' | b'[');
    let starts: Vec<usize> = (0..bytes.len()).filter(|&i| begins(i)).collect();
    if starts.is_empty() {
        return;
    }
    let start = *rng.pick(&starts);
    let end = bytes[start..].iter().position(|b| matches!(b, b',' | b']' | b'}')).map_or(bytes.len(), |n| start + n);
    bytes.splice(start..end, rng.pick(NUMBERS).bytes());
}
