//! Kernels that sum in different orders give different last digits. A resumed run repeats the choices that it began with, whatever is measured since.

use crate::common::gpu;
use serde_json::json;
use weblora::formats::{ByteSource, Bytes, ModelFile};
use weblora::gpu::device::Facts;
use weblora::gpu::{Gpu, Tuner};
use weblora::text::Example;
use weblora::train::checkpoint::{State, write};
use weblora::train::data::TaskRows;
use weblora::train::kernels::KernelChoices;
use weblora::train::trainer::{TrainData, TrainPlan, Trainer};
use weblora::train::{Checkpoint, Event, Run, TrainConfig};

const GGUF: &[u8] = include_bytes!("../golden/tiny_llama/model.gguf");
const STEPS: usize = 6;

fn block<T>(future: impl Future<Output = T>) -> T {
    pollster::block_on(future)
}

fn config() -> TrainConfig {
    let settings = json!({ "batch": 4, "seq": 32, "steps": STEPS, "rank": 4, "lr": 1e-2 });
    TrainConfig::from_map(settings.as_object().expect("an object")).expect("settings")
}

fn data() -> TrainData {
    let row = |i: usize| {
        let tokens: Vec<u32> = (0..12 + i % 7).map(|j| 1 + ((i * 7 + j * 3) % 40) as u32).collect();
        Example { targets: vec![true; tokens.len()], tokens, row: i + 1, rejected: None }
    };
    let rows = TaskRows { name: "rows".into(), train: (0..20).map(row).collect(), held_out: vec![], labelled: vec![] };
    std::iter::once(rows).collect()
}

fn file() -> ModelFile {
    let source: Box<dyn ByteSource> = Box::new(Bytes::new("model.gguf", GGUF));
    block(ModelFile::open_gguf(vec![source])).expect("a model")
}

fn plan(gpu: &Gpu, tuner: &Tuner) -> TrainPlan {
    TrainPlan::new(&file(), &config(), Some(&data()), gpu.plan_limits(), tuner).expect("a plan")
}

/// A tuner that takes the first candidate of every case, or the first that sums in another order. A CPU adapter is offered one order only, so this one
/// takes it for a GPU.
fn tuner(gpu: &Gpu, other: bool) -> Tuner {
    let mut tuner = Tuner::assuming(Facts { is_cpu: false, ..gpu.facts().clone() });
    for case in plan(gpu, &tuner).planned.untuned() {
        let first = &case.candidates[0];
        let chosen = case.candidates.iter().find(|candidate| (candidate.order() != first.order()) == other).unwrap_or(first);
        tuner.force(&case.key, chosen);
    }
    tuner
}

/// A trainer whose recordings repeat what was saved, if `repeat`; what it is warned of; its checkpoint after `steps`.
fn train(gpu: &Gpu, mut tuner: Tuner, saved: Option<&[u8]>, repeat: bool, steps: usize) -> (Trainer, Vec<String>, Vec<u8>) {
    let state = saved.map(|bytes| Checkpoint::read("saved", bytes).expect("a checkpoint").state);
    KernelChoices::repeat(state.iter().filter(|_| repeat).flat_map(|state| &state.kernels), &mut tuner);
    let (file, plan) = (file(), plan(gpu, &tuner));
    let trainer = Trainer::new(gpu, &file, config(), data(), plan, None, &mut tuner, false, |_, _| {});
    let mut trainer = block(trainer).expect("a trainer");
    assert!(tuner.pinned().is_empty(), "only this run repeats them");
    if let Some(bytes) = saved {
        trainer.resume(gpu, "saved", bytes).expect("resumed");
    }
    let events = Run::of(&trainer).start_events(&mut trainer, gpu, Vec::new());
    let warnings = events.into_iter().filter_map(|event| match event {
        Event::Warning { message, .. } if message.contains("last digits") => Some(message),
        _ => None,
    });
    let warnings = warnings.collect();
    for _ in 0..steps {
        block(trainer.step(gpu)).expect("a step");
    }
    let bytes = block(trainer.checkpoint(gpu)).expect("a checkpoint");
    (trainer, warnings, bytes)
}

/// The checkpoint with another state.
fn changed(trainer: &Trainer, bytes: &[u8], change: impl FnOnce(&mut State)) -> Vec<u8> {
    let saved = Checkpoint::read("saved", bytes).expect("a checkpoint");
    let (mut state, layout) = (saved.state.clone(), &trainer.layout().params);
    change(&mut state);
    write(&state, layout, &saved.buffers(layout).expect("buffers")).expect("written")
}

#[test]
fn a_resumed_run_repeats_the_kernels_of_its_checkpoint() {
    let Some(gpu) = gpu() else { return };
    let (first, other) = (tuner(gpu, false), tuner(gpu, true));
    assert_ne!(plan(gpu, &first).planned.kernels(), plan(gpu, &other).planned.kernels(), "the caches must disagree");
    let (_, _, whole) = train(gpu, first.clone(), None, true, STEPS);
    let (_, _, half) = train(gpu, first, None, true, STEPS / 2);
    let (_, warnings, resumed) = train(gpu, other.clone(), Some(&half), true, STEPS - STEPS / 2);
    assert_eq!(warnings, Vec::<String>::new());
    assert!(whole == resumed, "the same choices give the same bytes");
    // Without that the run is another one, and says so.
    let (_, warnings, resumed) = train(gpu, other, Some(&half), false, STEPS - STEPS / 2);
    assert!(whole != resumed, "the comparison cannot fail");
    assert!(warnings.len() == 1 && warnings[0].contains("another order than before the checkpoint"), "{warnings:?}");
}

#[test]
fn a_checkpoint_of_another_gpu_or_of_an_earlier_version_goes_on() {
    let Some(gpu) = gpu() else { return };
    let (trainer, _, saved) = train(gpu, tuner(gpu, true), None, true, 1);
    let elsewhere = changed(&trainer, &saved, |state| {
        let kernels = state.kernels.as_mut().expect("choices");
        kernels.device = "another GPU".into();
        kernels.choices.values_mut().for_each(|candidate| *candidate = "no kernel".into());
    });
    let (_, warnings, _) = train(gpu, tuner(gpu, false), Some(&elsewhere), true, 1);
    assert!(warnings.len() == 1 && warnings[0].contains("made on \"another GPU\", this is"), "{warnings:?}");
    let earlier = changed(&trainer, &saved, |state| state.kernels = None);
    let (_, warnings, _) = train(gpu, tuner(gpu, false), Some(&earlier), true, 1);
    assert_eq!(warnings, Vec::<String>::new());
    // Kernels that are no more: the run goes on, and says so.
    let gone = changed(&trainer, &saved, |state| {
        let kernels = state.kernels.as_mut().expect("choices");
        kernels.choices.values_mut().for_each(|candidate| *candidate = "no kernel".into());
    });
    let (_, warnings, _) = train(gpu, tuner(gpu, false), Some(&gone), true, 1);
    assert!(warnings.len() == 1 && warnings[0].contains("another order"), "{warnings:?}");
}
