//! A page of SVG: shapes and text, a style that follows the reader's light or dark setting, and a title for those who do not see it.

use std::fmt::Write as _;

/// Colours of paper, ink, faint ink and grid; viewers without media queries show the first. A page that takes a picture in drops this and gives
/// the classes colours of its own, so nothing else may be styled here or in `style` attributes.
const STYLE: &str = "\
.paper{fill:#ffffff}.ink{fill:#1f2328}.faint{fill:#59636e}.axis{stroke:#59636e;fill:none}.grid{stroke:#d1d9e0;fill:none}.empty{fill:#eef1f4}\
@media(prefers-color-scheme:dark){.paper{fill:#0d1117}.ink{fill:#e6edf3}.faint{fill:#9198a1}.axis{stroke:#9198a1}.grid{stroke:#30363d}\
.empty{fill:#1c2128}}";

const FONT: &str = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif";

/// Where a text is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A page that is being drawn on.
pub(super) struct Canvas {
    width: f64,
    height: f64,
    body: String,
}

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    fn put(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        writeln!(self.body, "{element}").ok();
    }

    /// A filled rectangle; `fill` is a colour.
    pub(super) fn cell(&mut self, (x, y, w, h): (f64, f64, f64, f64), fill: &str, tip: &str) {
        let tip = escape(tip);
        self.put(format_args!(r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" fill="{fill}"><title>{tip}</title></rect>"#));
    }

    /// A rectangle in a colour of the style.
    pub(super) fn rect(&mut self, (x, y, w, h): (f64, f64, f64, f64), class: &str) {
        self.put(format_args!(r#"<rect x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}" class="{class}"/>"#));
    }

    /// A straight line in a colour of the style.
    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        self.put(format_args!(r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" class="{class}"/>"#, from.0, from.1, to.0, to.1));
    }

    /// A line through points, with a dot on each when `dots` is set.
    pub(super) fn path(&mut self, points: &[(f64, f64)], colour: &str, dashed: bool, dots: bool, tip: &str) {
        let list: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let (dash, tip) = (if dashed { r#" stroke-dasharray="5 4""# } else { "" }, escape(tip));
        self.put(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}><title>{tip}</title></polyline>"#,
            list.join(" ")
        ));
        for (x, y) in points.iter().filter(|_| dots) {
            self.put(format_args!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="2.5" fill="{colour}"/>"#));
        }
    }

    /// A text whose baseline is at `(x, y)`, in a class of the style.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let anchor = ["start", "middle", "end"][anchor as usize];
        self.put(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" class="{class}">{}</text>"#, escape(text)));
    }

    /// A heading, larger than other text.
    pub(super) fn heading(&mut self, (x, y): (f64, f64), size: u32, text: &str) {
        let text = escape(text);
        self.put(format_args!(r#"<text x="{x:.1}" y="{y:.1}" class="ink" font-size="{size}" font-weight="600">{text}</text>"#));
    }

    /// A small text inside a coloured cell.
    pub(super) fn in_cell(&mut self, (x, y): (f64, f64), colour: &str, text: &str) {
        self.put(format_args!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" fill="{colour}" font-size="9">{text}</text>"#));
    }

    /// A text that reads upwards, its middle at `(x, y)`.
    pub(super) fn upwards(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escape(text);
        self.put(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" class="faint" transform="rotate(-90 {x:.1} {y:.1})">{text}</text>"#
        ));
    }

    /// The whole file.
    pub(super) fn finish(self, title: &str, description: &str) -> String {
        let Self { width, height, body } = self;
        let (title, description) = (escape(title), escape(description));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" \
             font-family=\"{FONT}\" font-size=\"11\" role=\"img\">\n<title>{title}</title>\n<desc>{description}</desc>\n<style>{STYLE}</style>\n\
             <rect width=\"100%\" height=\"100%\" class=\"paper\"/>\n{body}</svg>\n"
        )
    }
}

/// Text as XML holds it; what XML cannot hold (control characters) becomes a blank.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
