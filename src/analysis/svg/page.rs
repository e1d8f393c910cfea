//! A page of panels with a title.

use super::canvas::{Anchor, Canvas};

const TOP: f64 = 56.0;
const BOTTOM: f64 = 46.0;

/// Panels on a page with a title, four in a row.
pub(super) struct Page {
    pub(super) canvas: Canvas,
    columns: usize,
    size: (f64, f64),
    pub(super) legend: (f64, f64),
}

impl Page {
    pub(super) fn new(panels: usize, most_columns: usize, panel: (f64, f64), title: &str, subtitle: &str) -> Self {
        let columns = panels.clamp(1, most_columns);
        let rows = panels.max(1).div_ceil(columns);
        let width = (columns as f64 * panel.0 + 20.0).max(560.0);
        let height = TOP + rows as f64 * panel.1 + BOTTOM;
        let mut canvas = Canvas::new(width, height);
        canvas.heading((14.0, 24.0), 15, title);
        canvas.text((14.0, 42.0), Anchor::Start, "faint", subtitle);
        Self { canvas, columns, size: panel, legend: (24.0, height - BOTTOM + 14.0) }
    }

    /// The place of panel `i`.
    pub(super) fn place(&self, i: usize) -> (f64, f64, f64, f64) {
        let (row, column) = (i / self.columns, i % self.columns);
        (10.0 + column as f64 * self.size.0, TOP + row as f64 * self.size.1, self.size.0, self.size.1)
    }
}
