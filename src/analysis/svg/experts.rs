//! Experts of MixLoRA by block: how much each was used, how much it changes, and the size of its row of the router.

use super::page::Page;
use super::panels::{HeatPanel, MARGINS, colour_bar, decimals};
use super::scale::SEQUENTIAL;
use crate::analysis::{BlockExperts, ExpertsReport};

/// A number an expert, of one block.
type Pick = fn(&BlockExperts) -> Option<&Vec<f64>>;

/// A panel for each of load (where a run is known), update and router: blocks downwards, experts to the right.
pub fn experts(name: &str, report: &ExpertsReport) -> String {
    let kinds: [(&str, Pick); 3] = [
        ("share of tokens", |block| block.load.as_ref()),
        ("‖ΔW‖ of gate, up, down", |block| Some(&block.frobenius)),
        ("‖row of the router‖", |block| Some(&block.router)),
    ];
    let shown: Vec<(&str, Pick)> = kinds.into_iter().filter(|(_, pick)| report.blocks.iter().any(|block| pick(block).is_some())).collect();
    let title = format!("Experts: {name}");
    let size = ((MARGINS + 34.0 * report.experts as f64).max(230.0), (64.0 + 15.0 * report.blocks.len() as f64).max(150.0));
    let under = match report.load_steps {
        Some(steps) => format!("used evenly, all experts of a block have the same share; load: mean over the run's end, steps: {steps}"),
        None => "experts that share the work are alike in size; how much they were used is in a run's events (--events)".to_owned(),
    };
    let mut page = Page::new(shown.len(), shown.len(), size, &title, &under);
    for (i, (label, pick)) in shown.into_iter().enumerate() {
        let values: Vec<Vec<Option<f64>>> =
            report.blocks.iter().map(|block| (0..report.experts).map(|e| pick(block)?.get(e).copied()).collect()).collect();
        let most = values.iter().flatten().flatten().copied().fold(0.0, f64::max);
        let panel = HeatPanel {
            title: label.to_owned(),
            x_label: "expert",
            y_label: "layer",
            columns: (0..report.experts).map(|e| e.to_string()).collect(),
            rows: report.blocks.iter().map(|block| block.layer.to_string()).collect(),
            values,
            range: (0.0, most),
            palette: SEQUENTIAL,
            decimals: decimals(most),
        };
        panel.draw(page.place(i), &mut page.canvas);
        let at = (page.place(i).0 + 14.0, page.legend.1);
        colour_bar(&mut page.canvas, at, SEQUENTIAL, (0.0, most), "");
    }
    page.canvas
        .finish(&title, "Heat maps of the experts' load, of the size of their updates and of their rows of the router, layers downwards.")
}
