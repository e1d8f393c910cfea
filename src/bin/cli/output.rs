//! What the user sees: JSON events on stdout, or words on stderr with a progress bar on a terminal.

use std::borrow::Cow;
use std::io::{self, ErrorKind, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use weblora::train::Event;
use weblora::train::chain::KnotReport;
use weblora::{Error, Result};

use super::live::Live;

/// Where events go.
#[derive(Debug)]
pub struct Output {
    json: bool,
    bar: Option<ProgressBar>,
    /// An event could not be written, and that was said.
    lost: bool,
    /// Several jobs tell of themselves: each line names its own.
    several: bool,
    /// Their lines, where stderr is a terminal and people read it.
    live: Option<Live>,
}

/// A line on stderr. Where it cannot be written (a closed terminal, a log on a full disk), the work goes on all the same.
pub fn say(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

/// Whether nobody reads a stream any more: a pipe whose reader has ended (`| head`), a terminal that is closed.
fn is_closed(error: &io::Error) -> bool {
    // EIO is what Linux, macOS and the BSDs say of a terminal that is gone; it has no `ErrorKind`.
    error.kind() == ErrorKind::BrokenPipe || cfg!(unix) && error.raw_os_error() == Some(5)
}

fn stdout_error(source: io::Error) -> Error {
    Error::Io { action: "write", path: "stdout".into(), source, hint: "check where the output is redirected to" }
}

impl Output {
    /// Events as JSON lines on stdout, or words.
    pub fn new(json: bool) -> Self {
        Self { json, bar: None, lost: false, several: false, live: None }
    }

    /// Whether events are JSON lines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether stdout is a terminal that people read.
    pub fn is_terminal(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }

    /// Writes the result of a verb to stdout. A reader that has gone (`| head`) is no error.
    pub fn print(&mut self, line: &str) -> Result<()> {
        let line = if self.json { harmless_json(line) } else { harmless(line, true) };
        self.print_styled(&line)
    }

    /// The same for text that steers the terminal on purpose, and has nothing else of a file in it that does.
    pub fn print_styled(&mut self, line: &str) -> Result<()> {
        match writeln!(io::stdout(), "{line}") {
            Err(e) if is_closed(&e) => Ok(()),
            written => written.map_err(stdout_error),
        }
    }

    /// Writes a piece of text to stdout at once, without a line's end. False where nobody reads any more.
    pub fn stream(&mut self, piece: &str) -> Result<bool> {
        let piece = if self.is_terminal() { harmless(piece, true) } else { piece.into() };
        let mut stdout = io::stdout();
        match stdout.write_all(piece.as_bytes()).and_then(|()| stdout.flush()) {
            Err(e) if is_closed(&e) => Ok(false),
            written => written.map(|()| true).map_err(stdout_error),
        }
    }

    /// Says something about a result, on stderr, so that it stays out of what is redirected.
    pub fn remark(&self, line: &str) {
        say(line);
    }

    /// Tells of an event. What is told about work is never a reason to end it: events that cannot be written are lost, which is said once.
    pub fn event(&mut self, event: &Event) {
        self.advance(event);
        if self.json {
            if let Err(error) = self.print(&event.to_json())
                && !std::mem::replace(&mut self.lost, true)
            {
                say(&format!("warning: events are lost: {error}"));
            }
            return;
        }
        let owner = job_of(event).filter(|_| self.several).map(|job| format!("{job}: ")).unwrap_or_default();
        let text = owner + &if self.several { words(event).replace('\n', "; ") } else { words(event) };
        if let Some(live) = &self.live {
            if !matches!(event, Event::Step(_)) {
                live.above(|| say(&harmless(&text, true)));
            }
            return;
        }
        match &self.bar {
            Some(bar) if matches!(event, Event::Step(_)) => bar.set_message(harmless(&text, false).into_owned()),
            Some(bar) => bar.suspend(|| say(&harmless(&text, true))),
            None => say(&harmless(&text, true)),
        }
    }

    /// What is told from now on is of several jobs: each line says of which.
    pub fn of_several(&mut self) {
        self.several = true;
        self.live = (!self.json && io::stderr().is_terminal()).then(Live::on_stderr);
    }

    /// Tells of an adapter of another file of the base, and how to refuse it.
    pub fn other_base(&mut self, warning: Option<String>) {
        if let Some(warning) = warning {
            self.warn(format!("{warning} (--strict-base refuses it)"));
        }
    }

    /// Tells of something that does not stop the work.
    pub fn warn(&mut self, message: String) {
        self.event(&Event::Warning { job: None, message });
    }

    /// What shows how much of a model is loaded: a bar where stderr is a terminal and people read it.
    pub fn loading(&self) -> impl FnMut(u64, u64) + use<> {
        let shown = !self.json && io::stderr().is_terminal();
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} of weights") {
            bar.set_style(style);
        }
        move |done, total| {
            bar.set_length(total);
            bar.set_position(done);
            if done >= total {
                bar.finish_and_clear();
            }
        }
    }

    /// Starts, moves and ends the bar: only where stderr is a terminal and people read it.
    fn advance(&mut self, event: &Event) {
        if let Some(live) = &mut self.live {
            live.advance(event, |job| name(job).into_owned());
        }
        match event {
            Event::Start { steps, resumed_at, .. } if !self.json && !self.several && io::stderr().is_terminal() => {
                let bar = ProgressBar::new(*steps).with_position(*resumed_at);
                if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta:>6} {msg}") {
                    bar.set_style(style);
                }
                self.bar = Some(bar);
            }
            Event::Step(step) => {
                if let Some(bar) = &self.bar {
                    bar.set_position(step.step);
                }
            }
            Event::Done { .. } | Event::Error { .. } => {
                if let Some(bar) = self.bar.take() {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
    }

    /// Tells of the error that ends the program: always a sentence on stderr, with `--json` an event too.
    pub fn fail(&mut self, error: &Error) {
        let event = Event::error(error);
        self.advance(&event);
        if self.json {
            self.print(&event.to_json()).ok(); // the error itself still goes to stderr
        }
        say(&format!("error: {}", harmless(&error.to_string(), false)));
    }
}

/// Whether a character could steer a terminal or hide text: control characters, and those that turn the direction of writing.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Text with names from files in it, which may hold anything, as a terminal can be given it. Line breaks and tabs stay where they are ours.
fn harmless(text: &str, breaks: bool) -> Cow<'_, str> {
    let bad = |c: char| steers(c) && !(breaks && matches!(c, '\n' | '\t'));
    if !text.contains(bad) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    text.chars().for_each(|c| if bad(c) { out.extend(c.escape_default()) } else { out.push(c) });
    out.into()
}

