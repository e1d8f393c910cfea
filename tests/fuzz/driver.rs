//! Runs a parser over many inputs in a process of its own, so that a stack overflow, an allocation without end or a hang is found as well as a
//! panic, and the rest of the inputs is still tried.

use std::alloc::System;
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cap::Cap;

use super::input::Input;
use super::mutate;

/// What every input of every parser may allocate at once, in bytes, however small it is.
const BASE_BYTES: usize = 64 << 20;
/// And for each of its bytes.
const PER_BYTE: usize = 256;
/// A parser is given up after so many different failures.
const MOST_FAILURES: usize = 25;
/// The variable that makes this program a worker: parser, first case, end, seconds.
const WORKER: &str = "WEBLORA_FUZZ_WORKER";
/// The folder that parent and worker share.
const FOLDER: &str = "WEBLORA_FUZZ_FOLDER";

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Something that reads files of users.
pub struct Parser {
    /// What it is called in `FUZZ_CASE=name:number`.
    pub name: &'static str,
    /// Inputs that it must accept.
    pub seeds: fn() -> Vec<Input>,
    /// Words of its language.
    pub dictionary: fn() -> Vec<&'static str>,
    /// Reads an input and does with it what the product does.
    pub run: fn(&Input) -> weblora::Result<()>,
}

/// What a run may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Inputs.
    pub cases: u64,
    /// Time for all of them.
    pub time: Duration,
    /// Processor time of one input.
    pub hang: Duration,
}

impl Limits {
    /// A short run, or what `make fuzz` asks for.
    pub fn of_environment() -> Self {
        let number = |name: &str, default: u64| match std::env::var(name) {
            Ok(text) if !text.is_empty() => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, a whole number was expected")),
            _ => default,
        };
        let minutes = number("WEBLORA_FUZZ_MINUTES", 60);
        Self { cases: number("WEBLORA_FUZZ_CASES", 300), time: Duration::from_secs(60 * minutes), hang: Duration::from_secs(5) }
    }
}

/// An input that a parser did not survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub case: u64,
    pub what: String,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Inputs tried.
    pub tried: u64,
    pub failures: Vec<Failure>,
}

/// Runs `parser` within `limits`.
pub fn fuzz(parser: &Parser, limits: Limits) -> Report {
    let begun = Instant::now();
    let mut report = Report::default();
    while report.tried < limits.cases && report.failures.len() < MOST_FAILURES {
        let Some(left) = limits.time.checked_sub(begun.elapsed()) else { break };
        let folder = tempfile::tempdir().expect("a folder for the worker");
        let (mut child, end) = (spawn(parser, report.tried..limits.cases, left, folder.path()), |name: &str| folder.path().join(name));
        let verdict = watch(&mut child, &end("progress"), limits.hang);
        let said = fs::read_to_string(end("out")).unwrap_or_default();
        for line in said.lines().filter_map(|line| line.split_once("FAILED ")).map(|(_, line)| line) {
            let (case, what) = line.split_once(' ').expect("the worker names the case");
            let known = report.failures.iter().any(|failure| failure.what == what);
            if !known {
                report.failures.push(Failure { case: case.parse().expect("a number"), what: what.replace("\\n", "\n") });
            }
        }
        let Some(reached) = progress(&end("progress")) else {
            panic!("the worker did not begin: {}", fs::read_to_string(end("err")).unwrap_or_default());
        };
        let died = match verdict {
            Verdict::Ended(status) if status.success() => {
                report.tried = reached;
                break;
            }
            Verdict::Ended(status) => {
                let errors = fs::read_to_string(end("err")).unwrap_or_default();
                let last: Vec<&str> = errors.lines().rev().take(4).collect();
                format!("the process died ({status}): {}", last.into_iter().rev().collect::<Vec<_>>().join(" | "))
            }
            Verdict::Hung => format!("took more than {:?} of processor time", limits.hang),
        };
        report.failures.push(Failure { case: reached, what: died });
        report.tried = reached + 1;
    }
    report
}

fn spawn(parser: &Parser, cases: std::ops::Range<u64>, time: Duration, folder: &Path) -> Child {
    let file = |name: &str| fs::File::create(folder.join(name)).expect("a file for the worker");
    Command::new(std::env::current_exe().expect("this program"))
        .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
        .env(WORKER, format!("{} {} {} {}", parser.name, cases.start, cases.end, time.as_secs()))
        .env(FOLDER, folder)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::from(file("out")))
        .stderr(Stdio::from(file("err")))
        .spawn()
        .expect("a worker starts")
}

