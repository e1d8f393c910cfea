//! Properties of packing: every example once per epoch, no document across a step, resumption without a difference.

use proptest::prelude::*;
use weblora::text::Example;
use weblora::train::batch::{Batch, Cursor, LOOK_AHEAD, Packer, split};

/// Examples with tokens that tell whose they are.
fn examples(lengths: &[usize]) -> Vec<Example> {
    let example = |(i, &n): (usize, &usize)| Example {
        tokens: (0..n as u32).map(|j| i as u32 * 1000 + j + 1).collect(),
        targets: (0..n).map(|j| j > 0 && (j + i) % 3 != 0).collect(),
        row: i + 1,
        rejected: None,
    };
    lengths.iter().enumerate().map(example).collect()
}

/// Checks one step against its examples, row by row, from the definition.
fn check(batch: &Batch, all: &[Example]) -> Result<(), String> {
    let mut row = 0;
    let mut targets = 0;
    for &id in &batch.examples {
        let example = &all[id as usize];
        let start = row;
        for (i, &token) in example.tokens.iter().enumerate() {
            let next = if i + 1 < example.tokens.len() && example.targets[i + 1] { example.tokens[i + 1] as i32 } else { -1 };
            let expected = (token, next, start as u32, i as u32);
            let got = (batch.tokens[row], batch.targets[row], batch.doc_start[row], batch.position[row]);
            if got != expected {
                return Err(format!("row {row}: got {got:?}, expected {expected:?}"));
            }
            targets += usize::from(next >= 0);
            row += 1;
        }
    }
    let tail = (row..batch.tokens.len()).all(|i| batch.targets[i] == -1 && batch.doc_start[i] == i as u32 && batch.position[i] == 0);
    if !tail || batch.n_tokens != row || batch.n_targets != targets {
        return Err(format!("tail {tail}, tokens {} of {row}, targets {} of {targets}", batch.n_tokens, batch.n_targets));
    }
    Ok(())
}

#[test]
fn a_row_predicts_the_next_token_of_its_own_document() {
    let all = [
        Example { tokens: vec![10, 11, 12], targets: vec![false, false, true], row: 1, rejected: None },
        Example { tokens: vec![20, 21], targets: vec![false, true], row: 2, rejected: None },
    ];
    let batch = Batch::pack(vec![0, 1], &all, 7);
    assert_eq!(batch.tokens, [10, 11, 12, 20, 21, 0, 0]);
    assert_eq!(batch.targets, [-1, 12, -1, 21, -1, -1, -1]);
    assert_eq!(batch.doc_start, [0, 0, 0, 3, 3, 5, 6]);
    assert_eq!(batch.position, [0, 1, 2, 0, 1, 0, 0]);
    assert_eq!((batch.n_targets, batch.n_tokens), (2, 5));

    // The check used below notices a mask, a position or a document moved by one.
    assert_eq!(check(&batch, &all), Ok(()));
    for spoil in [
        (|b: &mut Batch| b.targets.rotate_right(1)) as fn(&mut Batch),
        |b| b.targets.rotate_left(1),
        |b| b.position[4] = 2,
        |b| b.doc_start[3] = 2,
        |b| b.doc_start[6] = 5,
        |b| b.n_targets += 1,
    ] {
        let mut spoiled = batch.clone();
        spoil(&mut spoiled);
        assert!(check(&spoiled, &all).is_err());
    }
}

#[test]
fn data_that_cannot_be_packed_is_refused() {
    assert!(Packer::new(&[], 8, 0, true).is_err());
    let all = examples(&[3, 9]);
    let error = Packer::new(&all, 8, 0, true).expect_err("too long").to_string();
    assert!(error.contains("row 2 has 9 tokens") && error.contains("--seq"), "{error}");
    let packer = Packer::new(&all, 9, 0, true).expect("fits");
    for cursor in [
        Cursor { epoch: 0, next: 3, waiting: vec![] },
        Cursor { epoch: 0, next: 1, waiting: vec![2] },
        Cursor { epoch: 0, next: 2, waiting: vec![0; LOOK_AHEAD + 1] },
    ] {
        assert!(packer.clone().resume(cursor).is_err());
    }
}

