//! Errors about one job of several.

use crate::Error;

/// Names the job in what is wrong with its settings.
pub(super) fn of_job(name: &str, error: Error) -> Error {
    match error {
        Error::Config { key, problem, hint } => Error::Config { key: format!("job {name}: {key}"), problem, hint },
        other => other,
    }
}
