//! Finds the assistant's turns in a whole text.

use std::collections::HashMap;
use std::ops::Range;

use serde_json::json;

use super::marks::{PLACE, around, common_beginning, content, mark};
use super::talk::Talk;

/// A turn in the text.
#[derive(Clone)]
pub(super) struct Turn {
    pub(super) span: Range<usize>,
    pub(super) other_prompt: bool,
    /// Its end was found from the message after it, since the template writes a turn otherwise while it is the last.
    pub(super) rewritten: bool,
}

/// Where a turn begins.
enum Start {
    /// After this text, which follows the content before the turn.
    After(String),
    /// With its own words; whether generation would give another prompt.
    Words(bool),
}

/// What stands beside a turn.
#[derive(PartialEq, Eq, Hash)]
struct Surroundings {
    text: Option<String>,
    /// Who speaks there.
    role: String,
    /// Whether the template writes the contents as they are.
    verbatim: bool,
}

/// Finds turns in a whole text.
pub(super) struct Finder<'a> {
    talk: &'a Talk<'a>,
    pub(super) whole: String,
    places: Vec<Option<Range<usize>>>,
    /// Where contents begin and where they end, also where it is not known what the template made of them.
    edges: [Vec<Option<usize>>; 2],
    /// By what stands before the turn, where it is known where its content begins.
    starts: HashMap<Surroundings, Start>,
    /// By what stands after the turn: how much of it is the turn's, where that is known.
    ends: HashMap<Surroundings, Option<usize>>,
    /// What the template writes before the content of a message that follows a turn, by who speaks there and the white space that it begins with.
    heads: HashMap<(String, String), Option<String>>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(talk: &'a Talk<'a>, whole: String) -> Self {
        let places = talk.places(talk.messages.len(), false, &whole);
        let sides: [fn(&Range<usize>) -> usize; 2] = [|place| place.start, |place| place.end];
        let mut edges = sides.map(|side| places.iter().map(|place| place.as_ref().map(side)).collect::<Vec<_>>());
        if places.iter().any(Option::is_none) {
            for (ends, known) in [false, true].into_iter().zip(&mut edges) {
                known.iter_mut().zip(talk.edges(&whole, ends)).for_each(|(known, found)| *known = known.or(found));
            }
        }
        Self { talk, whole, places, edges, starts: HashMap::new(), ends: HashMap::new(), heads: HashMap::new() }
    }

    /// Where message `i` lies; `None` when the beginnings of the conversation are no beginnings of its text.
    pub(super) fn turn(&mut self, i: usize) -> Option<Turn> {
        let (end, rewritten) = match self.end(i) {
            Some(end) => (end, false),
            None => (self.end_by_next(i)?, true),
        };
        let (start, other_prompt) = self.start(i, end)?;
        Some(Turn { span: start..end, other_prompt, rewritten })
    }

    fn role(&self, i: usize) -> String {
        self.talk.messages.get(i).and_then(|message| message["role"].as_str()).unwrap_or_default().to_owned()
    }

    fn end(&mut self, i: usize) -> Option<usize> {
        if i + 1 == self.talk.messages.len() {
            return Some(self.whole.len());
        }
        let gap = self.edges[1][i].zip(self.edges[0][i + 1]).map(|(own, next)| own..next).filter(|gap| gap.start <= gap.end);
        let Some(gap) = gap else { return self.end_rendered(i) };
        let verbatim = self.places[i].is_some() && self.places[i + 1].is_some();
        let key = Surroundings { text: Some(self.whole[gap.clone()].to_owned()), role: self.role(i + 1), verbatim };
        if let Some(length) = self.ends.get(&key) {
            return length.map(|length| gap.start + length);
        }
        let end = self.end_rendered(i);
        let length = end.map(|end| end.checked_sub(gap.start).filter(|_| end <= gap.end));
        match length {
            Some(None) => {}
            known => drop(self.ends.insert(key, known.flatten())),
        }
        end
    }

    /// The end of a turn that the template writes otherwise while it is the last: where the next message begins.
    fn end_by_next(&mut self, i: usize) -> Option<usize> {
        let Some(next) = *self.edges[0].get(i + 1)? else { return self.end_by_text(i) };
        let said = content(&self.talk.messages[i + 1]);
        let key = (self.role(i + 1), said[..said.len() - said.trim_start().len()].to_owned());
        let head = match self.heads.get(&key) {
            Some(head) => head.clone(),
            None => {
                let head = self.behind_plain(i, true);
                self.heads.insert(key, head.clone());
                head
            }
        }?;
        self.whole[..next].ends_with(&head).then(|| next - head.len())
    }

    /// The same where it is not known where the content of the next message lies.
    fn end_by_text(&self, i: usize) -> Option<usize> {
        let with_next = self.talk.render(i + 2, false).ok().filter(|text| self.whole.starts_with(text.as_str()))?;
        let next = self.behind_plain(i, false)?;
        with_next.ends_with(&next).then(|| with_next.len() - next.len())
    }

    /// What the template writes for message `i + 1` behind a plain answer in place of message `i`; with `head` up to its content.
    fn behind_plain(&self, i: usize, head: bool) -> Option<String> {
        let marks = [i, i + 1].map(|i| mark(PLACE, i));
        let mut messages = self.talk.messages[..i + 2].to_vec();
        messages[i] = json!({"role": "assistant", "content": marks[0]});
        if head {
            messages[i + 1]["content"] = around(content(&messages[i + 1]), &marks[1]).into();
        }
        let render = |n: usize| Some(self.talk.output(&messages[..n], false).ok()?.text);
        let (alone, both) = (render(i + 1)?, render(i + 2)?);
        let (tail, rest) = (alone.split_once(&marks[0])?.1, both.split_once(&marks[0])?.1);
        let between = if head { rest.split_once(&marks[1])?.0 } else { rest };
        Some(between[common_beginning(tail, between)..].to_owned())
    }

    fn end_rendered(&self, i: usize) -> Option<usize> {
        let whole = self.whole.as_str();
        let alone = self.talk.render(i + 1, false).ok()?;
        if whole.starts_with(&alone) {
            return Some(alone.len());
        }
        // What ends the text ends no turn within it: the turn reaches to where the whole, the end and a further prompt part.
        let mut common = common_beginning(&alone, whole);
        if let Ok(prompted) = self.talk.render(i + 1, true) {
            common = common.min(common_beginning(&prompted, whole));
        }
        let told = match &self.places[i] {
            Some(place) => place.end <= common,
            None => {
                let before = if i == 0 { 0 } else { common_beginning(&self.talk.render(i, false).ok()?, whole) };
                let words = self.talk.words(i);
                !words.is_empty() && whole.get(before..common).is_some_and(|text| text.contains(words))
            }
        };
        told.then_some(common)
    }

    fn start(&mut self, i: usize, end: usize) -> Option<(usize, bool)> {
        let base = if i == 0 { Some(0) } else { self.edges[1][i - 1] };
        let Some(base) = base else {
            return self.start_rendered(i, end, 0).map(|(start, kind)| (start, matches!(kind, Start::Words(true))));
        };
        let own = self.edges[0][i].filter(|own| base <= *own);
        let role = i.checked_sub(1).map(|before| self.role(before)).unwrap_or_default();
        let verbatim = self.places[i].is_some() && (i == 0 || self.places[i - 1].is_some());
        let key = Surroundings { text: own.map(|own| self.whole[base..own].to_owned()), role, verbatim };
        match self.starts.get(&key) {
            Some(Start::After(tail)) if base + tail.len() <= end && self.whole[base..].starts_with(tail.as_str()) => {
                return Some((base + tail.len(), false));
            }
            Some(Start::Words(other)) if own.is_some() => return Some((own?, *other)),
            _ => {}
        }
        let (start, kind) = self.start_rendered(i, end, base)?;
        let other_prompt = matches!(kind, Start::Words(true));
        self.starts.insert(key, kind);
        Some((start, other_prompt))
    }

    /// `base` is where the content before the turn ends.
    fn start_rendered(&self, i: usize, end: usize, base: usize) -> Option<(usize, Start)> {
        let whole = self.whole.as_str();
        let prompt = self.talk.render(i, true).unwrap_or_default();
        if !prompt.is_empty() && whole.starts_with(&prompt) && prompt.len() <= end {
            let tail = whole.get(base..prompt.len()).unwrap_or_default();
            return Some((prompt.len(), Start::After(tail.to_owned())));
        }
        // The generation prompt can differ from what the whole conversation holds, and a template may refuse an empty
        // conversation: then the turn starts at its own words, after the text of the messages before it.
        let before = if i == 0 { String::new() } else { self.talk.render(i, false).ok()? };
        let from = if whole.starts_with(&before) {
            before.len()
        } else {
            let known = i > 0 && self.edges[1][i - 1].is_some();
            (known && base <= common_beginning(&before, whole)).then_some(base)?
        };
        let kind = Start::Words(!prompt.is_empty());
        if let Some(own) = self.edges[0][i].filter(|own| from <= *own) {
            return Some((own, kind));
        }
        let words = Some(self.talk.words(i)).filter(|words| !words.is_empty())?;
        if let Some(at) = whole.get(from..end)?.find(words) {
            return Some((from + at, kind));
        }
        // The template has changed the words, too: then the turn starts where the whole and the prompt part.
        let parted = common_beginning(&prompt, whole);
        (from < parted && parted < end).then_some((parted, kind))
    }
}
