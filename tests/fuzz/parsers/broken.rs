//! A parser with one fault of each kind, which the driver must find.

use std::hint::black_box;

use crate::driver::Parser;
use crate::input::{Input, binary};

pub const KINDS: &[&str] = &["fine", "panic", "overflow", "hang", "allocate", "recurse", "refuse"];

pub static BROKEN: Parser = Parser { name: "broken", seeds, dictionary: Vec::new, run };

fn seeds() -> Vec<Input> {
    KINDS.iter().map(|kind| vec![binary(*kind)]).collect()
}

fn run(input: &Input) -> weblora::Result<()> {
    match input[0].bytes.as_slice() {
        b"panic" => panic!("a panic"),
        b"overflow" => drop(black_box(black_box(u64::MAX) + black_box(1))),
        b"hang" => loop {
            black_box(());
        },
        b"allocate" => drop(black_box(vec![1u8; 1 << 30])),
        b"recurse" => drop(black_box(recurse(black_box(1)))),
        b"refuse" => return Err(weblora::Error::format("broken", "a seed", "none")),
        _ => {}
    }
    Ok(())
}

#[expect(unconditional_recursion, reason = "the stack is to overflow")]
fn recurse(depth: u64) -> u64 {
    black_box(depth) + recurse(depth + 1)
}
