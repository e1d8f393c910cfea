//! One error enum for the whole crate. Every variant says what was expected, what was found, where, and what to do.

/// What every fallible function of the crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A broken promise: of a file, a setting, the data, the GPU or the run. Its text is one sentence for the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("cannot {action} {path}: {source}; {hint}")]
    Io {
        /// What was being done: "read", "write", "create", "rename".
        action: &'static str,
        /// The file or folder.
        path: String,
        /// What the system said.
        source: std::io::Error,
        /// What the user can do.
        hint: &'static str,
    },
    /// A server did not give what it was asked for.
    #[error("{url}: {problem}; {hint}")]
    Network {
        /// What was asked for.
        url: String,
        /// What happened.
        problem: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// A file breaks its own format.
    #[error("{file}: {problem}; {hint}")]
    Format {
        /// The file, and where in it.
        file: String,
        /// What was found and what was expected.
        problem: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// A file or setting asks for something this crate knows by name but does not do.
    #[error("{what} is not supported; {hint}")]
    Unsupported {
        /// The thing, by its own name.
        what: String,
        /// What is supported instead.
        hint: String,
    },
    /// A setting has a value that cannot work.
    #[error("`{key}`: {problem}; {hint}")]
    Config {
        /// The setting's name, as on the command line.
        key: String,
        /// What was found and what was expected.
        problem: String,
        /// What the user can do.
        hint: String,
    },
    /// A row of training or evaluation data is unusable.
    #[error("{file}, row {row}: {problem}; {hint}")]
    Data {
        /// The data file.
        file: String,
        /// 1-based row (line) number; 0 when the whole file is meant.
        row: usize,
        /// What was found and what was expected.
        problem: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// An adapter does not fit the base model or the run.
    #[error("adapter {adapter}: {problem}; {hint}")]
    Adapter {
        /// The adapter's folder or job name.
        adapter: String,
        /// What was found and what was expected.
        problem: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// No usable GPU adapter.
    #[error("no GPU adapter: {problem}; {hint}")]
    NoAdapter {
        /// What was asked for and what answered.
        problem: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// The plan needs more than the device allows.
    #[error("{what} needs {needed} but this GPU allows {allowed}; {hint}")]
    Limit {
        /// The tensor, binding or dispatch.
        what: String,
        /// How much is needed, with unit.
        needed: String,
        /// How much is allowed, with unit.
        allowed: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// A job that is added needs more than the run was recorded for, whatever the device could do.
    #[error(
        "job {job} needs {needed}, and this run, recorded for the jobs that it began with, has room for {room}; start it in a run of its own, or begin this run anew with it in the jobs file"
    )]
    NoRoom {
        /// The job.
        job: String,
        /// How much is needed, with unit.
        needed: String,
        /// How much there is, with unit.
        room: String,
    },
    /// The device ran out of memory.
    #[error(
        "out of GPU memory while allocating {what} ({bytes} bytes); use a smaller --batch, --seq or --rank, or --recompute on or nested"
    )]
    OutOfMemory {
        /// What was being allocated.
        what: String,
        /// How many bytes.
        bytes: u64,
    },
    /// The driver reset or removed the device.
    #[error("the GPU device was lost ({reason}); restart with --resume to go on from the last checkpoint")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// The GPU API reported a mistake of ours or of the driver.
    #[error("GPU error in {what}: {message}; please report it with the output of `weblora bench --json`")]
    Gpu {
        /// What was being done.
        what: String,
        /// What the API said.
        message: String,
    },
    /// The loss or the gradient became NaN or infinite.
    #[error(
        "{what} became {value} at step {step} of job {job}; go on from an earlier checkpoint with a smaller --lr, or start anew with a smaller --lr, more --warmup or --clip 1"
    )]
    NotFinite {
        /// "loss" or "gradient norm".
        what: &'static str,
        /// The value.
        value: f32,
        /// 1-based optimizer step.
        step: u64,
        /// The job.
        job: String,
    },
    /// Jobs of a run failed, each of which was told of; the others went on.
    #[error("{failed} of {all} jobs failed; {hint}")]
    JobsFailed {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
        /// What the user can do.
        hint: String,
    },
    /// A call came while another was still running.
    #[error("busy: {running} is still running; wait for it or stop it first")]
    Busy {
        /// What is running.
        running: &'static str,
    },
    /// The caller asked to stop.
    #[error("stopped by request")]
    Stopped,
}

impl Error {
    /// Whether it is about the device, so that no other job on it can go on either.
    pub fn is_of_device(&self) -> bool {
        matches!(self, Self::DeviceLost { .. } | Self::Gpu { .. } | Self::OutOfMemory { .. } | Self::NoAdapter { .. } | Self::Stopped)
    }

    /// A stable short name for programs: the `code` of the web API and of `--json` error events.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Network { .. } => "network",
            Self::Format { .. } => "format",
            Self::Unsupported { .. } => "unsupported",
            Self::Config { .. } => "config",
            Self::Data { .. } => "data",
            Self::Adapter { .. } => "adapter",
            Self::NoAdapter { .. } => "no_adapter",
            Self::Limit { .. } | Self::NoRoom { .. } => "limit",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::DeviceLost { .. } => "device_lost",
            Self::Gpu { .. } => "gpu",
            Self::NotFinite { .. } => "not_finite",
            Self::JobsFailed { .. } => "jobs_failed",
            Self::Busy { .. } => "busy",
            Self::Stopped => "stopped",
        }
    }

    /// A setting with a value that cannot work.
    pub fn config(key: impl Into<String>, problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Config { key: key.into(), problem: problem.into(), hint: hint.into() }
    }

    /// A file that breaks its own format.
    pub fn format(file: impl Into<String>, problem: impl Into<String>, hint: &'static str) -> Self {
        Self::Format { file: file.into(), problem: problem.into(), hint }
    }
}
