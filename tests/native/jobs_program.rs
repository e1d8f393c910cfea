//! `weblora jobs` from outside: a sweep beside a job of its own, what other processes ask for, results, and what is refused.

use std::path::Path;

use serde_json::Value;

use crate::common::program::{fails, succeeds, text, weblora};

fn asset(name: &str) -> String {
    format!("{}/assets/demo/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A jobs file in `folder` whose run goes to `folder/runs`.
fn jobs_file(folder: &Path, more: &str) -> String {
    let path = folder.join("jobs.toml");
    let top = format!(
        "model = '{}'\ndata = '{}'\neval-data = '{}'\nout = '{}'\nbatch = 1\nseq = 32\nsteps = 4\nwarmup = 0\nrecompute = false\n",
        asset("demo.gguf"),
        asset("train.jsonl"),
        asset("heldout.jsonl"),
        folder.join("runs").display()
    );
    std::fs::write(&path, top + more).unwrap();
    path.display().to_string()
}

/// A run that some jobs of failed: the last line says how many.
#[track_caller]
fn ends_with(output: &std::process::Output, how_many: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.lines().last().is_some_and(|line| line.starts_with(&format!("error: {how_many}; "))), "{said}");
}

#[test]
fn a_sweep_and_a_chain_train_together_and_leave_adapters_and_results() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("mine.jinja");
    std::fs::write(&template, "{% for m in messages %}{{ m.content }}{% endfor %}").unwrap();
    let template = format!("chat-template = '{}'\n", template.display());
    let jobs =
        format!("[[job]]\nname = 'chain'\nmethod = 'cola'\nlinks = [2, 2]\n{template}[[job]]\nname = 'lost'\ndata = 'nowhere.jsonl'\n");
    // What only this job says stops no other: rows that the model does not reach.
    let jobs = format!("[[job]]\nname = 'far'\nseq = 4096\n[[job]]\nname = 'untold'\nchat-template = 'gone.jinja'\n{jobs}");
    let file = jobs_file(folder.path(), &format!("{jobs}[sweep]\nname = 'rates'\n[sweep.keys]\nlr = [1e-3, 1e-2]\n"));
    let output = weblora(&["jobs", &file, "--no-tune", "--json"]);
    ends_with(&output, "3 of 6 jobs failed");
    let events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    let of = |kind: &str| events.iter().filter(|e| e["event"] == kind).collect::<Vec<_>>();
    assert_eq!((of("done").len(), of("step").len(), of("jobs").len()), (3, 12, 2), "two of the last: as it begins, and the table");
    // What each job goes through is said before it runs, as with `train`.
    let starts = of("start");
    assert_eq!(starts.len(), 3, "{starts:?}");
    let chain = starts.iter().find(|event| event["job"] == "chain").expect("the chain begins");
    assert!(chain["rows_per_step"].as_f64().is_some_and(|rows| rows >= 1.0) && chain["steps"] == 4, "{chain}");
    assert!(chain["config"]["chat-template"].as_str().is_some_and(|text| text.contains("for m in messages")), "{chain}");
    let few = |event: &&&Value| event["job"] == "chain" && event["message"].as_str().is_some_and(|text| text.contains("only 4 steps"));
    assert_eq!(of("warning").iter().filter(few).count(), 1);
    let failed = of("job_failed");
    assert!(
        failed.len() == 3
            && failed.iter().any(|e| e["job"] == "far" && e["reason"].as_str().unwrap().contains("job far: seq"))
            && failed.iter().any(|e| e["job"] == "untold" && e["reason"].as_str().unwrap().contains("gone.jinja"))
            && failed.iter().any(|e| e["job"] == "lost" && e["reason"].as_str().unwrap().contains("nowhere.jsonl")),
        "{failed:?}"
    );
    assert!(of("schedule").iter().all(|e| !e["reason"].as_str().unwrap().is_empty()));
    let runs = folder.path().join("runs");
    assert!(runs.join("chain/chain.json").is_file());
    let results: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(runs.join("results.json")).unwrap()).unwrap();
    assert_eq!(results.iter().filter(|job| job["best"] == true).count(), 1, "one best");
    let (lost, done): (Vec<&Value>, Vec<&Value>) = results.iter().partition(|job| job["step"] == 0);
    assert!(done.iter().all(|job| job["state"] == "done" && Path::new(job["out"].as_str().unwrap()).join("adapter_config.json").is_file()));
    // What failed before anything trained is a result, too.
    let lost = lost.iter().find(|job| job["job"] == "lost").unwrap();
    let why = lost["reason"].as_str().unwrap();
    assert!(lost["state"] == "failed" && why.contains("nowhere.jsonl") && lost["out"].as_str().unwrap().ends_with("lost"), "{why}");
    let csv = std::fs::read_to_string(runs.join("results.csv")).unwrap();
    assert!(csv.lines().count() == 7 && csv.contains("\"lost\",failed,"), "{csv}");
    // What the sweep set is in them.
    let head: Vec<&str> = csv.lines().next().unwrap().split(',').collect();
    assert!(head.contains(&"lr") && head.contains(&"method") && head.contains(&"links"), "{head:?}");
    assert!(!head.contains(&"seq") && !head.contains(&"knots"), "what is alike, and what one method has as it is by default: {head:?}");
    let rates: Vec<f64> = done.iter().filter_map(|job| job["settings"]["lr"].as_f64()).collect();
    assert_eq!(rates, [5e-4, 1e-3, 1e-2], "the chain's and the sweep's");
    let shown = succeeds(&["jobs", "status", "--run", runs.to_str().unwrap()]);
    assert!(
        shown.contains("chain") && shown.contains("nowhere.jsonl") && shown.contains("4/4") && shown.contains("lowest held-out loss"),
        "{shown}"
    );
    // It failed, and is told of, also when the run goes on.
    let output = weblora(&["jobs", &file, "--no-tune", "--resume"]);
    ends_with(&output, "3 of 6 jobs failed");
    assert!(text(&output.stderr).contains("it failed before: ") && text(&output.stdout).contains("nowhere.jsonl"), "{output:?}");
    // A run that is there is not taken by accident, and nobody is asked for what it does not have.
    fails(&["jobs", &file, "--no-tune"], &["already exists"]);
    fails(&["jobs", "stop", "--run", runs.to_str().unwrap(), "nobody"], &["nobody"]);
    fails(&["jobs", "status", "--run", folder.path().to_str().unwrap()], &["status.json"]);
}

