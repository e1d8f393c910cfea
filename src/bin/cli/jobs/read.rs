//! Jobs files from disk: as they are, or added to a run.

use std::path::Path;

use serde_json::Value;
use weblora::jobs::{JobsFile, TrainKeys, options};
use weblora::settings::Map;
use weblora::train::keys::EXCLUSIVE;
use weblora::{Error, Result};

use crate::cli::files;
use crate::cli::rows;
use crate::cli::settings::{TrainArgs, parse_run_file};

/// The jobs file with its settings read; keys are those of `train`.
pub fn read_file(path: &Path, resumed: bool) -> Result<JobsFile> {
    read_jobs(read_map(path)?, resumed)
}

fn read_map(path: &Path) -> Result<Map> {
    parse_run_file(&path.display().to_string(), &files::read_text(path)?)
}

fn read_jobs(mut map: Map, without_templates: bool) -> Result<JobsFile> {
    read_templates(&mut map, without_templates)?;
    // Where that cannot be known, folders are compared as they are written.
    let here = std::env::current_dir().unwrap_or_default();
    JobsFile::read(&map, TrainKeys { all: &TrainArgs::keys(), exclusive: EXCLUSIVE }, &here.display().to_string())
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

/// Puts the texts of template files in the place of their paths, wherever a jobs file may have them, or takes the paths out: jobs that go on have them already.
fn read_templates(map: &mut Map, without: bool) -> Result<()> {
    const KEY: &str = "chat-template";
    let read = |value: &mut Value| match value {
        Value::String(template) => rows::template(template).map(|text| *template = text),
        _ => Ok(()),
    };
    let jobs = |map: &mut Map| map.get_mut("job").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let mut all = jobs(map);
    for table in all.iter_mut().filter_map(Value::as_object_mut).chain([&mut *map]) {
        if without {
            table.shift_remove(KEY);
        } else {
            table.get_mut(KEY).map(read).transpose()?;
        }
    }
    if let Some(Value::Array(jobs)) = map.get_mut("job") {
        *jobs = all;
    }
    let Some(sweep) = map.get_mut("sweep") else { return Ok(()) };
    let listed = sweep.get_mut("list").and_then(Value::as_array_mut).into_iter().flatten();
    listed.filter_map(|table| table.get_mut(KEY)).try_for_each(read)?;
    let swept = sweep.get_mut("keys").and_then(|keys| keys.get_mut(KEY));
    swept.and_then(Value::as_array_mut).into_iter().flatten().try_for_each(read)
}
