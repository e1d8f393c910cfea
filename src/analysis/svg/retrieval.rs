//! What a model finds in long texts, by length and depth.

use super::canvas::Canvas;
use super::panels::{HeatPanel, colour_bar};
use super::scale::SEQUENTIAL;

/// A heat map of shares from 0 to 1: lengths in tokens to the right, depths (0 the beginning of the text, 1 its end) downwards. `shares` has a row a
/// depth; a cell without a value is left empty.
pub fn retrieval(title: &str, lengths: &[usize], depths: &[f64], shares: Vec<Vec<Option<f64>>>) -> String {
    let (width, height) = ((110.0 + 52.0 * lengths.len() as f64).max(320.0), 120.0 + 24.0 * depths.len() as f64);
    let mut canvas = Canvas::new(width, height);
    let panel = HeatPanel {
        title: title.to_owned(),
        x_label: "tokens",
        y_label: "depth",
        columns: lengths.iter().map(usize::to_string).collect(),
        rows: depths.iter().map(|depth| format!("{:.0} %", 100.0 * depth)).collect(),
        values: shares,
        range: (0.0, 1.0),
        palette: SEQUENTIAL,
        decimals: 2,
    };
    panel.draw((8.0, 8.0, width - 16.0, height - 56.0), &mut canvas);
    colour_bar(&mut canvas, (60.0, height - 36.0), SEQUENTIAL, panel.range, "share found");
    canvas.finish(title, "A heat map of the share of answers that were right, depths downwards, lengths to the right.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_drawn() {
        let picture =
            retrieval("passkey, base", &[256, 512, 1024], &[0.0, 1.0], vec![vec![Some(1.0), Some(0.5), None], vec![Some(0.0); 3]]);
        assert!(
            picture.starts_with("<svg") && ["1024", "100 %", "0.50", "passkey, base"].iter().all(|word| picture.contains(word)),
            "{picture}"
        );
    }
}
