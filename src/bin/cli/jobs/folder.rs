//! The folder of a run of many jobs: status, results, requests, and the state to go on from. Adapters are in the jobs' own folders.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use weblora::export::folder::File;
use weblora::train::fleet::{Fleet, FleetState, Keeping};
use weblora::{Error, Result};

use serde::{Deserialize, Serialize};

use super::super::files::{self, OutFolder, write_atomic};
use super::super::io_error::io_error;
use super::super::lock::{self, Lock};
use super::failed::{FailedJob, FailedJobs};
use super::requests::Request;
use super::status::{self, JobStatus};

const STATUS: &str = "status.json";
const RESULTS: (&str, &str) = ("results.json", "results.csv");
const REQUESTS: &str = "requests";
/// What jobs could not write to their own folders.
const KEPT: &str = "kept";
/// No job can have a name that begins with a dot.
const STATE: &str = ".state";
const MANIFEST: &str = "manifest.json";

/// The folder. Whoever runs the jobs has it locked.
pub struct RunFolder {
    path: PathBuf,
    failed: FailedJobs,
    added: RefCell<Vec<String>>,
    _lock: Option<Lock>,
}

/// The manifest as its file has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    /// Requests that were taken up before, whose files may be there still.
    taken: Vec<String>,
    /// Jobs that joined by `jobs add`: the file that began the run does not speak for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    /// What the fleet does not know of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failed: Vec<FailedJob>,
    fleet: FleetState,
}

/// Where the run's state goes: new files, of which the manifest names those that belong together.
pub struct StateFolder<'a> {
    folder: &'a RunFolder,
    taken: &'a [String],
}

impl Keeping for StateFolder<'_> {
    fn job(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.folder.state().join(file), bytes)
    }

    fn manifest(&mut self, state: &FleetState) -> Result<()> {
        let added = self.folder.added.borrow().clone();
        let manifest = Manifest { taken: self.taken.to_vec(), added, failed: self.folder.failed.list(), fleet: state.clone() };
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::format(MANIFEST, format!("cannot be written: {e}"), "report this"))?;
        write_atomic(&self.folder.state().join(MANIFEST), &text)?;
        self.folder.forget_states(state)
    }
}

