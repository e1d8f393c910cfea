//! The two kinds of panel that all pictures consist of: lines over axes, and a heat map.

use super::canvas::{Anchor, Canvas};
use super::scale::{Palette, colour, ink_on, log_ticks, short, ticks};

/// One line.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) colour: String,
    pub(super) dashed: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over two axes.
pub(super) struct LinePanel {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) series: Vec<Series>,
    /// Powers of ten upwards; what is not positive is left out.
    pub(super) log_y: bool,
    /// What the axis upwards covers at least, so that panels can be compared.
    pub(super) y_range: Option<(f64, f64)>,
    pub(super) dots: bool,
}

/// A heat map; `None` is a cell without a value.
pub(super) struct HeatPanel {
    pub(super) title: String,
    pub(super) x_label: &'static str,
    pub(super) y_label: &'static str,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<String>,
    pub(super) values: Vec<Vec<Option<f64>>>,
    /// What the ends of the palette stand for.
    pub(super) range: (f64, f64),
    pub(super) palette: Palette,
    /// Decimals of the numbers in the cells.
    pub(super) decimals: usize,
}

/// Room around the plot inside a panel: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (52.0, 26.0, 10.0, 38.0);

/// The plot's place inside a panel's.
fn plot((x, y, w, h): (f64, f64, f64, f64)) -> (f64, f64, f64, f64) {
    (x + MARGIN.0, y + MARGIN.1, w - MARGIN.0 - MARGIN.2, h - MARGIN.1 - MARGIN.3)
}

fn labels(canvas: &mut Canvas, panel: (f64, f64, f64, f64), title: &str, x_label: &str, y_label: &str) {
    let (x, y, w, h) = plot(panel);
    canvas.heading((x, y - 9.0), 12, title);
    canvas.text((x + w / 2.0, y + h + 31.0), Anchor::Middle, "faint", x_label);
    canvas.upwards((panel.0 + 12.0, y + h / 2.0), y_label);
}

/// Smallest and largest, a little apart where all are equal.
fn range(numbers: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = numbers.filter(|x| x.is_finite()).fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
    if low > high {
        (0.0, 1.0)
    } else if low == high {
        (low - 0.5, high + 0.5)
    } else {
        (low, high)
    }
}

impl LinePanel {
    pub(super) fn draw(&self, panel: (f64, f64, f64, f64), canvas: &mut Canvas) {
        let (x, y, w, h) = plot(panel);
        let shown = |p: &&(f64, f64)| p.1.is_finite() && (!self.log_y || p.1 > 0.0);
        let points = || self.series.iter().flat_map(|s| &s.points).filter(shown);
        let up = |v: f64| if self.log_y { v.log10() } else { v };
        let xs = range(points().map(|p| p.0));
        let least = self.y_range.into_iter().flat_map(|(low, high)| [low, high]);
        let mut ys = range(points().map(|p| p.1).chain(least).map(up));
        if !self.log_y {
            ys = (ys.0.min(0.0), ys.1);
        }
        let at = |p: (f64, f64)| (x + w * (p.0 - xs.0) / (xs.1 - xs.0), y + h * (1.0 - (up(p.1) - ys.0) / (ys.1 - ys.0)));
        let y_ticks = if self.log_y { log_ticks(10f64.powf(ys.0), 10f64.powf(ys.1)) } else { ticks(ys.0, ys.1, 5) };
        for tick in y_ticks {
            let (_, ty) = at((xs.0, tick));
            canvas.line((x, ty), (x + w, ty), "grid");
            canvas.text((x - 5.0, ty + 3.5), Anchor::End, "faint", &short(tick));
        }
        // Indices and steps: whole numbers only.
        for tick in ticks(xs.0, xs.1, 6).into_iter().filter(|t| t.fract() == 0.0) {
            let (tx, _) = at((tick, 10f64.powf(ys.0)));
            canvas.line((tx, y + h), (tx, y + h + 4.0), "axis");
            canvas.text((tx, y + h + 16.0), Anchor::Middle, "faint", &short(tick));
        }
        canvas.line((x, y + h), (x + w, y + h), "axis");
        for s in &self.series {
            let line: Vec<(f64, f64)> = s.points.iter().filter(shown).map(|p| at(*p)).collect();
            canvas.path(&line, &s.colour, s.dashed, self.dots, &s.name);
        }
        labels(canvas, panel, &self.title, self.x_label, self.y_label);
    }
}

