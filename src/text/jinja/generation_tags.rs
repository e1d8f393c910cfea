//! Hugging Face's `{% generation %} … {% endgeneration %}`, with which a chat template itself says what the model wrote.
//!
//! The Jinja engine here has no tags of one's own, so the two tags are rewritten, before the template is compiled, to blocks that
//! print a marker and that trim the white space around them exactly as the tags would. The markers are Unicode noncharacters,
//! which text for interchange never contains.

use std::ops::Range;

/// Printed where the model's words begin.
pub(super) const BEGIN: char = '\u{FDD0}';
/// Printed where the model's words end.
pub(super) const END: char = '\u{FDD1}';

/// The template with its generation tags rewritten, or `None` when it has none.
pub(super) fn rewrite(template: &str) -> Option<String> {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    let mut found = false;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        match parse_tag(tag) {
            Some((left, marker, right, length)) => {
                found = true;
                out.push_str(&format!("{{%{left} if true %}}{marker}{{% endif {right}%}}"));
                rest = &tag[length..];
            }
            None => {
                out.push_str("{%");
                rest = &tag[2..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Reads a generation tag at the start of `text`: its left and right trim signs, its marker, and its length in bytes.
fn parse_tag(text: &str) -> Option<(&str, char, &str, usize)> {
    let end = text.find("%}")?;
    let mut inner = &text[2..end];
    let mut left = "";
    let mut right = "";
    if inner.starts_with(['-', '+']) {
        (left, inner) = inner.split_at(1);
    }
    if inner.ends_with(['-', '+']) {
        (inner, right) = inner.split_at(inner.len() - 1);
    }
    let marker = match inner.trim() {
        "generation" => BEGIN,
        "endgeneration" => END,
        _ => return None,
    };
    Some((left, marker, right, end + 2))
}

/// Takes the markers out of rendered text and returns the byte ranges between them.
pub(super) fn take_marks(marked: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(marked.len());
    let mut spans = Vec::new();
    let mut begin = None;
    for c in marked.chars() {
        match c {
            BEGIN => begin = Some(text.len()),
            END => spans.extend(begin.take().map(|start| start..text.len()).filter(|span| !span.is_empty())),
            _ => text.push(c),
        }
    }
    (text, spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_marked_blocks_and_other_tags_stay() {
        let rewritten = rewrite("{% if x %}{%- generation -%} a {% endgeneration %}\n{% endif %}").expect("there are tags");
        assert_eq!(rewritten, "{% if x %}{%- if true %}\u{FDD0}{% endif -%} a {% if true %}\u{FDD1}{% endif %}\n{% endif %}");
        assert_eq!(rewrite("{% if generation %}{% endif %}{% unclosed"), None);
    }

    #[test]
    fn marks_become_ranges_of_the_clean_text() {
        let (text, spans) = take_marks("é\u{FDD0}hi\u{FDD1}!\u{FDD0}\u{FDD1}");
        assert_eq!((text.as_str(), spans.len(), spans[0].clone()), ("éhi!", 1, 2..4));
    }
}
