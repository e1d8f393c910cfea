//! Files of many jobs: the jobs file and recorded workloads.

use weblora::adapters::METHODS;
use weblora::jobs::{JobsFile, TrainKeys, workload};
use weblora::settings::Map;
use weblora::train::{TrainConfig, keys};
use weblora::{Error, Result};

use super::runs::setting_words;
use crate::driver::Parser;
use crate::input::{Input, lines, text};

pub static JOBS_FILE: Parser = Parser { name: "jobs_file", seeds, dictionary: words, run: read };
pub static WORKLOAD: Parser = Parser { name: "workload", seeds: workload_seeds, dictionary: words, run: read_workload };

fn words() -> Vec<&'static str> {
    let own = [
        "memory",
        "\"2 GiB\"",
        "policy",
        "early-stop",
        "rules",
        "[early-stop]",
        "[sweep]",
        "[sweep.keys]",
        "[[sweep.list]]",
        "search",
        "grid",
        "random",
        "list",
        "trials",
        "min",
        "max",
        "count",
        "scale",
        "log",
        "whole",
        "priority",
        "group",
        "passes",
        "batches",
        "rows",
        "documents",
        "longest",
        "arrives",
        "curve",
        "start",
        "floor",
        "power",
        "noise",
        "breaks",
        "bytes",
        "eval_every",
    ];
    setting_words().into_iter().chain(own).collect()
}

fn seeds() -> Vec<Input> {
    let files = [
        "model = \"m.gguf\"\ndata = \"d.jsonl\"\nout = \"runs\"\nsteps = 3\n[[job]]\nname = \"a\"\npriority = 1\nrank = 4\n[[job]]\nname = \"b\"\nlr = 1e-3\n",
        "model = \"m.gguf\"\nmemory = \"2 GiB\"\n[early-stop]\nrules = [\"median\", \"plateau\"]\n[sweep]\nname = \"s\"\n[sweep.keys]\nlr = [1e-4, 1e-3]\n\
         rank = { min = 4, max = 16, count = 3 }\n",
        "model = \"m.gguf\"\n[sweep]\nsearch = \"random\"\ntrials = 5\nseed = 1\n[sweep.keys]\nlr = { min = 1e-5, max = 1e-2 }\n",
        "model = \"m.gguf\"\n[sweep]\nsearch = \"list\"\n[[sweep.list]]\nrank = 1\n[[sweep.list]]\nrank = 2\n",
    ];
    files.map(|file| vec![text(file)]).into()
}

fn read(input: &Input) -> Result<()> {
    let wrong = |e: String| Error::format("jobs.toml", e, "write TOML");
    let text = String::from_utf8(input[0].bytes.clone()).map_err(|e| wrong(e.to_string()))?;
    let map: Map = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let methods = METHODS.iter().flat_map(|method| method.options.iter().map(|option| option.key));
    let paths = ["name", "model", "data", "quantize", "eval-data", "init-adapter", "out", "data-weights", "data-temperature", "method"];
    let known: Vec<&str> = keys::KEYS.iter().map(|key| key.key).chain(methods).chain(paths).collect();
    let file = JobsFile::read(&map, TrainKeys { all: &known, exclusive: keys::EXCLUSIVE }, "/srv")?;
    assert!(!file.jobs.is_empty(), "a file without jobs is refused");
    for job in file.jobs.iter().take(20) {
        TrainConfig::from_map(&job.settings).ok();
    }
    Ok(())
}

fn workload_seeds() -> Vec<Input> {
    let job = "{\"name\":\"a\",\"passes\":10,\"batches\":[{\"rows\":64,\"documents\":2,\"longest\":40}]}";
    let more = "{\"name\":\"b\",\"arrives\":1.5,\"priority\":-1,\"group\":\"g\",\"passes\":3,\"batches\":[{\"rows\":8,\"documents\":1,\"longest\":8}],\
                \"bytes\":100,\"eval_every\":2,\"curve\":{\"start\":2,\"floor\":1,\"scale\":3,\"power\":0.5,\"noise\":0.1,\"breaks\":5}}";
    vec![vec![lines(format!("{job}\n{more}\n"))]]
}

fn read_workload(input: &Input) -> Result<()> {
    for job in workload::read("jobs.jsonl", &String::from_utf8_lossy(&input[0].bytes))? {
        for step in [0, 1, u64::MAX] {
            job.curve.map(|curve| curve.at(step, "key"));
        }
    }
    Ok(())
}