impl HeatPanel {
    pub(super) fn draw(&self, panel: (f64, f64, f64, f64), canvas: &mut Canvas) {
        let (x, y, w, h) = plot(panel);
        let (rows, columns) = (self.rows.len().max(1), self.columns.len().max(1));
        let (cw, ch) = (w / columns as f64, h / rows as f64);
        let share = |v: f64| (v - self.range.0) / (self.range.1 - self.range.0).max(f64::MIN_POSITIVE);
        for (r, row) in self.values.iter().enumerate() {
            for (c, value) in row.iter().enumerate() {
                let place = (x + c as f64 * cw, y + r as f64 * ch, cw, ch);
                let Some(v) = *value else {
                    canvas.rect(place, "empty");
                    continue;
                };
                let (tip, decimals) = (format!("{}, {}: {}", self.rows[r], self.columns[c], short(v)), self.decimals);
                canvas.cell(place, &colour(self.palette, share(v)), &tip);
                if cw >= 26.0 && ch >= 11.0 {
                    canvas.in_cell(
                        (place.0 + cw / 2.0, place.1 + ch / 2.0 + 3.0),
                        ink_on(self.palette, share(v)),
                        &format!("{v:.decimals$}"),
                    );
                }
            }
        }
        // As many names as there is room for.
        let stride = |cell: f64, room: f64| ((room / cell).ceil() as usize).max(1);
        for (r, name) in self.rows.iter().enumerate().step_by(stride(ch, 11.0)) {
            canvas.text((x - 5.0, y + (r as f64 + 0.5) * ch + 3.5), Anchor::End, "faint", name);
        }
        for (c, name) in self.columns.iter().enumerate().step_by(stride(cw, 14.0)) {
            canvas.text((x + (c as f64 + 0.5) * cw, y + h + 14.0), Anchor::Middle, "faint", name);
        }
        labels(canvas, panel, &self.title, self.x_label, self.y_label);
    }
}

/// A strip with the palette and what its ends and middle stand for.
pub(super) fn colour_bar(canvas: &mut Canvas, (x, y): (f64, f64), palette: Palette, (low, high): (f64, f64), label: &str) {
    const STEPS: usize = 48;
    const WIDTH: f64 = 192.0;
    for i in 0..STEPS {
        let place = (x + WIDTH * i as f64 / STEPS as f64, y, WIDTH / STEPS as f64 + 0.3, 9.0);
        canvas.cell(place, &colour(palette, (i as f64 + 0.5) / STEPS as f64), label);
    }
    for (share, anchor) in [(0.0, Anchor::Start), (0.5, Anchor::Middle), (1.0, Anchor::End)] {
        canvas.text((x + WIDTH * share, y + 21.0), anchor, "faint", &short(low + share * (high - low)));
    }
    canvas.text((x + WIDTH + 10.0, y + 9.0), Anchor::Start, "faint", label);
}

/// Names of lines with a sample of each.
pub(super) fn legend(canvas: &mut Canvas, (mut x, y): (f64, f64), entries: &[(&str, &str, bool)]) {
    for (name, colour, dashed) in entries {
        canvas.path(&[(x, y), (x + 20.0, y)], colour, *dashed, false, name);
        canvas.text((x + 25.0, y + 4.0), Anchor::Start, "ink", name);
        x += 40.0 + 6.5 * name.chars().count() as f64;
    }
}

/// Room beside the cells of a heat map.
pub(super) const MARGINS: f64 = 62.0;

/// Decimals that show two digits of numbers up to `largest`.
pub(super) fn decimals(largest: f64) -> usize {
    if largest > 0.0 { (1.0 - largest.log10().floor()).clamp(0.0, 5.0) as usize } else { 0 }
}
