//! `weblora doctor`: the adapters, which of them a run takes, whether it computes, and what keeps a GPU from answering.

mod advice;
#[cfg(test)]
mod advice_tests;
mod findings;
mod machine;
mod report;

use std::path::Path;

use serde_json::json;
use weblora::bench::checked_product;
use weblora::gpu::survey::{AdapterKind, AdapterReport, Survey};
use weblora::{Error, Result};

use super::device::{Device, DeviceArgs, cache_file};
use super::output::Output;
use advice::warnings;
use findings::{Findings, Opened};
use machine::Machine;

/// Runs the verb.
pub fn run(args: &DeviceArgs, output: &mut Output) -> Result<()> {
    let (findings, failure) = examine(args);
    if output.is_json() {
        output.print(&event(&findings).to_string())?;
    } else {
        output.print(&report::words(&findings))?;
    }
    failure.map_or(Ok(()), Err)
}

/// Looks at everything; with the reason where no device computes.
fn examine(args: &DeviceArgs) -> (Findings, Option<Error>) {
    let options = args.options();
    let machine = Machine::read(Path::new("/"), |name| std::env::var(name).ok());
    let Survey { adapters, taken } = pollster::block_on(Survey::new(&options));
    let (place, mut failure) = match taken {
        Ok(place) => (Some(place), None),
        Err(error) => (None, Some(error)),
    };
    let mut opened = None;
    if place.is_some() {
        match Device::open(args) {
            Ok(device) => {
                let file = cache_file(&device.tuner).map(|path| path.display().to_string());
                let product = pollster::block_on(checked_product(&device.gpu)).map_err(|error| failure = Some(error)).ok();
                opened = Some(Opened { file, choices: device.tuner.remembered().len(), product });
            }
            Err(error) => failure = Some(error),
        }
    }
    let warnings = warnings(&machine, &adapters, place.and_then(|place| adapters.get(place)));
    let taken = place.map(|place| (place, reason(&adapters, place, args.gpu.as_deref())));
    (Findings { machine, adapters, taken, opened, warnings }, failure)
}

/// Why a run takes the adapter at `place`.
fn reason(adapters: &[AdapterReport], place: usize, asked: Option<&str>) -> String {
    if let Some(asked) = asked {
        return format!("its name contains {asked:?} (--gpu)");
    }
    let Some(AdapterReport { kind, .. }) = adapters.get(place).filter(|_| adapters.len() > 1) else {
        return "it is the only adapter".into();
    };
    let alike = adapters.iter().filter(|other| other.kind == *kind).count();
    let first =
        if alike > 1 { format!("the first of {alike} that are {}", kind.name()) } else { format!("the only one that is {}", kind.name()) };
    let order = [AdapterKind::Discrete, AdapterKind::Integrated, AdapterKind::Other, AdapterKind::Virtual, AdapterKind::Software];
    format!("it is {first}; the order is {}, and --gpu NAME takes another", order.map(AdapterKind::name).join(", "))
}

/// The findings as one event.
fn event(findings: &Findings) -> serde_json::Value {
    let Findings { machine, adapters, taken, opened, warnings } = findings;
    let choices = opened.as_ref().map(|opened| json!({"file": opened.file, "count": opened.choices}));
    json!({
        "event": "doctor", "version": env!("CARGO_PKG_VERSION"), "adapters": adapters,
        "taken": taken.as_ref().map(|(place, _)| place), "why": taken.as_ref().map(|(_, why)| why), "opened": opened.is_some(),
        "product": opened.as_ref().and_then(|opened| opened.product.as_ref()), "choices": choices, "machine": machine, "warnings": warnings,
    })
}

#[cfg(test)]
mod tests {
    use super::advice_tests::adapter;
    use super::*;

    #[test]
    fn the_reason_names_what_decided() {
        let all = [adapter("a", AdapterKind::Software), adapter("b", AdapterKind::Discrete), adapter("c", AdapterKind::Discrete)];
        assert_eq!(reason(&all[..1], 0, None), "it is the only adapter");
        assert!(reason(&all, 1, None).starts_with("it is the first of 2 that are discrete; the order is discrete, integrated, "));
        assert!(reason(&all[..2], 1, None).starts_with("it is the only one that is discrete;"));
        assert_eq!(reason(&all, 2, Some("c")), "its name contains \"c\" (--gpu)");
    }

    #[test]
    fn a_machine_without_an_adapter_is_reported_in_words_and_as_an_event() {
        let machine = Machine { os: "linux".into(), ..Machine::default() };
        let warnings = warnings(&machine, &[], None);
        let findings = Findings { machine, adapters: Vec::new(), taken: None, opened: None, warnings };
        let said = report::words(&findings);
        for word in ["no adapter", "taken: none", "WARNING: Vulkan's loader", "libvulkan1"] {
            assert!(said.contains(word), "{said}");
        }
        let event = event(&findings);
        assert_eq!(
            (&event["event"], &event["opened"], &event["warnings"][0]["code"]),
            (&json!("doctor"), &json!(false), &json!("no-vulkan-loader"))
        );
        assert!(event["taken"].is_null() && event["product"].is_null() && event["choices"].is_null());
    }
}
