//! Checkpoints: what is read is what was written, and a damaged file is an error.

use proptest::prelude::*;
use serde_json::json;
use weblora::adapters::{Init, ParamLayout, ParamSpec, Storage};
use weblora::text::Example;
use weblora::train::batch::Cursor;
use weblora::train::checkpoint::{Buffers, LrChange, Partial, State, write};
use weblora::train::data::data_hash;
use weblora::train::kernels::KernelChoices;
use weblora::train::progress::{Best, Progress, Trend};
use weblora::train::{Checkpoint, TrainConfig};

fn layout() -> ParamLayout {
    let mut layout = ParamLayout::default();
    for (name, shape, transposed, trainable) in
        [("x.lora_A", vec![3, 5], false, true), ("y.lora_A", vec![2, 40], false, false), ("x.lora_B", vec![7, 3], true, true)]
    {
        layout.push(ParamSpec {
            name: name.into(),
            shape,
            transposed,
            offset: 0,
            adjacent: false,
            padding: 0,
            init: Init::Zeros,
            lr_multiplier: 1.0,
            weight_decay: true,
            trainable,
            storage: Storage::F32,
        });
    }
    layout
}

fn state() -> State {
    let config = TrainConfig::from_map(&json!({"rank": 3, "lr": 1e-4}).as_object().expect("an object").clone()).expect("settings");
    State {
        version: 2,
        weblora: "0.1.0".into(),
        base_hash: "base".into(),
        data_hash: "rows".into(),
        config: config.to_map(),
        step: u64::MAX,
        tokens: 12345,
        cursor: Cursor { epoch: 2, next: 9, waiting: vec![4, 8] },
        progress: Progress {
            best: Some(Best { step: 3, loss: 0.1 + 0.2 }),
            stale: 1,
            trend: Some(Trend { steps: 9, mean: 0.1 + 0.2, lowest: 0.1 }),
        },
        chain: None,
        lr_changes: vec![LrChange { step: 2, from: 2e-4, to: 1e-4 }],
        partial: Some(Partial { micro_batches: 1, sum: 0.1 + 0.2, by_task: Vec::new() }),
        kernels: Some(KernelChoices { device: "a GPU".into(), choices: [("case".to_owned(), "kernel A=1".to_owned())].into() }),
        embedding_tokens: vec![3, 7],
    }
}

/// Buffers whose every bit pattern must survive: subnormals, both zeros, an infinity and a NaN with a payload.
fn buffers(layout: &ParamLayout) -> Buffers {
    let mut odd = vec![0x0000_0001, 0x8000_0000, 0x7F80_0000, 0x7FC1_2345, 0x3F80_0001].into_iter().cycle();
    let mut fill = |moments: bool| {
        let (offsets, words) = layout.gradient_offsets();
        let mut buffer = vec![0.0; if moments { words } else { layout.words }];
        for (spec, offset) in layout.specs.iter().zip(offsets).filter(|(spec, _)| spec.trainable || !moments) {
            let offset = if moments { offset } else { spec.offset };
            buffer[offset..offset + spec.len()].fill_with(|| f32::from_bits(odd.next().unwrap_or_default()));
        }
        buffer
    };
    Buffers { values: fill(false), m: fill(true), v: fill(true), grads: Some(fill(true)) }
}

fn bits(buffers: &Buffers) -> Vec<u32> {
    [&buffers.values, &buffers.m, &buffers.v].into_iter().flatten().map(|x| x.to_bits()).collect()
}

fn file() -> Vec<u8> {
    write(&state(), &layout(), &buffers(&layout())).expect("a file")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, weblora::Error>, words: &[&str]) {
    let text = result.expect_err("should be refused").to_string();
    for word in words {
        assert!(text.contains(word), "{text:?} does not mention {word:?}");
    }
}

#[test]
fn a_checkpoint_is_read_bit_for_bit_and_written_the_same_twice() {
    let bytes = file();
    let checkpoint = Checkpoint::read("c", &bytes).expect("a checkpoint");
    assert_eq!(checkpoint.state, state());
    assert_eq!(bits(&checkpoint.buffers(&layout()).expect("buffers")), bits(&buffers(&layout())));
    assert_eq!(file(), bytes);
    let mut other = buffers(&layout());
    other.m[0] = f32::from_bits(other.m[0].to_bits() ^ 1);
    assert_ne!(bits(&other), bits(&buffers(&layout())), "the comparison cannot fail");
    TrainConfig::from_map(&checkpoint.state.config).expect("settings").check_resume(&checkpoint.state.config).expect("the same settings");
}

#[test]
fn another_base_or_other_rows_are_refused() {
    let bytes = file();
    let checkpoint = Checkpoint::read("c", &bytes).expect("a checkpoint");
    checkpoint.check("base", "rows").expect("its own");
    refused(checkpoint.check("other", "rows"), &["c:", "base model base", "other"]);
    refused(checkpoint.check("base", "other"), &["training rows rows"]);
}

#[test]
fn another_layout_is_refused() {
    let bytes = file();
    let checkpoint = Checkpoint::read("c", &bytes).expect("a checkpoint");
    let changed = |change: fn(&mut ParamLayout)| {
        let mut layout = layout();
        change(&mut layout);
        checkpoint.buffers(&layout)
    };
    refused(changed(|l| l.specs[0].shape = vec![5, 3]), &["param.x.lora_A", "[3, 5]", "[5, 3]"]);
    refused(changed(|l| l.specs[0].name = "z".into()), &["`param.z` is missing"]);
    refused(changed(|l| l.specs[1].trainable = true), &["`exp_avg.y.lora_A` is missing"]);
    refused(changed(|l| l.specs.truncate(2)), &["9 tensors, 5 were expected"]);
}

#[test]
fn another_version_is_refused_before_its_content_is_looked_at() {
    let bytes = write(&State { version: 3, ..state() }, &layout(), &buffers(&layout())).expect("a file");
    refused(Checkpoint::read("c", &bytes), &["version is 3, 2 was expected"]);
}

#[test]
fn rows_are_told_apart() {
    let example = |tokens: &[u32], targets: &[bool]| Example { tokens: tokens.to_vec(), targets: targets.to_vec(), row: 1, rejected: None };
    let hash = |examples: &[Example]| data_hash(examples);
    let one = hash(&[example(&[1, 2], &[false, true]), example(&[3], &[false])]);
    assert_eq!(one, hash(&[Example { row: 9, ..example(&[1, 2], &[false, true]) }, example(&[3], &[false])]));
    for other in [
        vec![example(&[1, 2], &[false, false]), example(&[3], &[false])],
        vec![example(&[1], &[false]), example(&[2, 3], &[true, false])],
        vec![example(&[3], &[false]), example(&[1, 2], &[false, true])],
    ] {
        assert_ne!(one, hash(&other));
    }
}

#[test]
fn no_byte_can_change_unnoticed() {
    let bytes = file();
    let (state, values) = (state(), bits(&buffers(&layout())));
    for at in 0..bytes.len() {
        for flip in [1u8, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            if let Ok(checkpoint) = Checkpoint::read("c", &damaged) {
                assert_eq!(checkpoint.state, state, "byte {at}");
                assert!(checkpoint.buffers(&layout()).is_ok_and(|b| bits(&b) == values), "byte {at}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_cut_file_is_an_error(cut in 0usize..10_000) {
        let bytes = file();
        let part = &bytes[..cut % bytes.len()];
        prop_assert!(Checkpoint::read("c", part).is_err());
    }

    #[test]
    fn any_bytes_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Checkpoint::read("c", &bytes).is_err());
    }
}
