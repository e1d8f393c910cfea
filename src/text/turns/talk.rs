//! A conversation that is rendered in parts, and where its messages come to lie.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::super::chat::{ChatTemplate, NAME};
use super::marks::{PLACE, VERBATIM, around, content, fill_in, mark};
use crate::{Error, Result};

/// A conversation to be rendered in parts.
pub(super) struct Talk<'a> {
    pub(super) template: &'a ChatTemplate,
    /// With marks in place of the words that the template is not to see.
    pub(super) messages: Vec<Value>,
    pub(super) tools: Option<&'a Value>,
    pub(super) verbatim: &'a BTreeMap<usize, String>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(
        template: &'a ChatTemplate,
        messages: &[Value],
        tools: Option<&'a Value>,
        verbatim: &'a BTreeMap<usize, String>,
    ) -> Result<Self> {
        let reserved = [PLACE, VERBATIM].concat();
        let spells = |text: &str| text.contains(reserved.as_slice());
        if messages.iter().any(|message| spells(&message.to_string())) || verbatim.values().any(|words| spells(words)) {
            let hint = "remove these noncharacters from the row";
            return Err(Error::format(NAME, "the messages contain one of U+FDD2 to U+FDD5", hint));
        }
        let mut messages = messages.to_vec();
        let known = messages.len();
        for &i in verbatim.keys().filter(|i| **i < known) {
            let marked = around(content(&messages[i]), &mark(VERBATIM, i));
            messages[i]["content"] = marked.into();
        }
        Ok(Self { template, messages, tools, verbatim })
    }

    /// The text of the first `n` messages, with or without the generation prompt.
    pub(super) fn render(&self, n: usize, prompt: bool) -> Result<String> {
        Ok(self.render_marked(n, prompt)?.0)
    }

    pub(super) fn render_marked(&self, n: usize, prompt: bool) -> Result<(String, Vec<Range<usize>>)> {
        let output = self.template.render_marked(&self.messages[..n], self.tools, prompt)?;
        if self.verbatim.is_empty() {
            return Ok((output.text, output.generated));
        }
        let (text, _, moved) = fill_in(&output.text, VERBATIM, |i| self.verbatim.get(&i).map(String::as_str), &output.generated)
            .ok_or_else(|| {
                Error::format(NAME, "the template changes the words of a turn that is to be kept", "leave out --keep-reasoning")
            })?;
        Ok((text, moved))
    }

    /// What message `i` says, as it stands in the text.
    pub(super) fn words(&self, i: usize) -> &str {
        self.verbatim.get(&i).map_or_else(|| content(&self.messages[i]).trim(), String::as_str)
    }

    /// Where the contents of the first `n` messages lie in `rendered`, their text; of those that lie there unchanged. Where the template looks at
    /// contents and decides by them nothing is known, or only of the others' where it looks at the assistant's.
    pub(super) fn places(&self, n: usize, prompt: bool, rendered: &str) -> Vec<Option<Range<usize>>> {
        let all = self.places_of(n, prompt, rendered, |_| true);
        let others = || self.places_of(n, prompt, rendered, |i| self.messages[i]["role"] != "assistant" || self.verbatim.contains_key(&i));
        all.or_else(others).unwrap_or_else(|| vec![None; n])
    }

    /// The same with marks in place of those contents that are `asked` for; `None` where the marks change more than the contents.
    fn places_of(&self, n: usize, prompt: bool, rendered: &str, asked: impl Fn(usize) -> bool) -> Option<Vec<Option<Range<usize>>>> {
        let mut messages = self.messages[..n].to_vec();
        for (i, message) in messages.iter_mut().enumerate().filter(|(i, _)| asked(*i) && !self.words(*i).is_empty()) {
            let marked = around(content(message), &mark(PLACE, i));
            message["content"] = marked.into();
        }
        let output = self.template.render_marked(&messages, self.tools, prompt).ok()?;
        let (text, found, _) = fill_in(&output.text, PLACE, |i| (i < n).then(|| self.words(i)), &[])?;
        if text != rendered {
            return None;
        }
        let mut places = vec![None; n];
        let mut last = None;
        for (i, range) in found {
            // A content that stands somewhere twice, or after a later one, bounds nothing.
            if last.is_some_and(|last| i <= last) {
                places[i] = None;
                continue;
            }
            last = Some(i);
            places[i] = Some(range);
        }
        Some(places)
    }
}
