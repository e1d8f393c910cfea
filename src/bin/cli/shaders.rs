//! `weblora shaders`: the kernels, the WGSL that a device gets to see, and which variants were fastest on it.

use serde_json::json;
use weblora::gpu::shader::compose;
use weblora::gpu::tune::Remembered;
use weblora::kernels::{KERNELS, samples};
use weblora::{Error, Result};

use super::args::ShadersArgs;
use super::device::{Device, cache_file};
use super::output::Output;

/// Runs the verb.
pub fn run(args: &ShadersArgs, output: &mut Output) -> Result<()> {
    if args.tuned {
        return tuned(args, output);
    }
    let Some(wanted) = &args.name else {
        for spec in KERNELS {
            let line = format!("{:28} {} bindings, {} lines", spec.name, spec.bindings.len() + 1, spec.source.lines().count());
            let event = json!({"event": "kernel", "name": spec.name, "bindings": spec.bindings.len() + 1}).to_string();
            output.print(if output.is_json() { &event } else { &line })?;
        }
        return Ok(());
    };
    let mut found = false;
    for (spec, variant) in samples::variants().into_iter().filter(|(spec, _)| spec.name.contains(wanted.as_str())) {
        found = true;
        let text = compose(spec, &variant, false)?;
        if output.is_json() {
            output.print(&json!({"event": "shader", "name": spec.name, "variant": variant.key(), "wgsl": text}).to_string())?;
        } else {
            output.print(&format!("// ---- {} [{}]\n{text}", spec.name, variant.key()))?;
        }
    }
    if found {
        Ok(())
    } else {
        Err(Error::config("name", format!("no kernel's name contains `{wanted}`"), "run `weblora shaders` for the list"))
    }
}

/// Prints the choices that are remembered for the adapter.
fn tuned(args: &ShadersArgs, output: &mut Output) -> Result<()> {
    let device = Device::open(&args.device)?;
    let part = args.name.as_deref().unwrap_or_default();
    let choices: Vec<Remembered> = device.tuner.remembered().into_iter().filter(|choice| choice.case.contains(part)).collect();
    let file = cache_file(&device.tuner).map(|path| path.display().to_string());
    if output.is_json() {
        let adapter = &device.gpu.facts().name;
        let event = json!({"event": "tuned", "adapter": adapter, "key": device.tuner.cache_key(), "file": file, "choices": choices});
        return output.print(&event.to_string());
    }
    output.print(&format!("{}\n{}", device.tuner.cache_key(), file.as_deref().unwrap_or("no cache folder")))?;
    if choices.is_empty() {
        return output.print("no kernel choices are remembered: the first run without --no-tune measures them");
    }
    choices.iter().try_for_each(|choice| output.print(&words(choice)))
}

/// A choice on a few lines: the case, then its candidates, fastest first, with a star before the chosen one.
fn words(choice: &Remembered) -> String {
    let Remembered { case, candidate, seconds, noise, sessions, settled, times } = choice;
    let state = if *settled { "" } else { ", measured again in the next session" };
    let mut text = format!("{case}\n  noise {:.0} %, {sessions} session{}{state}", 100.0 * noise, if *sessions == 1 { "" } else { "s" });
    let chosen_alone = [(candidate.clone(), *seconds)];
    for (name, seconds) in if times.is_empty() { &chosen_alone[..] } else { times } {
        let mark = if name == candidate { '*' } else { ' ' };
        text += &format!("\n  {mark} {:>10.4} ms  {name}", 1e3 * seconds);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_shows_its_candidates_or_at_least_the_chosen_one() {
        let mut choice = Remembered {
            case: "matmul q4_0".into(),
            candidate: "B".into(),
            seconds: 2e-3,
            noise: 0.05,
            sessions: 1,
            settled: false,
            times: vec![("A".into(), 1.9e-3), ("B".into(), 2e-3)],
        };
        let said = words(&choice);
        let expected =
            "matmul q4_0\n  noise 5 %, 1 session, measured again in the next session\n        1.9000 ms  A\n  *     2.0000 ms  B";
        assert_eq!(said, expected);
        choice.times.clear();
        choice.settled = true;
        assert_eq!(words(&choice), "matmul q4_0\n  noise 5 %, 1 session\n  *     2.0000 ms  B");
    }
}
