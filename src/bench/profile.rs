//! Where the time of a recording goes, by timestamps around its dispatches.

use std::collections::BTreeMap;

use super::record::{ProfileRecord, Record};
use super::setup::Bench;
use crate::Result;
use crate::gpu::timing::Timing;

/// Rows of a profile by label.
const LABELS: usize = 24;

/// Tells the times of the dispatches of what is called `config`: all together, by kernel and by label.
pub(super) fn tell(bench: &mut Bench<'_>, config: &str, timings: &[Timing]) -> Result<()> {
    let total: f64 = timings.iter().map(|t| t.seconds).sum();
    let all = grouped(timings, |_| "all dispatches".to_owned());
    let by_kernel = grouped(timings, |t| t.kernel.to_owned());
    let by_label = grouped(timings, |t| place(&t.label));
    for (by, groups, count) in [("all", all, 1), ("kernel", by_kernel, usize::MAX), ("label", by_label, LABELS)] {
        for (name, group) in groups.into_iter().take(count) {
            (bench.report)(&Record::Profile(ProfileRecord {
                config: config.to_owned(),
                by,
                name,
                ms: group.seconds * 1e3,
                share: group.seconds / total.max(f64::MIN_POSITIVE),
                dispatches: group.dispatches,
                gflops: group.flops as f64 / group.seconds.max(f64::MIN_POSITIVE) / 1e9,
                gbytes: group.bytes as f64 / group.seconds.max(f64::MIN_POSITIVE) / 1e9,
            }))?;
        }
    }
    Ok(())
}

#[derive(Default)]
struct Group {
    seconds: f64,
    flops: u64,
    bytes: u64,
    dispatches: usize,
}

/// Sums by name, the longest time first.
fn grouped(timings: &[Timing], name: impl Fn(&Timing) -> String) -> Vec<(String, Group)> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for timing in timings {
        let group = groups.entry(name(timing)).or_default();
        group.seconds += timing.seconds;
        group.flops += timing.flops;
        group.bytes += timing.bytes;
        group.dispatches += 1;
    }
    let mut sorted: Vec<_> = groups.into_iter().collect();
    sorted.sort_by(|a, b| b.1.seconds.total_cmp(&a.1.seconds));
    sorted
}

/// A label without the layer's number: "layers.3.mlp.up_proj.matmul" is "mlp.up_proj.matmul".
fn place(label: &str) -> String {
    let in_layer = label.strip_prefix("layers.").and_then(|rest| rest.split_once('.')).map(|(_, place)| place);
    in_layer.unwrap_or(label).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_share_a_place() {
        assert_eq!(place("layers.12.self_attn.q_proj.matmul"), "self_attn.q_proj.matmul");
        assert_eq!(place("head.loss"), "head.loss");
    }
}