#[test]
fn the_fill_is_good_and_the_order_changes_with_epoch_and_seed() {
    let lengths: Vec<usize> = (0..400).map(|i| 20 + (i * 37) % 180).collect();
    let all = examples(&lengths);
    let mut packer = Packer::new(&all, 512, 1, true).expect("fits");
    let steps = packer.steps_in(1).expect("counted");
    let total: usize = lengths.iter().sum();
    assert!(total as f64 / (steps as f64 * 512.0) > 0.97, "{total} tokens in {steps} steps");
    let first: Vec<Batch> = (0..steps).map(|_| packer.next_batch(&all)).collect();
    assert_eq!(packer.cursor().epoch, 1);
    assert_ne!(first[0].examples, packer.next_batch(&all).examples);
    assert_ne!(first[0], Packer::new(&all, 512, 2, true).expect("fits").next_batch(&all));
    let in_order = Packer::new(&all, 512, 2, false).expect("fits").next_batch(&all);
    assert_eq!(in_order.examples[0], 0);
}

#[test]
fn a_split_is_deterministic_and_complete() {
    let (train, held) = split(20, 0.25, 3).expect("splits");
    assert_eq!((train.len(), held.len()), (15, 5));
    assert!(train.is_sorted() && held.is_sorted() && held.iter().all(|i| !train.contains(i)));
    assert_eq!(split(20, 0.25, 3).expect("splits"), (train.clone(), held));
    assert_ne!(split(20, 0.25, 4).expect("splits").0, train);
    assert_eq!(split(20, 0.001, 3).expect("splits").1.len(), 1);
    assert!(split(20, 0.0, 3).expect("splits").1.is_empty());
    assert!(split(1, 0.5, 3).is_err() && split(20, 1.0, 3).is_err() && split(20, f64::NAN, 3).is_err());
}

proptest! {
    #[test]
    fn every_example_once_per_epoch_and_resume_continues(
        lengths in prop::collection::vec(1usize..40, 1..200),
        extra in 0usize..60,
        seed: u64,
        shuffle: bool,
        stop in 0usize..30,
    ) {
        let all = examples(&lengths);
        let rows = 40 + extra;
        let mut packer = Packer::new(&all, rows, seed, shuffle).expect("fits");
        let steps = packer.steps_in(2).expect("counted");
        let mut seen = vec![0u32; all.len()];
        let mut batches = Vec::new();
        let mut cursors = Vec::new();
        for step in 0..steps {
            let epoch = packer.cursor().epoch;
            cursors.push(packer.cursor().clone());
            let batch = packer.next_batch(&all);
            prop_assert_eq!(batch.tokens.len(), rows);
            check(&batch, &all).map_err(TestCaseError::fail)?;
            prop_assert!(!batch.examples.is_empty(), "step {} makes progress", step);
            for &id in &batch.examples {
                seen[id as usize] += 1;
                prop_assert_eq!(u64::from(seen[id as usize]), epoch + 1, "once in each epoch, and no epoch early");
            }
            batches.push(batch);
        }
        prop_assert!(seen.iter().all(|&n| n == 2));
        prop_assert_eq!(packer.cursor(), &Cursor { epoch: 2, ..Cursor::default() });
        prop_assert_eq!(packer.epochs_done(), 2.0);

        let stop = stop % batches.len();
        let saved = serde_json::to_string(&cursors[stop]).expect("a cursor is JSON");
        let cursor: Cursor = serde_json::from_str(&saved).expect("and back");
        let mut resumed = Packer::new(&all, rows, seed, shuffle).and_then(|p| p.resume(cursor)).expect("the same data");
        for batch in &batches[stop..] {
            prop_assert_eq!(&resumed.next_batch(&all), batch);
        }
    }
}
