//! Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use weblora::{Error, Result};

use super::INTERRUPTED;

/// Whether the user has asked to stop. Cheap to clone; polled between steps.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Starts to listen for signals.
    pub fn listen() -> Result<Self> {
        let stop = Self::default();
        let asked = stop.clone();
        let handler = move || {
            if asked.0.swap(true, Ordering::SeqCst) {
                std::process::exit(i32::from(INTERRUPTED));
            }
            eprintln!("\nsaving after this step; press Ctrl-C again to quit without saving");
        };
        ctrlc::set_handler(handler).map_err(|e| Error::Io {
            action: "listen for",
            path: "signals".into(),
            source: std::io::Error::other(e),
            hint: "run one training per process",
        })?;
        Ok(stop)
    }

    /// Asks to stop, as a signal does.
    #[cfg(test)]
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