/// A job whose loss becomes NaN fails alone and leaves the last checkpoint from before that, from which it goes on by itself.
#[test]
fn a_job_that_diverged_goes_on_by_itself_at_a_smaller_rate() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let jobs = "[[job]]\nname = 'wild'\nlr = 1e30\nsave-every = 1\n[[job]]\nname = 'tame'\nsave-every = 1\n";
    let output = weblora(&["jobs", &jobs_file(folder.path(), jobs), "--no-tune", "--json"]);
    ends_with(&output, "1 of 2 jobs failed");
    let events: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    let reason = events.iter().find(|e| e["event"] == "job_failed" && e["job"] == "wild").expect("it fails")["reason"].to_string();
    assert!(
        reason.contains("the checkpoint of step 0 in ") && reason.contains("--resume --out") && reason.contains("--lr 1e-3"),
        "{reason}"
    );
    let wild = folder.path().join("runs/wild");
    let names = |of: &Path| {
        let mut all: Vec<_> = std::fs::read_dir(of).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!(names(&wild), ["checkpoint.safetensors"]);
    assert!(folder.path().join("runs/tame/adapter_config.json").is_file());
    assert_eq!(names(&folder.path().join("runs/.state")), ["manifest.json"], "nothing is needed any more");
    succeeds(&["train", "--resume", "--out", wild.to_str().unwrap(), "--lr", "1e-3", "--no-tune"]);
    assert!(wild.join("adapter_config.json").is_file());
}

