//! Adapters that one binding does not hold: in several pages a job has the bits that it has in one, and still comes and goes by tables only.

use weblora::gpu::device::PlanLimits;

use super::*;

/// Two jobs a step: what is small here are the adapters, so their rows must be few.
fn options() -> Options {
    Options { step_tokens: 32, ..Options::default() }
}

fn specs_of_all_kinds() -> Vec<Spec> {
    let norms = json!({ "rank": 3, "targets": ["q", "o", "layers.1.mlp.down_proj"], "train-norms": true, "eval-every": 3 });
    let experts = json!({ "method": "mixlora", "experts": 3, "rank": 2, "expert-dropout": 0.2, "lr": 2e-2 });
    [specs(), vec![("norms", norms), ("experts", experts)]].concat()
}

/// A fleet whose device binds so many bytes.
fn open_within(gpu: &Gpu, specs: &[Spec], max_binding: u64) -> Fleet {
    let file = model();
    let hash = block(file.content_hash()).unwrap();
    let mut tuner = Tuner::for_device(gpu);
    let limits = PlanLimits { max_binding, ..gpu.plan_limits() };
    let plan = FleetPlan::new(&file, &hash, None, entries_of(specs), options(), limits, &mut tuner).unwrap();
    let planned = plan.planned.footprint().total();
    assert!(plan.planned.store.entries().iter().all(|entry| entry.bytes <= max_binding), "within a binding");
    let mut fleet = block(plan.open(gpu, &file, &mut tuner, false, |_, _| {})).unwrap();
    assert_eq!(planned, fleet.session().allocated_bytes(), "planned and allocated bytes");
    fleet
}

/// Norms of a job's gradients, step by step.
fn norms(kept: &Kept, name: &str) -> Vec<f64> {
    let of = |event: &Event| match event {
        Event::Step(step) if step.job == name => Some(step.grad_norm),
        _ => None,
    };
    kept.events.iter().filter_map(of).collect()
}

#[test]
fn jobs_in_several_pages_have_the_bits_of_one() {
    let Some(gpu) = &own_gpu() else { return };
    let specs = specs_of_all_kinds();
    let (mut fleet, mut expected) = (open(gpu, entries_of(&specs), options()), Kept::default());
    let [whole] = *fleet.session().adapters().pages() else { panic!("one page") };
    run(gpu, &mut fleet, &mut expected);
    assert!(expected.failed().is_empty(), "{:?}", expected.failed());
    let mut most = 0;
    for parts in [2, 3] {
        let (mut fleet, mut kept) = (open_within(gpu, &specs, (4 * whole.values as u64 / parts).next_multiple_of(256)), Kept::default());
        most = most.max(fleet.session().adapters().pages().len());
        // One leaves in the middle and comes back, at other places than before.
        fleet.request("modules", Request::Pause).unwrap();
        block(fleet.advance(gpu, &mut kept)).unwrap();
        let (pipelines, bytes) = (gpu.pipelines(), fleet.session().allocated_bytes());
        fleet.request("chain", Request::Pause).unwrap();
        fleet.request("modules", Request::Resume).unwrap();
        block(fleet.advance(gpu, &mut kept)).unwrap();
        fleet.request("chain", Request::Resume).unwrap();
        run(gpu, &mut fleet, &mut kept);
        assert_eq!((gpu.pipelines(), fleet.session().allocated_bytes()), (pipelines, bytes), "nothing is compiled or allocated");
        for (name, _) in &specs {
            assert_eq!(kept.losses(name), expected.losses(name), "{name}: losses");
            assert_eq!(norms(&kept, name), norms(&expected, name), "{name}: norms of gradients");
            assert!(kept.adapter(name) == expected.adapter(name), "{name}: the adapter's bytes");
        }
    }
    assert!(most > 2, "{most} pages");
}

#[test]
fn what_one_layer_of_one_job_needs_must_fit_a_binding() {
    let Some(gpu) = gpu() else { return };
    let (file, mut tuner) = (model(), Tuner::for_device(gpu));
    let hash = block(file.content_hash()).unwrap();
    let limits = PlanLimits { max_binding: 6144, ..gpu.plan_limits() };
    let large = vec![entry("large", 1, json!({ "rank": 12, "targets": ["gate", "up", "q"] }))];
    let error = FleetPlan::new(&file, &hash, None, large, Options::default(), limits, &mut tuner).err().unwrap().to_string();
    assert!(error.contains("gate_proj and up_proj") && error.contains("6144 bytes") && error.contains("--rank"), "{error}");
}
