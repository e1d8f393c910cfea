//! A plan made real: arenas, cached bind groups, pipelines. Running it allocates nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock;
use super::device::Gpu;
use super::dispatch::{Candidate, Command, Dispatch};
use super::held::Held;
use super::plan::{PARAMS_SLOT, Plan};
use super::store::{Space, Store, Tensor};
use crate::{Error, Result};

/// Work per submit aims at this long, so that neither a watchdog nor a tab's event loop suffers.
const SUBMIT_TARGET: Duration = Duration::from_millis(150);
/// Submits that may be queued before the oldest is waited for.
const IN_FLIGHT: usize = 2;
/// Assumed speed before anything is measured: a slow CPU adapter.
const FIRST_RATE: f64 = 2e9;

/// The buffers behind transient tensors, shared by all executables of a session (they never run at the same time).
#[derive(Debug, Default)]
pub struct Arenas {
    buffers: Vec<Arc<Held>>,
}

impl Arenas {
    /// Buffers large enough for each of `plans`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] or [`Error::Limit`].
    pub async fn allocate(gpu: &Gpu, plans: &[&Plan]) -> Result<Arenas> {
        let count = plans.iter().map(|p| p.arenas.len()).max().unwrap_or(0);
        let mut buffers = Vec::with_capacity(count);
        for i in 0..count {
            let bytes = plans.iter().filter_map(|p| p.arenas.get(i)).max().copied().unwrap_or(4);
            #[allow(clippy::arc_with_non_send_sync, reason = "wgpu's handles may change threads everywhere but in a browser")]
            buffers.push(Arc::new(Held::new(gpu.create_storage(&format!("arena {i}"), bytes).await?)));
        }
        Ok(Arenas { buffers })
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.size()).sum()
    }
}

/// A command with its GPU objects.
pub(super) enum Ready {
    Dispatch { pipeline: wgpu::ComputePipeline, group: wgpu::BindGroup, offset: u32, grid: [u32; 3], cost: f64, optional: Option<u32> },
    Clear { buffer: wgpu::Buffer, offset: u64, bytes: u64 },
    Copy { from: wgpu::Buffer, from_offset: u64, to: wgpu::Buffer, to_offset: u64, bytes: u64 },
}

/// What a profile says of a command.
#[derive(Clone)]
pub(super) struct Name {
    pub label: String,
    pub kernel: &'static str,
    pub flops: u64,
    pub bytes: u64,
}

impl Name {
    fn of(command: &Command) -> Self {
        let transfer = |kernel: &'static str| Self { label: kernel.into(), kernel, flops: 0, bytes: 0 };
        match command {
            Command::Dispatch { run, what, .. } => {
                Self { label: what.label.clone(), kernel: run.spec.name, flops: what.flops, bytes: what.bytes }
            }
            Command::Clear(_) => transfer("clear"),
            Command::Copy { .. } => transfer("copy"),
        }
    }
}

/// What can be run again and again.
pub struct Executable {
    pub(super) ready: Vec<Ready>,
    /// What each command is, for profiles.
    pub(super) names: Vec<Name>,
    places: Vec<Option<super::plan::Place>>,
    arenas: Vec<Arc<Held>>,
    params: Held,
    /// Measured cost units per second.
    rate: f64,
    /// Optional groups below this number run.
    groups: u32,
}

