//! Folders of jobs: none is another's, lies in another's, or is what the run itself writes.

use std::collections::HashMap;

use super::names::{self, RESERVED};
use crate::{Error, Result};

/// Refuses jobs, as (name, folder), that would write over each other, or over the files of the run in `run`. Relative folders are seen from `here`, an absolute path;
/// a browser has none.
///
/// # Errors
/// Names both jobs, and the folder.
pub fn check(jobs: &[(&str, String)], run: &str, here: &str) -> Result<()> {
    let place = |folder: &str| {
        let absolute = folder.starts_with(['/', '\\']) || folder.as_bytes().get(1) == Some(&b':');
        names::folded(&if absolute || here.is_empty() { folder.to_owned() } else { format!("{here}/{folder}") })
    };
    let own = place(run);
    let mut taken = HashMap::from([(own.clone(), "the run itself")]);
    taken.extend(RESERVED.iter().map(|name| (format!("{own}/{name}"), "a file of the run itself")));
    for (job, out) in jobs {
        if let Some(other) = taken.insert(place(out), job) {
            let problem = format!("job {job} and {other} have the same folder, {out}");
            return Err(Error::config("out", problem, "give every job a folder of its own, or leave `out` out"));
        }
    }
    for (job, out) in jobs {
        let out = place(out);
        let above = out.match_indices('/').map(|(at, _)| &out[..at]).filter(|above| *above != own);
        if let Some(other) = above.filter_map(|above| taken.get(above)).next() {
            let problem = format!("the folder of job {job}, {out}, lies in that of {other}");
            return Err(Error::config("out", problem, "give every job a folder beside the others', or leave `out` out"));
        }
    }
    Ok(())
}