/// A name out of a file, on one line.
pub fn name(text: &str) -> Cow<'_, str> {
    harmless(text, false)
}

/// The same for a line of JSON, in which such characters stand only inside strings.
fn harmless_json(line: &str) -> Cow<'_, str> {
    if !line.contains(steers) {
        return line.into();
    }
    line.chars().map(|c| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() }).collect::<String>().into()
}

/// The job that an event is about, where its words do not say so.
fn job_of(event: &Event) -> Option<&str> {
    match event {
        Event::Step(step) => Some(&step.job),
        Event::Knot(knot) => Some(&knot.job),
        Event::Start { job, .. } | Event::Eval { job, .. } | Event::Checkpoint { job, .. } | Event::EarlyStop { job, .. } => Some(job),
        Event::Warning { job, .. } => job.as_deref(),
        Event::Done { job, .. } => Some(job),
        Event::Jobs { .. } | Event::Resumed { .. } | Event::Saved { .. } | Event::Schedule { .. } | Event::JobFailed { .. } => None,
        Event::Error { .. } => None,
    }
}

/// An event in words.
fn words(event: &Event) -> String {
    match event {
        Event::Start { trainable_parameters, planned_bytes, adapter, steps, passes, resumed_at, logit_jump, .. } => {
            let from = if *resumed_at > 0 { format!(", going on after step {resumed_at}") } else { String::new() };
            let jump = logit_jump.map(|jump| format!("; links rounded to f16, log-probabilities moved by {jump:.1e}")).unwrap_or_default();
            let what = format!("{trainable_parameters} trainable parameters, {} on {adapter}{from}{jump}", bytes(*planned_bytes));
            format!("{}\n{steps} steps, {what}", passes.words())
        }
        Event::Step(s) => {
            let tasks: String = s.tasks.iter().map(|(name, loss)| format!(" {name} {loss:.3}")).collect();
            let pairs = s.preference.map(|p| format!(" accuracy {:.2} margin {:.3}", p.accuracy, p.margin)).unwrap_or_default();
            let balance = s.balance_loss.map(|loss| format!(" balance {loss:.3}")).unwrap_or_default();
            let experts = s.router.as_ref().map(|router| format!(" experts {:.1}", router.fewest_in_use())).unwrap_or_default();
            let (step, loss, lr, norm) = (s.step, s.loss, s.lr, s.grad_norm);
            format!("step {step} loss {loss:.4}{tasks}{pairs}{balance}{experts} lr {lr:.2e} norm {norm:.3} {:.0} tokens/s", s.tokens_per_s)
        }
        Event::Eval { step, loss, grouped_loss, accuracy, best, tasks, worst, .. } => {
            let share = |accuracy: &Option<f64>| accuracy.map(|x| format!(", accuracy {:.1} %", 100.0 * x)).unwrap_or_default();
            let grouped = grouped_loss.map(|loss| format!(" ({loss:.4} in groups)")).unwrap_or_default();
            let mut text =
                format!("step {step}: held-out loss {loss:.4}{grouped}{}{}", share(accuracy), if *best { " (best)" } else { "" });
            for task in tasks {
                let mark = if worst.as_ref() == Some(&task.name) { " (worst)" } else { "" };
                text += &format!("\n  {}: loss {:.4} over {} tokens{}{mark}", task.name, task.loss, task.tokens, share(&task.accuracy));
            }
            text
        }
        Event::Knot(knot) => knot_line(knot),
        Event::Checkpoint { step, path, .. } => format!("step {step}: saved {path}"),
        Event::EarlyStop { step, reason, .. } => format!("step {step}: stopping early, {reason}"),
        Event::Warning { message, .. } => format!("warning: {message}"),
        Event::Done { step, loss: Some(loss), seconds, out, .. } => {
            format!("done: {step} steps in {seconds:.1} s, loss {loss:.4}, adapter in {out}")
        }
        Event::Done { step: 0, out, .. } => format!("done before its first step, adapter in {out} as it began"),
        Event::Done { step, out, .. } => format!("done: all {step} steps were done before, adapter in {out}"),
        Event::Jobs { jobs, rows, planned_bytes, places, spare_bytes, adapter } => format!(
            "{jobs} jobs over one base, {places} at once at most, up to {rows} rows a step, {} on {adapter}, of which {} are free for more jobs",
            bytes(*planned_bytes),
            bytes(*spare_bytes)
        ),
        Event::Resumed { job, step, steps, state } => format!("{job}: goes on after step {step} of {steps}, {state}"),
        Event::Saved { path } => format!("saved {path}"),
        Event::Schedule { job, action, reason } => format!("{job}: {action}, because {reason}"),
        Event::JobFailed { job, reason } => format!("{job} failed: {reason}"),
        Event::Error { message, .. } => format!("error: {message}"),
    }
}