impl Executable {
    /// Compiles, binds and uploads parameters.
    ///
    /// # Errors
    /// [`Error::Gpu`] if a shader or binding is refused, [`Error::OutOfMemory`].
    pub async fn new(gpu: &Gpu, store: &Store, arenas: &Arenas, plan: Plan) -> Result<Executable> {
        let params = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: plan.params_bytes,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut made = Executable {
            ready: Vec::with_capacity(plan.commands.len()),
            names: Vec::with_capacity(plan.commands.len()),
            places: plan.places,
            arenas: arenas.buffers.clone(),
            params: Held::new(params),
            rate: FIRST_RATE,
            groups: u32::MAX,
        };
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut slots = vec![0u8; plan.params_bytes as usize];
        let mut slot = 0usize;
        for command in plan.commands {
            let name = Name::of(&command);
            let ready = match command {
                Command::Dispatch { run, what, group } => {
                    let at = slot * PARAMS_SLOT as usize;
                    slots[at..at + what.params.len()].copy_from_slice(&what.params);
                    slot += 1;
                    made.bind(gpu, store, &run, &what, (at as u32, group))?
                }
                Command::Clear(tensor) => {
                    let (buffer, offset) = made.locate(store, tensor)?;
                    Ready::Clear { buffer, offset, bytes: tensor.bytes() }
                }
                Command::Copy { from, to } => {
                    let (from_buffer, from_offset) = made.locate(store, from)?;
                    let (to_buffer, to_offset) = made.locate(store, to)?;
                    Ready::Copy { from: from_buffer, from_offset, to: to_buffer, to_offset, bytes: from.bytes() }
                }
            };
            made.ready.push(ready);
            made.names.push(name);
            // Pipelines compile synchronously on the web: let the event loop breathe between them.
            clock::yield_now().await;
        }
        gpu.queue.write_buffer(&made.params, 0, &slots);
        match scope.pop().await {
            None => gpu.check().map(|()| made),
            Some(error) => Err(Error::Gpu { what: "preparing a step".into(), message: error.to_string() }),
        }
    }

    /// The buffer and first byte of a tensor.
    fn locate(&self, store: &Store, tensor: Tensor) -> Result<(wgpu::Buffer, u64)> {
        let offset = u64::from(tensor.offset) * 4;
        match tensor.space {
            Space::Persistent => Ok((store.buffer(tensor)?.clone(), offset)),
            Space::Transient => {
                let place = self.places.get(tensor.index as usize).copied().flatten();
                let found = place.and_then(|p| self.arenas.get(p.arena).map(|b| ((***b).clone(), p.offset + offset)));
                found.ok_or_else(|| Error::Gpu { what: format!("transient {}", tensor.index), message: "has no place in the plan".into() })
            }
        }
    }

