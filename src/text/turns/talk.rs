//! A conversation that is rendered in parts, and where its messages come to lie.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::super::chat::{ChatTemplate, NAME};
use super::super::jinja::Output;
use super::marks::{PLACE, VERBATIM, around, content, fill_in, mark};
use crate::{Error, Result};

/// A conversation to be rendered in parts.
pub(super) struct Talk<'a> {
    pub(super) template: &'a ChatTemplate,
    /// With marks in place of the words that the template is not to see.
    pub(super) messages: Vec<Value>,
    pub(super) tools: Option<&'a Value>,
    pub(super) verbatim: &'a BTreeMap<usize, String>,
    /// The work of all renderings, in steps of templates.
    work: Cell<u64>,
}

/// Most work that may go into looking for turns: some seconds.
const WORK: u64 = 40_000_000;
/// What a rendering that fails counts, since it may have taken long.
const FAILED: u64 = 1_000_000;
/// Bytes of messages and text that are copied in the time of a step.
const COPIED: usize = 64;

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
        Ok(Self { template, messages, tools, verbatim, work: Cell::new(0) })
    }

    /// Whether all the work is done that may be.
    pub(super) fn is_spent(&self) -> bool {
        self.work.get() > WORK
    }

    /// Renders messages like these; the work counts.
    pub(super) fn output(&self, messages: &[Value], prompt: bool) -> Result<Output> {
        let output = self.template.render_marked(messages, self.tools, prompt);
        let copied = messages.iter().map(|message| content(message).len() + COPIED).sum::<usize>();
        let (steps, written) = output.as_ref().map_or((FAILED, 0), |output| (output.steps, output.text.len()));
        self.work.set(self.work.get().saturating_add(steps).saturating_add(((copied + written) / COPIED) as u64));
        output
    }

    /// The text of the first `n` messages, with or without the generation prompt.
    pub(super) fn render(&self, n: usize, prompt: bool) -> Result<String> {
        Ok(self.render_marked(n, prompt)?.0)
    }

    pub(super) fn render_marked(&self, n: usize, prompt: bool) -> Result<(String, Vec<Range<usize>>)> {
        let output = self.output(&self.messages[..n], prompt)?;
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
        let output = self.output(&messages, prompt).ok()?;
        let (text, found, _) = fill_in(&output.text, PLACE, |i| (i < n).then(|| self.words(i)), &[])?;
        if text != rendered {
            return None;
        }
        Some(in_order(found, n))
    }

    /// Where the contents begin, or end, in the text of all messages, found by marks beside them, which a template that looks at contents, or takes a
    /// part of them, may leave alone; `None` for those that are not found.
    pub(super) fn edges(&self, whole: &str, ends: bool) -> Vec<Option<usize>> {
        let marked = |empty: bool| {
            let mut messages = self.messages.clone();
            for (i, message) in messages.iter_mut().enumerate() {
                let Some(text) = message["content"].as_str().filter(|text| empty || !text.trim().is_empty()) else { continue };
                let mark = mark(PLACE, i);
                let inner = text.trim();
                let both = if ends { format!("{inner}{mark}") } else { format!("{mark}{inner}") };
                message["content"] = around(text, &both).into();
            }
            let output = self.output(&messages, false).ok()?;
            let (text, found, _) = fill_in(&output.text, PLACE, |i| (i < messages.len()).then_some(""), &[])?;
            (text == whole).then(|| in_order(found, messages.len()))
        };
        let found = if self.verbatim.is_empty() { marked(true).or_else(|| marked(false)) } else { None };
        found.map_or_else(|| vec![None; self.messages.len()], |found| found.into_iter().map(|place| Some(place?.start)).collect())
    }
}

/// The place of each of `n` contents.
fn in_order(found: Vec<(usize, Range<usize>)>, n: usize) -> Vec<Option<Range<usize>>> {
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
    places
}