/// A knot in words.
fn knot_line(knot: &KnotReport) -> String {
    let mut line = format!(
        "step {}: link {} of rank {} begins ({}); log-probabilities moved by {:.1e}",
        knot.step, knot.link, knot.rank, knot.reason, knot.logit_jump
    );
    if let Some(d) = &knot.diagnostics {
        if let (Some(gap), Some(norm)) = (d.gap, d.gradient_norm) {
            line += &format!(", gap {gap:.3e}, gradient norm {norm:.2e}");
        }
        if let Some(rank) = d.effective_rank.last() {
            line += &format!(", effective rank {rank:.1}");
        }
    }
    line
}

/// "98.4 MB".
pub fn bytes(n: u64) -> String {
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{:.1} kB", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n as f64 / 1e6),
        _ => format!("{:.2} GB", n as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        let name = "a\u{1b}]0;title\u{7}b\u{9b}31mc\rd\ne\u{202e}f";
        let shown = harmless(name, false);
        assert_eq!(shown, "a\\u{1b}]0;title\\u{7}b\\u{9b}31mc\\rd\\ne\\u{202e}f");
        assert!(harmless(name, true).contains("d\ne"));
        assert!(matches!(harmless("Grüße, 日本", false), Cow::Borrowed(_)));
        // JSON is the same value with other bytes.
        let line = serde_json::json!({ "name": name }).to_string();
        let safe = harmless_json(&line);
        assert!(!safe.contains(steers) && line.contains('\u{9b}'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).ok(), serde_json::from_str(&line).ok());
    }

    #[test]
    fn a_run_with_nothing_left_to_do_has_no_loss() {
        let done = |loss| words(&Event::Done { job: "main".into(), step: 4, loss, best_eval: None, seconds: 0.1, out: "a".into() });
        assert_eq!(done(None), "done: all 4 steps were done before, adapter in a");
        assert!(done(Some(1.5)).contains("loss 1.5000"));
    }
}
