//! How the time of attention grows with the row.

use super::page::Page;
use super::panels::{LinePanel, Series, legend};
use super::scale::DISTINCT;

/// A line: its name, and the milliseconds of rows of so many tokens.
pub type Line = (String, Vec<(usize, f64)>);

/// Lines of time by length on two logarithmic axes, a panel for each of `panels`, which have titles. Lines of one name have one colour.
pub fn attention(title: &str, panels: &[(String, Vec<Line>)]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in panels.iter().flat_map(|(_, lines)| lines) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let colour = |name: &str| DISTINCT[names.iter().position(|known| *known == name).unwrap_or(0) % DISTINCT.len()];
    let mut page = Page::new(panels.len(), 3, (290.0, 260.0), title, "forward and backward; 10 is 1024 tokens, 13 is 8192");
    for (i, (title, lines)) in panels.iter().enumerate() {
        let series = |(name, points): &Line| Series {
            name: name.clone(),
            colour: colour(name).to_owned(),
            dashed: false,
            points: points.iter().map(|(tokens, ms)| ((*tokens as f64).log2(), *ms)).collect(),
        };
        let panel = LinePanel {
            title: title.clone(),
            x_label: "tokens, as a power of two",
            y_label: "milliseconds",
            series: lines.iter().map(series).collect(),
            log_y: true,
            y_range: None,
            dots: true,
        };
        panel.draw(page.place(i), &mut page.canvas);
    }
    let entries: Vec<(&str, &str, bool)> = names.iter().map(|name| (*name, colour(name), false)).collect();
    legend(&mut page.canvas, page.legend, &entries);
    page.canvas.finish(title, "Line charts of time by length on two logarithmic axes, one line for each form of attention.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_name_have_one_colour() {
        let line = |name: &str| (name.to_owned(), vec![(512, 1.0), (1024, 2.0)]);
        let picture = attention("time", &[("a".into(), vec![line("full"), line("groups")]), ("b".into(), vec![line("groups")])]);
        assert_eq!((picture.matches(DISTINCT[0]).count(), picture.matches("<polyline").count()), (4, 5), "{picture}");
    }
}
