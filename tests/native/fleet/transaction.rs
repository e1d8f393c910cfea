//! A step is a transaction: one that meets a NaN has changed nothing.

use serde_json::json;
use weblora::gpu::{Gpu, Tuner};
use weblora::train::trainer::{TrainPlan, Trainer};
use weblora::train::{StepReport, TrainConfig};

use super::{block, data, model, settings};
use crate::common::gpu;

fn trainer(gpu: &Gpu) -> Trainer {
    let file = model();
    let config = TrainConfig::from_map(&settings("main", json!({ "rank": 4, "grad-accum": 2, "dropout": 0.1 }))).unwrap();
    let (data, mut tuner) = (data(3), Tuner::for_device(gpu));
    let plan = TrainPlan::new(&file, &config, Some(&data), gpu.plan_limits(), &tuner).unwrap();
    block(Trainer::new(gpu, &file, config, data, plan, None, &mut tuner, false, |_, _| ())).unwrap()
}

fn bits(step: &StepReport) -> (u64, u64) {
    (step.loss.to_bits(), step.grad_norm.to_bits())
}

#[test]
fn a_step_that_meets_nan_leaves_rows_and_gradients_as_they_were() {
    let Some(gpu) = gpu() else { return };
    let mut expected = trainer(gpu);
    let losses: Vec<(u64, u64)> = (0..4).map(|_| bits(&block(expected.step(gpu)).unwrap())).collect();
    let mut broken = trainer(gpu);
    assert_eq!(bits(&block(broken.step(gpu)).unwrap()), losses[0]);
    let saved = block(broken.checkpoint(gpu)).unwrap();
    let slot = broken.job().slot;
    let values = block(broken.session().read_values(gpu, slot)).unwrap();
    for _ in 0..2 {
        broken.session().write_values(gpu, slot, &vec![f32::NAN; values.len()]).unwrap();
        assert_eq!(block(broken.step(gpu)).unwrap_err().code(), "not_finite");
        broken.session().write_values(gpu, slot, &values).unwrap();
        assert!(block(broken.checkpoint(gpu)).unwrap() == saved, "step, rows and moments");
    }
    let after: Vec<(u64, u64)> = (1..4).map(|_| bits(&block(broken.step(gpu)).unwrap())).collect();
    assert_eq!(after, losses[1..], "the same rows, and no gradient of the step that failed");
}