impl RunFolder {
    /// Creates the folder of a new run, of which some jobs may have failed already. Requests and the state of an earlier run in it are forgotten.
    pub fn create(path: &Path, failed: Vec<FailedJob>) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| io_error("create", path, e))?;
        let lock = Lock::take(path, "out")?;
        for name in [REQUESTS, STATE] {
            let inner = path.join(name);
            if inner.exists() {
                fs::remove_dir_all(&inner).map_err(|e| io_error("replace", &inner, e))?;
            }
            fs::create_dir_all(&inner).map_err(|e| io_error("create", &inner, e))?;
        }
        for name in [STATUS, RESULTS.0, RESULTS.1] {
            remove_if_there(&path.join(name))?;
        }
        Ok(Self { path: path.to_owned(), failed: FailedJobs::new(failed), added: RefCell::default(), _lock: lock })
    }

    /// Refuses a folder that is there already, before anything is begun. One in which a killed process saved nothing yet is free.
    ///
    /// # Errors
    /// What is there, and what to do.
    pub fn check_free(path: &Path) -> Result<()> {
        if Self::has_nothing(path) && !lock::is_held(path) { Ok(()) } else { OutFolder::check_free(path) }
    }

    /// Whether a run began here, and has saved nothing.
    fn has_nothing(path: &Path) -> bool {
        path.join(STATE).is_dir() && !path.join(STATE).join(MANIFEST).exists() && !path.join(STATUS).exists()
    }

    /// The folder of a run that was interrupted, and its state. Requests that the state has in it are gone then; later ones are there.
    pub fn resume(path: &Path) -> Result<(Self, FleetState)> {
        let manifest = path.join(STATE).join(MANIFEST);
        if !manifest.is_file() {
            let problem = match Self::has_nothing(path) {
                true => format!("the run in {} ended before anything was saved", path.display()),
                false => format!("{} is not there", manifest.display()),
            };
            return Err(Error::config("resume", problem, "check `out` in the jobs file, or leave out --resume to start anew"));
        }
        let lock = Lock::take(path, "out")?;
        let name = manifest.display().to_string();
        let read: Manifest = serde_json::from_str(&files::read_text(&manifest)?)
            .map_err(|e| Error::format(&name, format!("cannot be read: {e}"), "start anew with --overwrite"))?;
        read.fleet.check(&name)?;
        let folder = Self { path: path.to_owned(), failed: FailedJobs::new(read.failed), added: RefCell::new(read.added), _lock: lock };
        folder.forget(&read.taken)?;
        Ok((folder, read.fleet))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Jobs that failed, as it was told.
    pub fn failed(&self) -> &FailedJobs {
        &self.failed
    }

    /// A job has joined by `jobs add`.
    pub fn note_added(&self, job: &str) {
        self.added.borrow_mut().push(job.to_owned());
    }

    /// Whether a job joined by `jobs add`.
    pub fn was_added(&self, job: &str) -> bool {
        self.added.borrow().iter().any(|added| added == job)
    }

    fn state(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// A job's checkpoint, with its path for errors.
    pub fn job_state(&self, file: &str) -> Result<(String, Vec<u8>)> {
        let path = self.state().join(file);
        Ok((path.display().to_string(), files::read(&path)?))
    }

    /// Where the state is saved once the requests of these names have been taken up.
    pub fn keeping<'a>(&'a self, taken: &'a [String]) -> StateFolder<'a> {
        StateFolder { folder: self, taken }
    }

    /// Writes what a job's own folder `out` has no room for; where it is.
    ///
    /// # Errors
    /// Where there is none here either.
    pub fn keep(&self, out: &str, inner: Option<&str>, files: &[File]) -> Result<PathBuf> {
        let own = self.path.join(KEPT).join(Path::new(out).file_name().unwrap_or_default());
        let folder = inner.map_or_else(|| own.clone(), |inner| own.join(inner));
        fs::create_dir_all(&folder).map_err(|e| io_error("create", &folder, e))?;
        files.iter().try_for_each(|(name, bytes)| write_atomic(&folder.join(name), bytes))?;
        Ok(folder)
    }

    /// Removes checkpoints that the manifest does not name, and what killed processes left.
    fn forget_states(&self, state: &FleetState) -> Result<()> {
        let folder = self.state();
        let listed = fs::read_dir(&folder).map_err(|e| io_error("read", &folder, e))?;
        for entry in listed.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
            if is_file && name != MANIFEST && !state.members.iter().any(|member| member.files().any(|file| *file == name)) {
                fs::remove_file(entry.path()).map_err(|e| io_error("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }

    /// The folder of a run that has begun, whoever runs it.
    pub fn existing(path: &Path) -> Result<Self> {
        if path.join(STATUS).is_file() {
            return Ok(Self { path: path.to_owned(), failed: FailedJobs::default(), added: RefCell::default(), _lock: None });
        }
        if Self::has_nothing(path) {
            let (problem, hint) = match lock::is_held(path) {
                true => ("is being prepared: its jobs are not on the device yet", "ask again when they are"),
                false => ("ended before its first step", "start it again"),
            };
            return Err(Error::config("run", format!("the run in {} {problem}", path.display()), hint));
        }
        let problem = format!("{} has no {STATUS}", path.display());
        Err(Error::config("run", problem, "give the folder that `weblora jobs FILE.toml` writes to (`out` in the file)"))
    }

    fn jobs(&self) -> Result<Vec<JobStatus>> {
        let path = self.path.join(STATUS);
        let text = files::read_text(&path)?;
        serde_json::from_str(&text)
            .map_err(|e| Error::format(path.display().to_string(), format!("cannot be read: {e}"), "wait for the run to write it again"))
    }

    /// Where the jobs stood when that was last written, and whether somebody runs them.
    pub fn status(&self, json: bool) -> Result<String> {
        let jobs = self.jobs()?;
        let (left, held) = (status::unfinished(&jobs), lock::is_held(&self.path));
        if json {
            return Ok(serde_json::json!({ "event": "jobs", "running": left && held, "jobs": jobs }).to_string());
        }
        let idle = "\nnobody runs these jobs now: `weblora jobs FILE.toml --resume` goes on from what was saved last";
        Ok(status::table(&jobs) + if left && !held { idle } else { "" })
    }

    /// Refuses names that no job has.
    pub fn check_names(&self, names: &[String]) -> Result<()> {
        let jobs = self.jobs()?;
        match names.iter().find(|name| !jobs.iter().any(|job| job.job == **name)) {
            None => Ok(()),
            Some(name) => {
                let all: Vec<&str> = jobs.iter().map(|job| job.job.as_str()).collect();
                Err(Error::config("job", format!("there is none called {name}"), format!("the run has {}", all.join(", "))))
            }
        }
    }

    /// Leaves a request for the run, and says when it will be taken up.
    ///
    /// # Errors
    /// A run that has ended; a folder that cannot be written.
    pub fn ask(&self, request: &Request) -> Result<&'static str> {
        if !status::unfinished(&self.jobs()?) {
            let problem = format!("all jobs of {} have ended", self.path.display());
            return Err(Error::config("run", problem, "start another run with `weblora jobs FILE.toml`"));
        }
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let path = self.path.join(REQUESTS).join(format!("{now:030}-{}.json", std::process::id()));
        let text = serde_json::to_string(request).map_err(|e| Error::format(REQUESTS, format!("cannot be written: {e}"), "report this"))?;
        write_atomic(&path, text.as_bytes())?;
        Ok(match lock::is_held(&self.path) {
            true => "asked; the run takes it up at its next step",
            false => "asked; nobody runs these jobs now, and it is taken up when they go on (`weblora jobs FILE.toml --resume`)",
        })
    }

    /// The requests that have come in, oldest first, with their names. What is no request is removed and told of.
    pub fn requests(&self) -> Result<Vec<(String, Request)>> {
        let folder = self.path.join(REQUESTS);
        let listed = fs::read_dir(&folder).map_err(|e| io_error("read", &folder, e))?;
        let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_request(path)).collect();
        paths.sort();
        let mut found = Vec::new();
        for path in paths {
            match files::read_text(&path).map(|text| serde_json::from_str(&text)) {
                Ok(Ok(request)) => found.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), request)),
                _ => {
                    fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
                    tracing::warn!("{} is no request", path.display());
                }
            }
        }
        Ok(found)
    }

    /// Removes the files of requests that are in the state.
    pub fn forget(&self, requests: &[String]) -> Result<()> {
        let known = |name: &&String| !name.contains(['/', '\\']);
        for path in requests.iter().filter(known).map(|name| self.path.join(REQUESTS).join(name)) {
            remove_if_there(&path)?;
        }
        Ok(())
    }

    /// Where the jobs stand, those that never joined last.
    pub fn statuses(&self, fleet: &Fleet) -> Vec<JobStatus> {
        status::with_failed(status::of(fleet), &self.failed.list())
    }

    /// Writes where the jobs stand.
    pub fn write_status(&self, fleet: &Fleet) -> Result<()> {
        self.write(STATUS, &self.statuses(fleet))
    }

    /// Writes the results of a run that is over.
    pub fn write_results(&self, fleet: &Fleet) -> Result<()> {
        let jobs = self.statuses(fleet);
        self.write(RESULTS.0, &jobs)?;
        write_atomic(&self.path.join(RESULTS.1), status::csv(&jobs).as_bytes())
    }

    fn write(&self, name: &str, jobs: &[JobStatus]) -> Result<()> {
        let text = serde_json::to_string_pretty(jobs).map_err(|e| Error::format(name, format!("cannot be written: {e}"), "report this"))?;
        write_atomic(&self.path.join(name), text.as_bytes())
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path, e)),
        _ => Ok(()),
    }
}

/// Temporary files of a write that is under way are hidden.
fn is_request(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json") && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
