//! Colours that people with any colour vision can tell apart, round ticks, short numbers.

/// Anchors of a colour scale, evenly spaced.
pub(super) type Palette = &'static [[u8; 3]];

/// Viridis (Smith and van der Walt, CC0): even in lightness, readable in grey.
pub(super) static SEQUENTIAL: Palette = &[
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
];

/// Blue, pale, orange: below, at and above zero.
pub(super) static DIVERGING: Palette = &[[33, 102, 172], [146, 197, 222], [247, 247, 247], [253, 184, 99], [179, 88, 6]];

/// Colours of the seven projections: Okabe and Ito's, with grey for their yellow.
pub(super) static DISTINCT: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c"];

fn blend(palette: Palette, share: f64) -> [u8; 3] {
    let last = palette.len() - 1;
    let place = share.clamp(0.0, 1.0) * last as f64;
    let index = (place as usize).min(last - 1);
    let t = place - index as f64;
    let (low, high) = (palette[index], palette[index + 1]);
    std::array::from_fn(|c| (f64::from(low[c]) * (1.0 - t) + f64::from(high[c]) * t).round() as u8)
}

/// The colour at `share` of the way, `#rrggbb`.
pub(super) fn colour(palette: Palette, share: f64) -> String {
    let [r, g, b] = blend(palette, share);
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Black or white, whichever reads better on that colour.
pub(super) fn ink_on(palette: Palette, share: f64) -> &'static str {
    let [r, g, b] = blend(palette, share).map(f64::from);
    if 0.299 * r + 0.587 * g + 0.114 * b > 140.0 { "#000000" } else { "#ffffff" }
}

/// About `wanted` round numbers from `low` to `high`, both finite, `low < high`.
pub(super) fn ticks(low: f64, high: f64, wanted: usize) -> Vec<f64> {
    let raw = (high - low) / wanted.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let step = power * [1.0, 2.0, 5.0, 10.0].into_iter().find(|m| m * power >= raw * 0.999).unwrap_or(10.0);
    let first = (low / step).ceil();
    // Where the ends are closer than floats can tell there is no step.
    let tick = |i: u8| (first + f64::from(i)) * step;
    (0..50).map(tick).take_while(|t| *t <= high + step * 1e-9).collect()
}

/// Ticks of a logarithmic axis from `low` to `high`, both positive: powers of ten, about six; where there are fewer than three of them also
/// twice and five times those; round numbers where the axis spans next to nothing.
pub(super) fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let power = |x: f64| x.log10().clamp(-400.0, 400.0);
    let (first, last) = (power(low).floor() as i32, power(high).ceil() as i32);
    let decades = last - first;
    let stride = ((decades + 5) / 6).max(1) as usize;
    let steps: &[f64] = if decades <= 3 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let all = (first..=last).step_by(stride).flat_map(|e| steps.iter().map(move |m| m * 10f64.powi(e)));
    let inside: Vec<f64> = all.filter(|t| (low..=high).contains(t)).collect();
    if inside.len() < 2 { ticks(low, high, 4) } else { inside }
}

/// Three significant digits, without an exponent where that is short.
pub(super) fn short(x: f64) -> String {
    let magnitude = x.abs();
    if magnitude == 0.0 {
        return "0".into();
    }
    if !(1e-3..1e4).contains(&magnitude) {
        return format!("{x:.0e}");
    }
    let decimals = (2 - magnitude.log10().floor() as i32).max(0) as usize;
    let text = format!("{x:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ticks_are_round() {
        assert_eq!([0.0, 0.5, 12.345, 1234.6, 1e-9, -0.25].map(short), ["0", "0.5", "12.3", "1235", "1e-9", "-0.25"]);
        assert_eq!(ticks(0.0, 8.0, 4), [0.0, 2.0, 4.0, 6.0, 8.0]);
        assert_eq!(ticks(0.3, 1.1, 4), [0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(log_ticks(0.02, 3000.0), [0.1, 1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(log_ticks(0.9, 30.0), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(log_ticks(2.1, 4.2), [3.0, 4.0]);
        assert!(log_ticks(1e-300, 1e300).len() < 9);
        assert!(ticks(1e300, 1e300, 5).len() <= 50 && log_ticks(1e300, f64::INFINITY).len() < 50);
        assert_eq!((colour(SEQUENTIAL, 0.0), colour(SEQUENTIAL, 7.0)), ("#440154".into(), "#fde725".into()));
        assert_eq!((ink_on(SEQUENTIAL, 0.0), ink_on(SEQUENTIAL, 1.0)), ("#ffffff", "#000000"));
    }
}
