//! Deterministic damage: every case is a seed of the parser with a few changes.

use super::input::{BOUNDARIES, Input, Kind, NUMBERS, Part, Rng};
use super::json;

/// Inputs do not grow beyond this.
const MOST_BYTES: usize = 1 << 20;

/// Input number `case` of a parser: its seeds as they are first, then seeds with changes.
pub fn input(parser: &str, case: u64, seeds: &[Input], dictionary: &[&str]) -> Input {
    if let Some(seed) = usize::try_from(case).ok().and_then(|case| seeds.get(case)) {
        return seed.clone();
    }
    let mut rng = Rng::new(parser, case);
    let rng = &mut rng;
    let mut made = rng.pick(seeds).clone();
    let rounds = if rng.one_in(8) { 1 + rng.below(24) } else { 1 + rng.below(4) };
    for _ in 0..rounds {
        let place = rng.below(made.len());
        let other = rng.pick(seeds)[place].clone();
        change(rng, &mut made[place], &other, dictionary);
    }
    made.iter_mut().for_each(|part| part.bytes.truncate(MOST_BYTES));
    made
}

fn change(rng: &mut Rng, part: &mut Part, other: &Part, dictionary: &[&str]) {
    let structured = !rng.one_in(4);
    match part.kind {
        Kind::Json if structured => json::change_bytes(rng, &mut part.bytes, &other.bytes, dictionary),
        Kind::JsonLines if structured => change_line(rng, &mut part.bytes, &other.bytes, dictionary),
        Kind::Safetensors if structured => change_header(rng, &mut part.bytes, &other.bytes, dictionary),
        Kind::Binary | Kind::Safetensors => change_binary(rng, &mut part.bytes, &other.bytes, dictionary),
        _ => change_text(rng, &mut part.bytes, &other.bytes, dictionary),
    }
}

fn change_line(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    let mut lines: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let others: Vec<&[u8]> = other.split(|b| *b == b'\n').collect();
    let at = rng.below(lines.len());
    match rng.below(8) {
        0 => lines.insert(at, others[rng.below(others.len())].to_vec()),
        1 => drop(lines.remove(at)),
        2 => lines.swap(at, 0),
        _ => {
            let theirs = others[rng.below(others.len())];
            json::change_bytes(rng, &mut lines[at], theirs, dictionary);
        }
    }
    *bytes = lines.join(&b'\n');
}

/// Changes the JSON header of a safetensors file and corrects its length, so that the change is read.
fn change_header(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    let header = |bytes: &[u8]| -> Option<usize> {
        let len = u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?);
        usize::try_from(len).ok().filter(|len| bytes.len() - 8 >= *len)
    };
    let Some(len) = header(bytes) else { return change_binary(rng, bytes, other, dictionary) };
    let mut text = bytes[8..8 + len].to_vec();
    let others = header(other).map_or(&b"{}"[..], |len| &other[8..8 + len]);
    json::change_bytes(rng, &mut text, others, dictionary);
    let mut made = (text.len() as u64).to_le_bytes().to_vec();
    made.extend(text);
    made.extend(&bytes[8 + len..]);
    *bytes = made;
}

fn boundary(rng: &mut Rng) -> u64 {
    let near = *rng.pick(BOUNDARIES);
    match rng.below(6) {
        0 => near.wrapping_add(rng.bits() % 16),
        1 => near.wrapping_sub(rng.bits() % 16),
        _ => near,
    }
}

/// A range of the bytes, short more often than long.
fn range(rng: &mut Rng, len: usize) -> std::ops::Range<usize> {
    let start = rng.below(len + 1);
    let most = if rng.one_in(4) { len - start } else { (len - start).min(16) };
    start..start + rng.below(most + 1)
}

fn change_binary(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    // Headers come first, and are where lengths are.
    let near = if rng.one_in(3) { bytes.len() } else { bytes.len().min(2048) };
    let at = rng.below(near);
    match rng.below(12) {
        0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
        2 if !bytes.is_empty() => bytes[at] = rng.bits() as u8,
        3..=6 => {
            let value = boundary(rng).to_le_bytes();
            let width = *rng.pick(&[1, 2, 4, 8, 8]);
            // Most fields are aligned to their size or follow a text.
            let at = if rng.one_in(2) { at / 4 * 4 } else { at };
            for (place, byte) in bytes.iter_mut().skip(at).zip(value).take(width) {
                *place = byte;
            }
        }
        _ => change_shared(rng, bytes, other, dictionary),
    }
}

fn change_text(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    match rng.below(8) {
        0 => {
            // A number of the text becomes another one.
            let digits: Vec<usize> = (0..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
            let Some(&start) = digits.get(rng.below(digits.len())) else { return change_shared(rng, bytes, other, dictionary) };
            let end = bytes[start..].iter().position(|b| !b.is_ascii_digit()).map_or(bytes.len(), |n| start + n);
            bytes.splice(start..end, rng.pick(NUMBERS).bytes());
        }
        1 => {
            let at = rng.below(bytes.len() + 1);
            let odd = [
                "\u{0}",
                "\u{FEFF}",
                "\u{FDD0}",
                "\u{FDD1}",
                "é",
                "\u{10FFFF}",
                "\u{202E}",
                "\r\n",
                "\t",
                "\"",
                "\\",
                "\u{1b}[31m",
                "▁",
                "Ġ",
            ];
            bytes.splice(at..at, rng.pick(&odd).bytes());
        }
        _ => change_shared(rng, bytes, other, dictionary),
    }
}

/// Changes that suit anything.
fn change_shared(rng: &mut Rng, bytes: &mut Vec<u8>, other: &[u8], dictionary: &[&str]) {
    let (from, place) = (range(rng, bytes.len()), rng.below(bytes.len() + 1));
    match rng.below(10) {
        0 => bytes.truncate(place),
        1 => drop(bytes.drain(from)),
        2 => {
            let copy = bytes[from].to_vec();
            bytes.splice(place..place, copy);
        }
        3 => {
            let theirs = range(rng, other.len());
            bytes.splice(from, other[theirs].iter().copied());
        }
        4 => {
            let theirs = range(rng, other.len());
            bytes.splice(place..place, other[theirs].iter().copied());
        }
        5 if !bytes.is_empty() => {
            let at = rng.below(bytes.len());
            bytes[at] = rng.bits() as u8;
        }
        6 if rng.one_in(8) => {
            // Nesting and length: one word many times.
            let word = if dictionary.is_empty() || rng.one_in(3) {
                *rng.pick(&["[", "{\"a\":", "(", " ", "a", "\n"])
            } else {
                *rng.pick(dictionary)
            };
            let times = *rng.pick(&[10, 100, 1000, 20_000]);
            let times = times.min(MOST_BYTES / word.len().max(1));
            bytes.splice(place..place, word.bytes().cycle().take(word.len() * times));
        }
        _ if !dictionary.is_empty() => {
            let word = rng.pick(dictionary).bytes();
            let at = if rng.one_in(3) { from } else { place..place };
            bytes.splice(at, word);
        }
        _ => drop(bytes.drain(from)),
    }
}