fn progress(path: &Path) -> Option<u64> {
    Some(u64::from_le_bytes(fs::read(path).ok()?.try_into().ok()?))
}

enum Verdict {
    Ended(ExitStatus),
    Hung,
}

/// Waits for a worker, and ends it when one input takes too long.
fn watch(child: &mut Child, progress_file: &Path, hang: Duration) -> Verdict {
    let (mut case, mut since) = (None, (Instant::now(), Duration::ZERO));
    loop {
        if let Some(status) = child.try_wait().expect("a worker can be waited for") {
            return Verdict::Ended(status);
        }
        let now = progress(progress_file);
        let used = processor_time(child.id());
        if now != case {
            (case, since) = (now, (Instant::now(), used.unwrap_or_default()));
        }
        // Others may have the processor: what counts is its own time, and a clock only where that is not known or does not move.
        let waited = since.0.elapsed();
        let hung = used.map_or(waited > hang, |used| used.saturating_sub(since.1) > hang || waited > 24 * hang);
        if case.is_some() && hung {
            child.kill().expect("a worker can be ended");
            child.wait().expect("a worker can be waited for");
            return Verdict::Hung;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processor time that a process has used, where the system tells (Linux: fields 14 and 15, in hundredths of a second).
fn processor_time(id: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(10 * ticks))
}

/// The worker's part; does nothing in the parent. `parsers` are all there are.
pub fn work(parsers: &[&Parser]) {
    let Ok(task) = std::env::var(WORKER) else { return };
    let folder = std::env::var_os(FOLDER).expect("the parent names a folder");
    let [name, from, to, seconds] = task.split(' ').collect::<Vec<_>>()[..] else { panic!("{WORKER} is {task:?}") };
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let parser = parsers.iter().find(|parser| parser.name == name).expect("a parser of that name");
    let until = Instant::now() + Duration::from_secs(number(seconds));
    let (seeds, dictionary) = ((parser.seeds)(), (parser.dictionary)());
    thread_local!(static PANIC: RefCell<String> = const { RefCell::new(String::new()) });
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        PANIC.set(format!("{place}: {}", said(info.payload())));
    }));
    let mut progress = fs::File::create(Path::new(&folder).join("progress")).expect("a file for the parent");
    let mut known = BTreeSet::new();
    let mut tell = |case: u64| {
        progress.seek(SeekFrom::Start(0)).and_then(|_| progress.write_all(&case.to_le_bytes())).expect("the parent's file can be written");
    };
    for case in number(from)..number(to) {
        if Instant::now() > until {
            break;
        }
        tell(case);
        let input = mutate::input(parser.name, case, &seeds, &dictionary);
        let bytes: usize = input.iter().map(|part| part.bytes.len()).sum();
        ALLOCATOR.set_limit(ALLOCATOR.allocated() + BASE_BYTES + PER_BYTE * bytes).expect("a limit above what is in use");
        let outcome = catch_unwind(AssertUnwindSafe(|| (parser.run)(&input).map_err(|e| e.to_string())));
        ALLOCATOR.set_limit(usize::MAX).expect("no limit");
        let failed = match outcome {
            Err(_) => Some(PANIC.take()),
            Ok(Err(text)) if case < seeds.len() as u64 => Some(format!("seed {case} is refused: {text}")),
            Ok(Err(text)) if text.trim().is_empty() => Some("an error without a text".to_owned()),
            Ok(_) => None,
        };
        if let Some(what) = failed {
            let place = what.split(": ").next().unwrap_or_default().to_owned();
            if known.insert(place) {
                println!("FAILED {case} {}", what.replace('\n', "\\n"));
            }
        }
        tell(case + 1);
    }
}

/// What a panic says.
fn said(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic")
}

/// Runs one case in this process, with its input written to `target/fuzz` for a look, so that a panic shows its backtrace.
pub fn replay(parser: &Parser, case: u64) {
    let input = mutate::input(parser.name, case, &(parser.seeds)(), &(parser.dictionary)());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/fuzz");
    fs::create_dir_all(&folder).expect("a folder for the input");
    for (i, part) in input.iter().enumerate() {
        let path = folder.join(format!("{}-{case}-{i}", parser.name));
        fs::write(&path, &part.bytes).expect("the input is written");
        println!("{:?} part in {}", part.kind, path.display());
    }
    match (parser.run)(&input) {
        Ok(()) => println!("accepted"),
        Err(error) => println!("refused: {error}"),
    }
}
