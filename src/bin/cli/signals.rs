//! Ctrl-C, SIGTERM and a closing terminal: the first asks the run to save and stop, the second ends the program at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use weblora::{Error, Result};

use super::output::say;

/// Interrupted by the user, after saving: what shells use for SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Signals so soon after the first are the same wish: of a closing terminal the kernel tells, and the shell, too.
const ONE_WISH: Duration = Duration::from_secs(1);

/// Whether the user has asked to stop. Cheap to clone; polled between steps.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Starts to listen for signals.
    pub fn listen() -> Result<Self> {
        let stop = Self::default();
        let asked = stop.clone();
        let mut first: Option<Instant> = None;
        let handler = move || {
            asked.0.store(true, Ordering::SeqCst);
            match first {
                Some(first) if first.elapsed() > ONE_WISH => std::process::exit(i32::from(INTERRUPTED)),
                Some(_) => {}
                None => {
                    first = Some(Instant::now());
                    say("\nsaving after this step; press Ctrl-C again to quit without saving");
                }
            }
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
