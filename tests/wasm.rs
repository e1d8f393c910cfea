//! What must hold in a browser, run by `make test-web` in headless Chromium and Firefox. Both adapters are software: keep sizes tiny.
//! A kernel family's test here takes the smallest awkward sizes from the same case table as its native test.
#![cfg(target_arch = "wasm32")]

use wasm_bindgen_test::{console_log, wasm_bindgen_test, wasm_bindgen_test_configure};

wasm_bindgen_test_configure!(run_in_browser);

#[wasm_bindgen_test]
fn the_crate_runs_in_a_browser() {
    let error = weblora::Error::config("rank", "found 0, expected at least 1", "try --rank 8");
    assert_eq!(error.code(), "config");
    assert_eq!(error.to_string(), "`rank`: found 0, expected at least 1; try --rank 8");
}

/// The floor that every kernel must run in (ARCHITECTURE.md) holds on this browser's adapter.
#[wasm_bindgen_test]
async fn webgpu_offers_the_floor_of_limits() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let adapter = instance.request_adapter(&wgpu::RequestAdapterOptions::default()).await.expect("this browser has a WebGPU adapter");
    let (info, limits) = (adapter.get_info(), adapter.limits());
    console_log!("WebGPU adapter: {info:?}");
    console_log!("features: {:?}", adapter.features());
    assert!(limits.max_storage_buffer_binding_size >= 128 << 20, "{limits:?}");
    assert!(limits.max_storage_buffers_per_shader_stage >= 8, "{limits:?}");
    assert!(limits.max_compute_invocations_per_workgroup >= 256, "{limits:?}");
    assert!(limits.max_compute_workgroup_storage_size >= 16 << 10, "{limits:?}");
    assert!(limits.max_compute_workgroups_per_dimension >= 65_535, "{limits:?}");
}

#[path = "wasm/engine.rs"]
mod engine;
#[path = "wasm/golden.rs"]
mod golden;
#[path = "wasm/jobs.rs"]
mod jobs;
#[path = "wasm/kernels.rs"]
mod kernels;
