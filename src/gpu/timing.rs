//! GPU time by label: every dispatch in a pass of its own between two timestamps.

use super::clock;
use super::device::Gpu;
use super::executable::{Executable, Name, Ready};
use crate::{Error, Result};

/// Two timestamps per dispatch; WebGPU allows 4096 queries in a set.
const PER_SET: usize = 2048;

/// One dispatch of a profiled run.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Place in the model.
    pub label: String,
    /// Kernel name.
    pub kernel: &'static str,
    /// Time on the GPU in seconds.
    pub seconds: f64,
    /// Arithmetic operations.
    pub flops: u64,
    /// Bytes that it touches, each counted once.
    pub bytes: u64,
}

impl Executable {
    /// Seconds that one run of the dispatches takes, from `repeats` runs in one submit: by timestamps where there are any that tell, else by the
    /// host's clock.
    pub(super) async fn time(&self, gpu: &Gpu, repeats: u32) -> Result<f64> {
        let count = 2;
        let bytes = u64::from(count) * 8;
        let queries = gpu.facts().timestamps.then(|| {
            let set = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count });
            (set, timestamp_buffer(gpu, bytes), gpu.staging(bytes))
        });
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let timestamp_writes = queries.as_ref().map(|(query_set, ..)| wgpu::ComputePassTimestampWrites {
            query_set,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
        for _ in 0..repeats {
            for command in &self.ready {
                if let Ready::Dispatch { pipeline, group, offset, grid, .. } = command {
                    pass.set_pipeline(pipeline);
                    pass.set_bind_group(0, group, &[*offset]);
                    pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
                }
            }
        }
        drop(pass);
        if let Some((set, resolved, staging)) = &queries {
            encoder.resolve_query_set(set, 0..count, resolved, 0);
            encoder.copy_buffer_to_buffer(resolved, 0, staging, 0, bytes);
        }
        let began = clock::now();
        gpu.queue.submit([encoder.finish()]);
        gpu.finish().await?;
        let by_host = (clock::now() - began).as_secs_f64();
        let by_device = match &queries {
            None => 0.0,
            Some((.., staging)) => {
                let raw: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.map_read(staging, bytes).await?);
                raw[1].saturating_sub(raw[0]) as f64 * f64::from(gpu.queue.get_timestamp_period()) * 1e-9
            }
        };
        // A browser may round timestamps to a whole tenth of a millisecond, and down to nothing.
        Ok(if by_device > 0.0 { by_device } else { by_host } / f64::from(repeats))
    }

    /// Runs once with timestamps around every dispatch. Slower than [`Executable::run`]; the sum of times is a lower bound of a step.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the adapter has no timestamps.
    pub async fn profile(&self, gpu: &Gpu) -> Result<Vec<Timing>> {
        if !gpu.facts().timestamps {
            let what = format!("timing by label on {}", gpu.facts().name);
            return Err(Error::Unsupported { what, hint: "the adapter has no timestamp queries; whole steps are still timed".into() });
        }
        let mut timings = Vec::new();
        let mut start = 0;
        while start < self.ready.len() {
            let end = (start + PER_SET).min(self.ready.len());
            self.profile_part(gpu, start, end, &mut timings).await?;
            start = end;
        }
        Ok(timings)
    }

    async fn profile_part(&self, gpu: &Gpu, start: usize, end: usize, timings: &mut Vec<Timing>) -> Result<()> {
        let count = 2 * (end - start) as u32;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor { label: None, ty: wgpu::QueryType::Timestamp, count });
        let bytes = u64::from(count) * 8;
        let resolved = timestamp_buffer(gpu, bytes);
        let staging = gpu.staging(bytes);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for (i, command) in self.ready[start..end].iter().enumerate() {
            let Ready::Dispatch { pipeline, group, offset, grid, optional, .. } = command else {
                command.encode_transfer(&mut encoder);
                continue;
            };
            if !self.is_active(*optional) {
                continue;
            }
            let writes = wgpu::ComputePassTimestampWrites {
                query_set: &queries,
                beginning_of_pass_write_index: Some(2 * i as u32),
                end_of_pass_write_index: Some(2 * i as u32 + 1),
            };
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(writes) });
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[*offset]);
            pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
        }
        encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
        encoder.copy_buffer_to_buffer(&resolved, 0, &staging, 0, bytes);
        gpu.queue.submit([encoder.finish()]);
        let raw: Vec<u64> = bytemuck::pod_collect_to_vec(&gpu.map_read(&staging, bytes).await?);
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        for (i, command) in self.ready[start..end].iter().enumerate() {
            if let Ready::Dispatch { optional, .. } = command
                && self.is_active(*optional)
            {
                let Name { label, kernel, flops, bytes } = self.names[start + i].clone();
                timings.push(Timing { label, kernel, seconds: raw[2 * i + 1].saturating_sub(raw[2 * i]) as f64 * period, flops, bytes });
            }
        }
        Ok(())
    }
}

/// Where queries are resolved to.
fn timestamp_buffer(gpu: &Gpu, bytes: u64) -> wgpu::Buffer {
    let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
    gpu.device.create_buffer(&wgpu::BufferDescriptor { label: Some("timestamps"), size: bytes, usage, mapped_at_creation: false })
}
