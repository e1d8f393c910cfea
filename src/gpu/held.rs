//! Buffers that give their memory back at once.

use std::ops::Deref;

/// A buffer that is destroyed when its last owner goes. A browser would keep the memory of a dropped handle until the next garbage
/// collection, which knows nothing of the GPU's memory. Work that was submitted before still sees it.
#[derive(Debug)]
pub(super) struct Held(wgpu::Buffer);

impl Held {
    /// Takes the buffer over: nobody else may destroy it.
    pub fn new(buffer: wgpu::Buffer) -> Self {
        Self(buffer)
    }
}

impl Deref for Held {
    type Target = wgpu::Buffer;
    fn deref(&self) -> &wgpu::Buffer {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.destroy();
    }
}
