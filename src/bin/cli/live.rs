//! The jobs of a run as lines of a terminal that move with their steps.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use weblora::train::Event;

/// Lines that fit any terminal; jobs beyond them get theirs when others have ended.
const MOST_LINES: usize = 20;

/// A line for each job that is on the device: name, bar, steps, time left, losses. What else is told stands above.
#[derive(Debug)]
pub struct Live {
    lines: MultiProgress,
    jobs: HashMap<String, Job>,
}

/// What a line shows, and the line while there is one.
#[derive(Debug)]
struct Job {
    name: String,
    step: u64,
    steps: u64,
    loss: Option<f64>,
    held_out: Option<f64>,
    line: Option<ProgressBar>,
}

impl Job {
    fn losses(&self) -> String {
        let shown = |name: &str, loss: Option<f64>| loss.map(|loss| format!("{name} {loss:.4}"));
        [shown("loss", self.loss), shown("held-out", self.held_out)].into_iter().flatten().collect::<Vec<_>>().join("  ")
    }

    fn hide(&mut self) {
        if let Some(line) = self.line.take() {
            line.finish_and_clear();
        }
    }
}

impl Live {
    /// On stderr, drawn a few times a second.
    pub fn on_stderr() -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(5))
    }

    fn on(target: ProgressDrawTarget) -> Self {
        Self { lines: MultiProgress::with_draw_target(target), jobs: HashMap::new() }
    }

    /// Moves the line of the job that an event is about. `shown` is how a name can be shown.
    pub fn advance(&mut self, event: &Event, shown: impl Fn(&str) -> String) {
        match event {
            Event::Start { job, steps, resumed_at, .. } => {
                let new = Job { name: shown(job), step: *resumed_at, steps: *steps, loss: None, held_out: None, line: None };
                self.jobs.insert(job.clone(), new);
            }
            Event::Step(step) => {
                if let Some(job) = self.jobs.get_mut(&step.job) {
                    (job.step, job.loss) = (step.step, Some(step.loss));
                }
                self.show(&step.job);
            }
            Event::Eval { job, loss, .. } => {
                if let Some(job) = self.jobs.get_mut(job) {
                    job.held_out = Some(job.held_out.map_or(*loss, |before| before.min(*loss)));
                }
                self.show(job);
            }
            Event::Schedule { job, action, .. } if matches!(action.as_str(), "pause" | "done" | "stop" | "fail") => self.hide(job),
            Event::Error { .. } => self.jobs.values_mut().for_each(Job::hide),
            _ => {}
        }
    }

    /// Says something above the lines.
    pub fn above(&self, say: impl FnOnce()) {
        self.lines.suspend(say);
    }

    fn show(&mut self, job: &str) {
        let room = self.jobs.values().filter(|job| job.line.is_some()).count() < MOST_LINES;
        let Some(job) = self.jobs.get_mut(job) else { return };
        if job.line.is_none() && room {
            let line = self.lines.add(ProgressBar::new(job.steps).with_prefix(job.name.clone()));
            if let Ok(style) = ProgressStyle::with_template("{prefix:24!} {bar:16} {pos:>6}/{len} {eta:>4}  {msg}") {
                line.set_style(style);
            }
            job.line = Some(line);
        }
        if let Some(line) = &job.line {
            line.set_position(job.step);
            line.set_message(job.losses());
        }
    }

    fn hide(&mut self, job: &str) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.hide();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(job: &str, loss: f64) -> Event {
        let job = job.to_owned();
        Event::Eval { job, step: 3, loss, tokens: 1, grouped_loss: None, accuracy: None, best: false, tasks: Vec::new(), worst: None }
    }

    #[test]
    fn jobs_on_the_device_have_a_line_while_there_is_room() {
        let mut live = Live::on(ProgressDrawTarget::hidden());
        let new = |i: usize| Job { name: i.to_string(), step: 0, steps: 9, loss: None, held_out: None, line: None };
        live.jobs.extend((0..=MOST_LINES).map(|i| (i.to_string(), new(i))));
        (0..=MOST_LINES).for_each(|i| live.advance(&eval(&i.to_string(), 0.5), str::to_owned));
        live.advance(&eval("0", 0.75), str::to_owned);
        let message = |live: &Live, job: &str| live.jobs[job].line.as_ref().map(ProgressBar::message);
        assert_eq!(message(&live, "0").as_deref(), Some("held-out 0.5000"));
        let last = MOST_LINES.to_string();
        assert_eq!(message(&live, &last), None);
        live.advance(&Event::Schedule { job: "0".into(), action: "pause".into(), reason: "asked".into() }, str::to_owned);
        live.advance(&eval(&last, 0.25), str::to_owned);
        assert_eq!((message(&live, "0"), message(&live, &last).as_deref()), (None, Some("held-out 0.2500")));
    }
}
