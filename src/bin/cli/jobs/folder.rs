//! The folder of a run of many jobs: status, results, requests. Adapters are in the jobs' own folders.

use std::fs;
use std::path::{Path, PathBuf};

use weblora::train::fleet::Fleet;
use weblora::{Error, Result};

use super::super::files::{self, io_error, write_atomic};
use super::requests::Request;
use super::status::{self, JobStatus};

const STATUS: &str = "status.json";
const RESULTS: (&str, &str) = ("results.json", "results.csv");
const REQUESTS: &str = "requests";

/// The folder.
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// Creates the folder of a new run. Requests of an earlier run in it are forgotten.
    pub fn create(path: &Path) -> Result<Self> {
        let requests = path.join(REQUESTS);
        if requests.exists() {
            fs::remove_dir_all(&requests).map_err(|e| io_error("replace", &requests, e))?;
        }
        fs::create_dir_all(&requests).map_err(|e| io_error("create", &requests, e))?;
        Ok(Self(path.to_owned()))
    }

    /// The folder of a run that has begun.
    pub fn existing(path: &Path) -> Result<Self> {
        if path.join(STATUS).is_file() {
            return Ok(Self(path.to_owned()));
        }
        let problem = format!("{} has no {STATUS}", path.display());
        Err(Error::config("run", problem, "give the folder that `weblora jobs FILE.toml` writes to (`out` in the file)"))
    }

    fn jobs(&self) -> Result<Vec<JobStatus>> {
        let path = self.0.join(STATUS);
        let text = files::read_text(&path)?;
        serde_json::from_str(&text)
            .map_err(|e| Error::format(path.display().to_string(), format!("cannot be read: {e}"), "wait for the run to write it again"))
    }

    /// Where the jobs stood when that was last written.
    pub fn status(&self, json: bool) -> Result<String> {
        let jobs = self.jobs()?;
        Ok(if json { serde_json::json!({ "event": "jobs", "jobs": jobs }).to_string() } else { status::table(&jobs) })
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

    /// Leaves a request for the run.
    pub fn ask(&self, request: &Request) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let path = self.0.join(REQUESTS).join(format!("{now:030}-{}.json", std::process::id()));
        let text = serde_json::to_string(request).map_err(|e| Error::format(REQUESTS, format!("cannot be written: {e}"), "report this"))?;
        write_atomic(&path, text.as_bytes())
    }

    /// The requests that have come in, oldest first; they are gone from the folder then. What is no request is removed and told of.
    pub fn take_requests(&self) -> Result<Vec<Request>> {
        let folder = self.0.join(REQUESTS);
        let listed = fs::read_dir(&folder).map_err(|e| io_error("read", &folder, e))?;
        let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_request(path)).collect();
        paths.sort();
        let mut found = Vec::new();
        for path in paths {
            let text = files::read_text(&path);
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
            match text.map(|text| serde_json::from_str(&text)) {
                Ok(Ok(request)) => found.push(request),
                _ => tracing::warn!("{} is no request", path.display()),
            }
        }
        Ok(found)
    }

    /// Writes where the jobs stand.
    pub fn write_status(&self, fleet: &Fleet) -> Result<()> {
        self.write(STATUS, &status::of(fleet))
    }

    /// Writes the results of a run that is over.
    pub fn write_results(&self, fleet: &Fleet) -> Result<()> {
        let jobs = status::of(fleet);
        self.write(RESULTS.0, &jobs)?;
        write_atomic(&self.0.join(RESULTS.1), status::csv(&jobs).as_bytes())
    }

    fn write(&self, name: &str, jobs: &[JobStatus]) -> Result<()> {
        let text = serde_json::to_string_pretty(jobs).map_err(|e| Error::format(name, format!("cannot be written: {e}"), "report this"))?;
        write_atomic(&self.0.join(name), text.as_bytes())
    }
}

/// Temporary files of a write that is under way are hidden.
fn is_request(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "json") && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}