#[test]
fn a_run_takes_up_what_is_asked_for() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = jobs_file(folder.path(), "[[job]]\nname = 'long'\nsteps = 100000\n[[job]]\nname = 'short'\nrank = 4\n");
    let start = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weblora"));
        command.args(["jobs", &file, "--no-tune", "--json"]).args(more).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null()).spawn().unwrap()
    };
    let mut child = start(&[]);
    let runs = folder.path().join("runs").display().to_string();
    let began = std::time::Instant::now();
    let wait_for = |child: &mut std::process::Child, what: &str, ready: &dyn Fn() -> bool| {
        while !ready() {
            assert!(began.elapsed().as_secs() < 300 && child.try_wait().unwrap().is_none(), "{what}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    wait_for(&mut child, "the run begins", &|| weblora(&["jobs", "status", "--run", &runs]).status.success());
    let more = folder.path().join("more.toml");
    let base = std::fs::read_to_string(&file).unwrap();
    let base = base.split("[[job]]").next().unwrap().replace("runs'", "others'");
    std::fs::write(&more, base + "[[job]]\nname = 'late'\nsteps = 2\nrank = 4\n").unwrap();
    succeeds(&["jobs", "add", "--run", &runs, more.to_str().unwrap()]);
    let state = |name: &str| {
        let shown: Value = serde_json::from_str(&succeeds(&["jobs", "status", "--run", &runs, "--json"])).unwrap();
        shown["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).map(|job| job["state"].as_str().unwrap().to_owned())
    };
    wait_for(&mut child, "the late job ends", &|| state("late").as_deref() == Some("done"));
    // Nobody else writes into a job's folder meanwhile.
    let (long, rows) = (format!("{runs}/long"), asset("train.jsonl"));
    let mine = ["train", "--model", &asset("demo.gguf"), "--data", &rows, "--seq", "32", "--steps", "1", "--no-tune"];
    let refused = weblora(&[&mine[..], &["--out", &long, "--overwrite"]].concat());
    assert!(!refused.status.success() && text(&refused.stderr).contains("another weblora"), "{}", text(&refused.stderr));
    // Two at once would write over each other; killed, the run goes on with what was added.
    fails(&["jobs", &file, "--no-tune", "--resume"], &["another weblora"]);
    let shown = succeeds(&["jobs", "status", "--run", &runs]);
    assert!(!shown.contains("nobody runs"), "{shown}");
    child.kill().unwrap();
    child.wait().unwrap();
    let shown = succeeds(&["jobs", "status", "--run", &runs]);
    assert!(shown.contains("running") && shown.contains("nobody runs these jobs now"), "{shown}");
    let mut child = start(&["--resume"]);
    succeeds(&["jobs", "pause", "--run", &runs, "long"]);
    wait_for(&mut child, "the long job pauses", &|| state("long").as_deref() == Some("paused"));
    succeeds(&["jobs", "stop", "--run", &runs, "long"]);
    assert!(child.wait().unwrap().success());
    assert_eq!(state("late").as_deref(), Some("done"), "it is a job of the run that went on");
    assert_eq!((state("long").as_deref(), state("short").as_deref()), (Some("stopped"), Some("done")));
    assert!(folder.path().join("runs/long/adapter_config.json").is_file(), "a stopped job's adapter is saved");
    assert!(folder.path().join("others/late/adapter_config.json").is_file());
    fails(&["jobs", "stop", "--run", &runs, "long"], &["have ended"]);
}

/// Ctrl-C saves what has been trained; nobody is told that jobs are done.
#[cfg(unix)]
#[test]
fn an_interrupted_run_keeps_adapters_and_goes_on() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = jobs_file(folder.path(), "[[job]]\nname = 'long'\nsteps = 100000\n");
    let told = folder.path().join("told");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weblora"));
    command.args(["jobs", &file, "--no-tune", "--json"]).stdout(std::fs::File::create(&told).unwrap());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let events = || std::fs::read_to_string(&told).unwrap();
    let began = std::time::Instant::now();
    while !events().contains("\"step\"") {
        assert!(began.elapsed().as_secs() < 300 && child.try_wait().unwrap().is_none(), "the run begins");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let asked = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(asked.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let events = events();
    assert!(!events.contains("\"event\":\"done\"") && events.contains("runs/long\""), "{events}");
    assert!(folder.path().join("runs/long/adapter_config.json").is_file());
    let status: Value = serde_json::from_str(&std::fs::read_to_string(folder.path().join("runs/status.json")).unwrap()).unwrap();
    assert_eq!(status[0]["state"], "running", "it goes on with --resume");
}

/// Jobs that are added join or fail one by one, on the run's own base and in its folder.
#[test]
fn what_is_added_joins_or_fails_job_by_job() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = jobs_file(folder.path(), "[[job]]\nname = 'long'\nsteps = 100000\n");
    let runs = folder.path().join("runs").display().to_string();
    let told = std::fs::File::create(folder.path().join("told")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_weblora"));
    let mut child = command.args(["jobs", &file, "--no-tune", "--json"]).stdout(told).stderr(std::process::Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    let mut wait_for = |what: &str, ready: &dyn Fn() -> bool| {
        while !ready() {
            assert!(began.elapsed().as_secs() < 300 && child.try_wait().unwrap().is_none(), "{what}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    let job = |name: &str| -> Value {
        let shown: Value = serde_json::from_str(&succeeds(&["jobs", "status", "--run", &runs, "--json"])).unwrap();
        shown["jobs"].as_array().unwrap().iter().find(|job| job["job"] == name).cloned().unwrap_or_default()
    };
    let add = |name: &str, more: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("data = '{}'\nbatch = 1\nseq = 32\nsteps = 2\nwarmup = 0\n{more}", asset("train.jsonl"))).unwrap();
        weblora(&["jobs", "add", "--run", &runs, path.to_str().unwrap()])
    };
    wait_for("the run begins", &|| weblora(&["jobs", "status", "--run", &runs]).status.success());
    // What is said for a whole run is refused by name.
    for (key, line) in
        [("memory", "memory = '1 GiB'\n"), ("policy", "policy = 'fifo'\n"), ("early-stop", "[early-stop]\nrules = ['median']\n")]
    {
        let refused = add("wide.toml", &format!("{line}[[job]]\nname = 'x'\n"));
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(&format!("`{key}`")), "{said}");
    }
    // Other weights in the same shape.
    let mut other = std::fs::read(asset("demo.gguf")).unwrap();
    *other.last_mut().unwrap() ^= 1;
    let base = folder.path().join("other.gguf");
    std::fs::write(&base, other).unwrap();
    assert!(add("other.toml", &format!("model = '{}'\n[[job]]\nname = 'foreign'\n", base.display())).status.success());
    let three = "[[job]]\nname = 'first'\n[[job]]\nname = 'bad'\ndata = 'nowhere.jsonl'\n[[job]]\nname = 'wide'\nrank = 64\n[[job]]\nname = 'last'\n";
    assert!(add("more.toml", three).status.success());
    wait_for("the last one ends", &|| job("last")["state"] == "done" && job("first")["state"] == "done");
    for (name, word) in [("foreign", "other.gguf"), ("bad", "nowhere.jsonl"), ("wide", "begin this run anew")] {
        let job = job(name);
        assert!(job["state"] == "failed" && job["reason"].as_str().unwrap().contains(word), "{job}");
    }
    assert!(Path::new(&runs).join("last/adapter_config.json").is_file(), "in the run's own folder");
    succeeds(&["jobs", "stop", "--run", &runs, "long"]);
    assert_eq!(child.wait().unwrap().code(), Some(1), "three jobs failed");
    let events = std::fs::read_to_string(folder.path().join("told")).unwrap();
    assert_eq!(events.lines().filter(|line| line.contains("\"job_failed\"")).count(), 3, "{events}");
    let results = std::fs::read_to_string(Path::new(&runs).join("results.csv")).unwrap();
    assert_eq!(results.lines().filter(|line| line.contains(",failed,")).count(), 3, "{results}");
}

/// A run for which there is no memory does not begin.
#[test]
fn jobs_without_memory_fail_before_the_run_begins() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let output = weblora(&["jobs", &jobs_file(folder.path(), "memory = 1000\n[[job]]\nname = 'a'\n"), "--no-tune"]);
    ends_with(&output, "1 of 1 jobs failed");
    let said = text(&output.stderr);
    assert!(said.contains("raise memory") && said.contains("before the run began") && !said.contains("lr"), "{said}");
    assert!(!folder.path().join("runs").exists());
}

#[test]
fn a_run_whose_jobs_all_fail_as_it_begins_says_so() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = jobs_file(folder.path(), "[[job]]\nname = 'a'\ndata = 'nowhere.jsonl'\n[[job]]\nname = 'b'\nrank = 0\n");
    let output = weblora(&["jobs", &file, "--no-tune"]);
    ends_with(&output, "2 of 2 jobs failed");
    let said = text(&output.stderr);
    assert!(said.contains("a failed: ") && said.contains("b failed: ") && said.contains("before the run began"), "{said}");
    assert!(!folder.path().join("runs").exists(), "it can be started again as it is");
}

/// A job whose folder cannot be written has failed, and its adapter is not lost.
#[test]
fn what_a_folder_has_no_room_for_is_kept_in_the_runs() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = jobs_file(folder.path(), "[[job]]\nname = 'a'\nrank = 4\n[[job]]\nname = 'b'\nrank = 4\n");
    let runs = folder.path().join("runs");
    // A file cannot be put in the place of a folder that is not empty.
    std::fs::create_dir_all(runs.join("a/adapter_model.safetensors/mine")).unwrap();
    let output = weblora(&["jobs", &file, "--no-tune", "--overwrite"]);
    ends_with(&output, "1 of 2 jobs failed");
    let kept = runs.join("kept/a");
    let said = text(&output.stderr);
    assert!(said.contains(&format!("its adapter is in {}", kept.display())), "{said}");
    succeeds(&["inspect", kept.to_str().unwrap()]);
    assert!(runs.join("b/adapter_model.safetensors").is_file());
}

#[test]
fn a_run_goes_on_only_as_it_was_begun() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = |more: &str| jobs_file(folder.path(), more);
    let file = run("[[job]]\nname = 'a'\nrank = 4\n");
    fails(&["jobs", &file, "--no-tune", "--resume"], &["manifest.json", "start anew"]);
    let told = text(&weblora(&["jobs", &file, "--no-tune"]).stderr);
    assert!(told.contains("\na: step 1 loss") && told.contains("\na: done: 4 steps"), "every line names its job: {told}");
    let shown = succeeds(&["jobs", &file, "--no-tune", "--resume"]);
    assert!(shown.contains("4/4"), "nothing is left to do: {shown}");
    for (more, word) in [
        ("[[job]]\nname = 'a'\nrank = 8\n", "job a: rank"),
        ("policy = 'fifo'\n[[job]]\nname = 'a'\nrank = 4\n", "policy"),
        ("[[job]]\nname = 'a'\nrank = 4\nseed = 3\n", "job a: seed"),
    ] {
        fails(&["jobs", &run(more), "--no-tune", "--resume"], &[word]);
    }
    // Jobs have their templates already, whatever has become of the file; a name that is none is not looked at.
    succeeds(&["jobs", &run("[[job]]\nname = 'a'\nrank = 4\nchat-template = 'gone.jinja'\n"), "--no-tune", "--resume"]);
    let file = run("[[job]]\nname = 'a'\nrank = 4\n[[job]]\nname = 'b'\n");
    let output = weblora(&["jobs", &file, "--no-tune", "--resume"]);
    assert!(output.status.success() && text(&output.stderr).contains("jobs add"), "{}", text(&output.stderr));
}

#[test]
fn jobs_files_that_cannot_work_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (more, word) in [
        ("[[job]]\nname = 'a'\n[[job]]\nname = 'a'\n", "two jobs"),
        ("[[job]]\nname = 'a'\nrnak = 4\n", "rnak"),
        ("", "no job"),
        ("[[job]]\nname = 'a'\nmodel = 'other.gguf'\n", "other.gguf"),
        ("[sweep.keys]\nlr = []\n", "sweep"),
    ] {
        let file = jobs_file(folder.path(), more);
        fails(&["jobs", &file, "--no-tune"], &[word]);
    }
}
