//! Jobs files from disk: as they are, or added to a run.

use std::path::Path;

use weblora::jobs::{JobsFile, TrainKeys, options};
use weblora::settings::Map;
use weblora::train::keys::EXCLUSIVE;
use weblora::{Error, Result};

use crate::cli::files;
use crate::cli::settings::{TrainArgs, parse_run_file};

/// The jobs file with its settings read; keys are those of `train`. Jobs that go on (`resumed`) have their templates already.
pub fn read_file(path: &Path, resumed: bool) -> Result<JobsFile> {
    read_jobs(read_map(path)?, resumed)
}

fn read_map(path: &Path) -> Result<Map> {
    parse_run_file(&path.display().to_string(), &files::read_text(path)?)
}

fn read_jobs(map: Map, without_templates: bool) -> Result<JobsFile> {
    // A rank for all jobs says nothing of a chain's links.
    let exclusive = [EXCLUSIVE, &[["rank", "links"]]].concat();
    let mut file = JobsFile::read(&map, TrainKeys { all: &TrainArgs::keys(), exclusive: &exclusive }, &here())?;
    if without_templates {
        file.jobs.iter_mut().for_each(|job| drop(job.settings.shift_remove("chat-template")));
    }
    Ok(file)
}

/// Where relative folders are seen from; where that cannot be known, folders are compared as they are written.
pub fn here() -> String {
    std::env::current_dir().unwrap_or_default().display().to_string()
}

/// A jobs file that is added to the run in the folder `run`, whose base has the keys `base`: it may leave out what the run has already. Template files
/// are read by the run (`of_run`) alone: their paths are seen from where it was started.
pub fn read_added(path: &Path, run: &Path, base: &Map, of_run: bool) -> Result<JobsFile> {
    let mut map = read_map(path)?;
    if let Some(key) = options::KEYS.iter().find(|key| map.contains_key(**key)) {
        let hint = "leave it out of the file that is added, or start another run";
        return Err(Error::config(*key, "is said for a whole run as it begins, and this one has begun", hint));
    }
    map.entry("out").or_insert_with(|| run.display().to_string().into());
    for (key, value) in base {
        map.entry(key.clone()).or_insert_with(|| value.clone());
    }
    read_jobs(map, !of_run)
}
