//! Getting numbers back: a staging buffer and a future, never a blocking wait in the browser.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use super::device::Gpu;
use super::held::Held;
use super::store::{Store, Tensor};
use crate::{Error, Result};

/// A value that a callback delivers once.
struct Slot<T> {
    value: Option<T>,
    waker: Option<Waker>,
}

struct Delivered<T>(Arc<Mutex<Slot<T>>>);

impl<T> Future for Delivered<T> {
    type Output = T;
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.value.take() {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A callback and the future that it completes.
fn delivery<T: Send + 'static>() -> (impl FnOnce(T) + Send + 'static, Delivered<T>) {
    let slot = Arc::new(Mutex::new(Slot { value: None, waker: None }));
    let theirs = slot.clone();
    let deliver = move |value: T| {
        let mut slot = theirs.lock().unwrap_or_else(PoisonError::into_inner);
        slot.value = Some(value);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    };
    (deliver, Delivered(slot))
}

impl Gpu {
    /// Lets queued work finish. Natively this waits; in the browser the event loop drives the callbacks.
    fn drive(&self) -> Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        if let Err(error) = self.device.poll(wgpu::PollType::wait_indefinitely()) {
            self.check()?;
            return Err(Error::DeviceLost { reason: error.to_string() });
        }
        Ok(())
    }

    /// Completes when everything submitted so far has run.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub async fn finish(&self) -> Result<()> {
        let (deliver, done) = delivery::<()>();
        self.queue.on_submitted_work_done(move || deliver(()));
        self.drive()?;
        done.await;
        self.check()
    }

    /// Submits pending writes and waits for them, so that staging memory is given back.
    ///
    /// # Errors
    /// What the driver reported meanwhile.
    pub async fn flush(&self) -> Result<()> {
        self.queue.submit([]);
        self.finish().await
    }

    pub(super) async fn map_read(&self, staging: &wgpu::Buffer, bytes: u64) -> Result<Vec<u8>> {
        let (deliver, done) = delivery();
        staging.map_async(wgpu::MapMode::Read, 0..bytes, deliver);
        self.drive()?;
        let mapped = done.await;
        self.check()?;
        mapped.map_err(|e| Error::DeviceLost { reason: format!("mapping a result failed: {e}") })?;
        let data = match staging.get_mapped_range(0..bytes) {
            Ok(view) => view.to_vec(),
            Err(e) => return Err(Error::Gpu { what: "reading a result".into(), message: e.to_string() }),
        };
        staging.unmap();
        Ok(data)
    }

    /// Reads a persistent tensor after everything submitted so far.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    pub async fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self, store: &Store, tensor: Tensor) -> Result<Vec<T>> {
        let staging = self.staging(tensor.bytes());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(store.buffer(tensor)?, u64::from(tensor.offset) * 4, &staging, 0, tensor.bytes());
        self.queue.submit([encoder.finish()]);
        let bytes = self.map_read(&staging, tensor.bytes()).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    pub(super) fn staging(&self, bytes: u64) -> Held {
        Held::new(self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        }))
    }
}