    fn bind(&self, gpu: &Gpu, store: &Store, run: &Candidate, what: &Dispatch, (at, optional): (u32, Option<u32>)) -> Result<Ready> {
        let pipeline = gpu.pipeline(run.spec, &run.variant)?;
        let located: Vec<_> = what.bind.iter().map(|t| self.locate(store, *t).map(|l| (l, t.bytes()))).collect::<Result<_>>()?;
        let size = |bytes: u64| std::num::NonZeroU64::new(bytes);
        let uniform = wgpu::BufferBinding { buffer: &self.params, offset: 0, size: size(PARAMS_SLOT) };
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(uniform) }];
        for (i, ((buffer, offset), bytes)) in located.iter().enumerate() {
            let binding = wgpu::BufferBinding { buffer, offset: *offset, size: size(*bytes) };
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource: wgpu::BindingResource::Buffer(binding) });
        }
        let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&what.label),
            layout: &pipeline.layout,
            entries: &entries,
        });
        // A memory-bound kernel is worth about four operations a byte.
        let cost = what.flops as f64 + what.bytes as f64 * 4.0;
        Ok(Ready::Dispatch { pipeline: pipeline.pipeline, group, offset: at, grid: run.grid, cost, optional })
    }

    /// Submits everything once, in pieces of bounded duration; returns when at most two pieces are still queued.
    ///
    /// # Errors
    /// What the driver reported.
    pub async fn run(&mut self, gpu: &Gpu) -> Result<()> {
        let mut flying = VecDeque::new();
        let mut start = 0;
        while start < self.ready.len() {
            let (end, cost) = self.piece(start);
            let began = clock::now();
            flying.push_back((self.submit(gpu, start, end), cost, began));
            start = end;
            if flying.len() > IN_FLIGHT
                && let Some((index, cost, began)) = flying.pop_front()
            {
                gpu.wait_for(index).await?;
                // Up to IN_FLIGHT pieces overlapped with this one; the estimate errs towards small pieces.
                let seconds = (clock::now() - began).as_secs_f64() / IN_FLIGHT as f64;
                self.rate = 0.5 * self.rate + 0.5 * (cost / seconds.max(1e-4));
            }
        }
        if flying.len() > 1
            && let Some((index, _, _)) = flying.pop_front()
        {
            gpu.wait_for(index).await?;
        }
        gpu.check()
    }

    /// Later runs execute only optional groups below `groups`.
    pub fn set_groups(&mut self, groups: u32) {
        self.groups = groups;
    }

    pub(super) fn is_active(&self, optional: Option<u32>) -> bool {
        optional.is_none_or(|group| group < self.groups)
    }

    /// Commands from `start` that fit in one submit.
    fn piece(&self, start: usize) -> (usize, f64) {
        let budget = self.rate * SUBMIT_TARGET.as_secs_f64();
        let mut cost = 0.0;
        for (i, command) in self.ready.iter().enumerate().skip(start) {
            if let Ready::Dispatch { cost: c, optional, .. } = command
                && self.is_active(*optional)
            {
                if i > start && cost + c > budget {
                    return (i, cost);
                }
                cost += c;
            }
        }
        (self.ready.len(), cost)
    }

    fn submit(&self, gpu: &Gpu, start: usize, end: usize) -> wgpu::SubmissionIndex {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut at = start;
        while at < end {
            match &self.ready[at] {
                Ready::Dispatch { .. } => {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    while let Some(Ready::Dispatch { pipeline, group, offset, grid, optional, .. }) = self.ready[..end].get(at) {
                        at += 1;
                        if !self.is_active(*optional) {
                            continue;
                        }
                        pass.set_pipeline(pipeline);
                        pass.set_bind_group(0, group, &[*offset]);
                        pass.dispatch_workgroups(grid[0], grid[1], grid[2]);
                    }
                }
                other => {
                    other.encode_transfer(&mut encoder);
                    at += 1;
                }
            }
        }
        gpu.queue.submit([encoder.finish()])
    }

    /// Reads a transient or persistent tensor after a run; for tests and debugging, since transients may have been overwritten.
    ///
    /// # Errors
    /// [`Error::Gpu`] or [`Error::DeviceLost`].
    pub async fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, gpu: &Gpu, store: &Store, tensor: Tensor) -> Result<Vec<T>> {
        let (buffer, offset) = self.locate(store, tensor)?;
        let staging = gpu.staging(tensor.bytes());
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(&buffer, offset, &staging, 0, tensor.bytes());
        gpu.queue.submit([encoder.finish()]);
        let bytes = gpu.map_read(&staging, tensor.bytes()).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    /// Bytes of the uniform buffer on the device.
    pub fn params_bytes(&self) -> u64 {
        self.params.size()
    }

    /// Number of submits that the next run will make.
    pub fn submits(&self) -> usize {
        let (mut start, mut count) = (0, 0);
        while start < self.ready.len() {
            start = self.piece(start).0;
            count += 1;
        }
        count
    }
}

impl Ready {
    /// Records a clear or a copy; a dispatch belongs in a pass and does nothing here.
    pub(super) fn encode_transfer(&self, encoder: &mut wgpu::CommandEncoder) {
        match self {
            Ready::Clear { buffer, offset, bytes } => encoder.clear_buffer(buffer, *offset, Some(*bytes)),
            Ready::Copy { from, from_offset, to, to_offset, bytes } => {
                encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, *bytes);
            }
            Ready::Dispatch { .. } => {}
        }
    }
}

impl Gpu {
    #[cfg(not(target_arch = "wasm32"))]
    async fn wait_for(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        match self.device.poll(wgpu::PollType::Wait { submission_index: Some(index), timeout: None }) {
            Ok(_) => Ok(()),
            Err(error) => self.check().and(Err(Error::DeviceLost { reason: error.to_string() })),
        }
    }

    #[cfg(target_arch = "wasm32")]
    async fn wait_for(&self, _index: wgpu::SubmissionIndex) -> Result<()> {
        self.finish().await
    }
}
