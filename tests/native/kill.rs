//! Runs killed at any moment: resumed as often as it takes, they end with the bytes of a run that nobody disturbed.
//!
//! `make kill KILLS=100` kills more often than `cargo test` does; `WEBLORA_KILL_SEED` makes other moments of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use weblora::rng::bits;

use crate::common::gpu;
use crate::common::program::{asset, train};

/// Runs with dropout, and with a chain that ties a knot on the way.
const RUNS: [&[&str]; 2] = [&["--dropout", "0.1"], &["--method", "cola", "--links", "4,2", "--knots", "7"]];

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text}, a number was expected")))
}

/// Starts or resumes the run in `out`; true when it came to its end within `after`, false when it was killed then.
fn run(out: &Path, more: &[&str], after: Option<Duration>) -> bool {
    let resume = out.join("checkpoint.safetensors").exists();
    let how: &[&str] = if resume { &["--resume"] } else { &["--overwrite"] };
    ends(&mut train(out, &[&["--steps", "14", "--lr", "2e-3"], more, how].concat()), after)
}

/// True when the program came to its end within `after`, false when it was killed then.
fn ends(command: &mut Command, after: Option<Duration>) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let began = Instant::now();
    while let Some(after) = after {
        if child.try_wait().expect("its status").is_some() {
            break;
        }
        if began.elapsed() >= after {
            child.kill().expect("killed");
            child.wait().expect("it ends");
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// The files of a folder, but the settings, which name it.
fn files(out: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(out)
        .expect("a folder")
        .map(|entry| entry.expect("an entry"))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).expect("a file")))
        .filter(|(name, _)| name != "run.toml")
        .collect();
    files.sort();
    files
}

#[test]
fn a_killed_run_ends_with_the_bytes_of_an_undisturbed_one() {
    if gpu().is_none() {
        return;
    }
    let (kills, seed) = (number("WEBLORA_KILLS", 3), number("WEBLORA_KILL_SEED", 1));
    let folder = tempfile::tempdir().expect("a folder");
    for (which, more) in RUNS.into_iter().enumerate() {
        // One name for both: the settings in the checkpoint name the folder.
        let out = folder.path().join("out");
        let began = Instant::now();
        assert!(run(&out, more, None));
        let whole = began.elapsed();
        let want = files(&out);
        let (mut killed, mut survived, mut i) = (0, 0, 0);
        while killed < kills.div_ceil(RUNS.len() as u64) {
            fs::remove_dir_all(&out).expect("removed");
            loop {
                i += 1;
                let share = bits(seed + which as u64, i) as f64 / u64::MAX as f64;
                if run(&out, more, (killed < kills).then(|| whole.mul_f64(share))) {
                    break;
                }
                killed += 1;
            }
            survived += 1;
            for (want, got) in want.iter().zip(files(&out)) {
                assert!(*want == got, "{} differs after {killed} kills (seed {seed})", got.0);
            }
            assert_eq!(want.len(), files(&out).len(), "files left behind (seed {seed})");
        }
        eprintln!("{}: {killed} kills, {survived} runs, all bytes equal", more.join(" "));
        fs::remove_dir_all(&out).expect("removed");
    }
}

/// Every file below a folder but the state to go on from, which holds times.
fn all_files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name == ".state" {
            continue;
        }
        if path.is_dir() {
            found.extend(all_files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.push((name, fs::read(&path).expect("a file")));
        }
    }
    found.sort();
    found
}

const JOBS: &str = "batch = 1\nseq = 32\nsteps = 6\nrecompute = false\nsave-every = 1\nlr = 2e-3\n[early-stop]\nrules = ['asha']\nfirst-rung = 2\neta = 2\n\
    [[job]]\nname = 'chain'\nmethod = 'cola'\nlinks = [3, 2]\neval-every = 3\n\
    [[job]]\nname = 'dropped'\ndropout = 0.1\ngrad-accum = 2\nsteps = 4\n\
    [sweep]\nname = 'rates'\n[sweep.keys]\nlr = [1e-5, 1e-2]\nrank = 4\n";

#[test]
fn killed_jobs_end_with_the_bytes_of_undisturbed_ones() {
    if gpu().is_none() {
        return;
    }
    let (kills, seed) = (number("WEBLORA_KILLS", 3), number("WEBLORA_KILL_SEED", 1));
    let folder = tempfile::tempdir().expect("a folder");
    let (file, out) = (folder.path().join("jobs.toml"), folder.path().join("runs"));
    let paths = ["model", "data", "eval-data"].into_iter().zip(["demo.gguf", "train.jsonl", "heldout.jsonl"]);
    let top: String = paths.map(|(key, name)| format!("{key} = '{}'\n", asset(name))).collect();
    fs::write(&file, format!("{top}out = '{}'\n{JOBS}", out.display())).expect("written");
    let run = |after: Option<Duration>| {
        let how = if out.join(".state/manifest.json").exists() { "--resume" } else { "--overwrite" };
        ends(Command::new(env!("CARGO_BIN_EXE_weblora")).args(["jobs", "--no-tune", how]).arg(&file), after)
    };
    let began = Instant::now();
    assert!(run(None));
    let whole = began.elapsed();
    let want = all_files(&out);
    for name in ["chain/chain.json", "chain/best/adapter_model.safetensors", "dropped/adapter_model.safetensors", "results.csv"] {
        assert!(want.iter().any(|(file, _)| file == name), "{name} is written");
    }
    let (mut killed, mut i) = (0, 0);
    while killed < kills {
        fs::remove_dir_all(&out).expect("removed");
        loop {
            i += 1;
            let share = bits(seed, i) as f64 / u64::MAX as f64;
            if run((killed < kills).then(|| whole.mul_f64(share))) {
                break;
            }
            killed += 1;
        }
        for ((name, want), (other, got)) in want.iter().zip(all_files(&out)) {
            assert!(*name == other && *want == got, "{name} differs ({other}) after {killed} kills (seed {seed})");
        }
        assert_eq!(want.len(), all_files(&out).len(), "files left behind (seed {seed})");
    }
}
