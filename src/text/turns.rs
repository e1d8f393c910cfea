//! Where the assistant speaks in a rendered conversation.
//!
//! A template with `{% generation %}` says so itself. With any other, turn i lies between the text of the messages before it, with the
//! generation prompt, and the text of the messages up to it, where those texts are beginnings of the whole. Three things differ from that:
//!
//! - Templates that end the text only when no prompt is asked for: a turn inside ends where the continuations part.
//! - Templates that render the prompt otherwise than the whole conversation (a system text that goes into the last user message): then
//!   the text is the prompt as generation gives it, followed by the answer as the whole has it. Only the last turn can be trained so.
//! - Templates that rewrite earlier turns once they are history: only the last turn is certain.
//!
//! Rendering the beginning of a conversation for every turn would take a time that grows with the square of its length. So one more text is
//! rendered, with marks for contents, and turns whose surroundings are spelled alike are rendered once.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use serde_json::Value;

use super::chat::{ChatTemplate, NAME};
use crate::{Error, Result};

/// Around the number of a message, in place of its content. Noncharacters, which text for interchange never contains.
const PLACE: [char; 2] = ['\u{FDD2}', '\u{FDD3}'];
/// The same for words that the template is not to see.
const VERBATIM: [char; 2] = ['\u{FDD4}', '\u{FDD5}'];

/// How the text of a conversation was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Way {
    /// The template rendered the whole conversation.
    #[default]
    Whole,
    /// The template rendered the prompt, as for generation; the answer is that of the whole rendering.
    PromptThenAnswer,
}

/// A rendered conversation and the bytes of it that the assistant wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The whole text, ready for [`super::Tokenizer::encode_with_ranges`].
    pub text: String,
    /// Byte ranges of the assistant's turns, in order, end-of-turn token included.
    pub spans: Vec<Range<usize>>,
    /// The message that each span belongs to.
    pub turns: Vec<usize>,
    /// Those of the spans, by index, that stand behind another prompt than generation gives.
    pub other_prompt: Vec<usize>,
    /// How the text was made.
    pub way: Way,
    /// Earlier turns could not be found in the text, so only the last one is in `spans`.
    pub last_turn_only: bool,
}

impl ChatTemplate {
    /// The text of a conversation and where in it the assistant speaks (see [`super::turns`]).
    ///
    /// # Errors
    /// When the template refuses the conversation, when not even the last turn is found, or when the messages contain the
    /// noncharacters that are used as marks.
    pub fn render_with_spans(&self, messages: &[Value], tools: Option<&Value>) -> Result<Rendered> {
        self.render_verbatim(messages, tools, &BTreeMap::new())
    }

    /// As [`Self::render_with_spans`], with the contents of some messages, by number, replaced by words that the template does not see and
    /// so cannot change.
    ///
    /// # Errors
    /// As [`Self::render_with_spans`].
    pub fn render_verbatim(&self, messages: &[Value], tools: Option<&Value>, verbatim: &BTreeMap<usize, String>) -> Result<Rendered> {
        let talk = Talk::new(self, messages, tools, verbatim)?;
        let (whole, marked) = talk.render_marked(messages.len(), false)?;
        let turns: Vec<usize> = (0..messages.len()).filter(|&i| messages[i]["role"] == "assistant").collect();
        if self.marks_generation() {
            return talk.marked(whole, marked, turns);
        }
        let mut finder = Finder::new(&talk, whole);
        let found: Vec<Option<Turn>> = turns.iter().map(|&i| finder.turn(i)).collect();
        let last_turn_only = found.iter().any(Option::is_none);
        let found: Vec<(usize, Turn)> = match (turns.last(), found.last()) {
            (Some(i), Some(Some(last))) if last_turn_only => vec![(*i, last.clone())],
            (Some(i), _) if last_turn_only => return talk.prompt_then_answer(*i, turns.len() > 1),
            _ => turns.iter().copied().zip(found.into_iter().flatten()).collect(),
        };
        Ok(Rendered {
            text: finder.whole,
            other_prompt: (0..found.len()).filter(|&k| found[k].1.other_prompt).collect(),
            turns: found.iter().map(|(i, _)| *i).collect(),
            spans: found.into_iter().map(|(_, turn)| turn.span).collect(),
            way: Way::Whole,
            last_turn_only,
        })
    }
}

/// A conversation to be rendered in parts.
struct Talk<'a> {
    template: &'a ChatTemplate,
    /// With marks in place of the words that the template is not to see.
    messages: Vec<Value>,
    tools: Option<&'a Value>,
    verbatim: &'a BTreeMap<usize, String>,
}

impl<'a> Talk<'a> {
    fn new(
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
    fn render(&self, n: usize, prompt: bool) -> Result<String> {
        Ok(self.render_marked(n, prompt)?.0)
    }

    fn render_marked(&self, n: usize, prompt: bool) -> Result<(String, Vec<Range<usize>>)> {
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
    fn words(&self, i: usize) -> &str {
        self.verbatim.get(&i).map_or_else(|| content(&self.messages[i]).trim(), String::as_str)
    }

    /// Where the contents of the first `n` messages lie in `rendered`, their text; of those that lie there unchanged. Nothing is known
    /// where the template looks at contents and decides by them.
    fn places(&self, n: usize, prompt: bool, rendered: &str) -> Vec<Option<Range<usize>>> {
        let unknown = vec![None; n];
        let mut messages = self.messages[..n].to_vec();
        for (i, message) in messages.iter_mut().enumerate().filter(|(i, _)| !self.words(*i).is_empty()) {
            let marked = around(content(message), &mark(PLACE, i));
            message["content"] = marked.into();
        }
        let Ok(output) = self.template.render_marked(&messages, self.tools, prompt) else { return unknown };
        let Some((text, found, _)) = fill_in(&output.text, PLACE, |i| (i < n).then(|| self.words(i)), &[]) else { return unknown };
        if text != rendered {
            return unknown;
        }
        let mut places = unknown;
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

    /// The turns as the template marks them.
    fn marked(&self, text: String, spans: Vec<Range<usize>>, turns: Vec<usize>) -> Result<Rendered> {
        // One stretch a turn, or as many of each; else by where the contents are.
        let each = if turns.is_empty() { 0 } else { spans.len() / turns.len() };
        let of_span: Vec<usize> = if each > 0 && each * turns.len() == spans.len() {
            (0..spans.len()).map(|k| turns[k / each]).collect()
        } else {
            let places = self.places(self.messages.len(), false, &text);
            let holds = |span: &Range<usize>, i: usize| places[i].as_ref().is_some_and(|p| p.start < span.end && span.start < p.end);
            let mut last = turns.first().copied().unwrap_or(0);
            let mut of_span = Vec::with_capacity(spans.len());
            let mut candidates = turns.iter().copied().peekable();
            for span in &spans {
                while let Some(i) = candidates.next_if(|&i| holds(span, i) || places[i].as_ref().is_none_or(|p| p.end <= span.start)) {
                    last = i;
                }
                of_span.push(last);
            }
            of_span
        };
        let mut other_prompt = Vec::new();
        // The first and the last stretch tell; every one would take a time that grows with the square of the turns.
        for k in [Some(0), spans.len().checked_sub(1)].into_iter().flatten().filter(|&k| k < spans.len()) {
            let prompt = self.render(of_span[k], true).unwrap_or_default();
            if !text[..spans[k].end].starts_with(&prompt) && !other_prompt.contains(&k) {
                other_prompt.push(k);
            }
        }
        Ok(Rendered { text, spans, turns: of_span, other_prompt, way: Way::Whole, last_turn_only: false })
    }

    /// The prompt of turn `i` as generation gives it, then the answer as the whole rendering has it.
    fn prompt_then_answer(&self, i: usize, last_turn_only: bool) -> Result<Rendered> {
        let not_found = || {
            Error::format(
                NAME,
                "the assistant's turn cannot be found in the rendered text, because the template renders it differently within the conversation",
                "mark the turn with {% generation %} in the template, or choose another template with --chat-template",
            )
        };
        let (prompt, whole) = (self.render(i, true)?, self.render(i + 1, false)?);
        let (asked, told) = (self.places(i, true, &prompt), self.places(i + 1, false, &whole));
        // Between the last message before it and the answer both texts must say the same, up to where the prompt ends.
        let after = |places: &[Option<Range<usize>>]| i.checked_sub(1).and_then(|before| Some(places[before].as_ref()?.end));
        let agreed = after(&asked).zip(after(&told)).and_then(|(in_prompt, in_whole)| {
            whole[in_whole..].starts_with(&prompt[in_prompt..]).then_some(in_whole + prompt.len() - in_prompt)
        });
        let words = self.words(i);
        let spoken = || match &told[i] {
            Some(place) => Some(place.start),
            None => (!words.is_empty()).then(|| whole.rfind(words)).flatten(),
        };
        let at = agreed.or_else(spoken).ok_or_else(not_found)?;
        let text = format!("{prompt}{}", &whole[at..]);
        let answer = prompt.len()..text.len();
        let spans = std::iter::once(answer).collect();
        Ok(Rendered { text, spans, turns: vec![i], other_prompt: Vec::new(), way: Way::PromptThenAnswer, last_turn_only })
    }
}

/// A turn in the text.
#[derive(Clone)]
struct Turn {
    span: Range<usize>,
    other_prompt: bool,
}

/// Where a turn begins.
enum Start {
    /// After this text, which follows the content before the turn.
    After(String),
    /// With its own words; whether generation would give another prompt.
    Words(bool),
}

/// Finds turns in a whole text.
struct Finder<'a> {
    talk: &'a Talk<'a>,
    whole: String,
    places: Vec<Option<Range<usize>>>,
    /// By what stands before the turn and who speaks there.
    starts: HashMap<(String, String), Start>,
    /// By what stands after the turn and who speaks there: how much of it is the turn's.
    ends: HashMap<(String, String), usize>,
}

impl<'a> Finder<'a> {
    fn new(talk: &'a Talk<'a>, whole: String) -> Self {
        let places = talk.places(talk.messages.len(), false, &whole);
        Self { talk, whole, places, starts: HashMap::new(), ends: HashMap::new() }
    }

    /// Where message `i` lies; `None` when the beginnings of the conversation are no beginnings of its text.
    fn turn(&mut self, i: usize) -> Option<Turn> {
        let end = self.end(i)?;
        let (start, other_prompt) = self.start(i, end)?;
        Some(Turn { span: start..end, other_prompt })
    }

    fn role(&self, i: usize) -> String {
        self.talk.messages.get(i).and_then(|message| message["role"].as_str()).unwrap_or_default().to_owned()
    }

    fn end(&mut self, i: usize) -> Option<usize> {
        if i + 1 == self.talk.messages.len() {
            return Some(self.whole.len());
        }
        let gap = self.places[i].as_ref().zip(self.places[i + 1].as_ref()).map(|(own, next)| own.end..next.start);
        let Some(gap) = gap else { return self.end_rendered(i) };
        let key = (self.whole[gap.clone()].to_owned(), self.role(i + 1));
        if let Some(length) = self.ends.get(&key) {
            return Some(gap.start + length);
        }
        let end = self.end_rendered(i)?;
        if let Some(length) = end.checked_sub(gap.start).filter(|_| end <= gap.end) {
            self.ends.insert(key, length);
        }
        Some(end)
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
        let base = if i == 0 { Some(0) } else { self.places[i - 1].as_ref().map(|place| place.end) };
        let Some((base, own)) = base.zip(self.places[i].as_ref().map(|place| place.start)) else {
            return self.start_rendered(i, end, 0).map(|(start, kind)| (start, matches!(kind, Start::Words(true))));
        };
        let key = (self.whole[base..own].to_owned(), i.checked_sub(1).map(|before| self.role(before)).unwrap_or_default());
        match self.starts.get(&key) {
            Some(Start::After(tail)) if base + tail.len() <= end && self.whole[base..].starts_with(tail.as_str()) => {
                return Some((base + tail.len(), false));
            }
            Some(Start::Words(other)) => return Some((own, *other)),
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
            let known = i > 0 && self.places[i - 1].is_some();
            (known && base <= common_beginning(&before, whole)).then_some(base)?
        };
        let kind = Start::Words(!prompt.is_empty());
        if let Some(place) = self.places[i].as_ref().filter(|place| from <= place.start) {
            return Some((place.start, kind));
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

/// The content of a message where it is a text.
fn content(message: &Value) -> &str {
    message["content"].as_str().unwrap_or_default()
}

fn mark([open, close]: [char; 2], i: usize) -> String {
    format!("{open}{i}{close}")
}

/// `mark` with the white space that stands around `text`, which a template may trim.
fn around(text: &str, mark: &str) -> String {
    let inner = text.trim_start();
    let lead = &text[..text.len() - inner.len()];
    format!("{lead}{mark}{}", &inner[inner.trim_end().len()..])
}

/// How many bytes two texts have in common at their beginning, whole characters.
fn common_beginning(a: &str, b: &str) -> usize {
    let differ = |((at, x), y): &((usize, char), char)| (x != y).then_some(*at);
    let mut pairs = a.char_indices().zip(b.chars());
    pairs.find_map(|pair| differ(&pair)).unwrap_or(a.len().min(b.len()))
}

/// A text, where the words that were filled in lie by number, and ranges of before, moved along.
type Filled = (String, Vec<(usize, Range<usize>)>, Vec<Range<usize>>);

/// Replaces marks by the words of their numbers; `None` where a mark is broken or has no words.
fn fill_in<'w>(text: &str, [open, close]: [char; 2], words: impl Fn(usize) -> Option<&'w str>, ranges: &[Range<usize>]) -> Option<Filled> {
    let mut out = String::with_capacity(text.len());
    let mut found = Vec::new();
    // Where pieces of the old text begin in the new one.
    let mut shifts = vec![(0, 0)];
    let mut rest = text;
    while let Some(at) = rest.find(open) {
        out.push_str(&rest[..at]);
        let inner = &rest[at + open.len_utf8()..];
        let length = inner.find(close)?;
        let i = inner[..length].parse().ok()?;
        let start = out.len();
        out.push_str(words(i)?);
        found.push((i, start..out.len()));
        rest = &inner[length + close.len_utf8()..];
        shifts.push((text.len() - rest.len(), out.len()));
    }
    out.push_str(rest);
    let moved = |at: usize| {
        let k = shifts.partition_point(|(old, _)| *old <= at) - 1;
        let limit = shifts.get(k + 1).map_or(out.len(), |(_, new)| *new);
        (shifts[k].1 + at - shifts[k].0).min(limit)
    };
    let ranges = ranges.iter().map(|range| moved(range.start)..moved(range.end)).collect();
    Some((out, found, ranges))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_filled_in_and_ranges_move_along() {
        let text = "ab\u{FDD2}0\u{FDD3}c\u{FDD2}1\u{FDD3}";
        let whole = text.len();
        let (filled, found, ranges) = fill_in(text, PLACE, |i| ["xyz", ""].get(i).copied(), &[0..2, 2..9, 9..whole]).expect("whole");
        assert_eq!(filled, "abxyzc");
        assert_eq!(found, [(0, 2..5), (1, 6..6)]);
        assert_eq!(ranges, [0..2, 2..5, 5..6]);
        assert!(fill_in("\u{FDD2}7\u{FDD3}", PLACE, |_| None, &[]).is_none());
        assert!(fill_in("\u{FDD2}7", PLACE, |_| Some(""), &[]).is_none());
    }

    #[test]
    fn common_beginnings_are_whole_characters() {
        assert_eq!(common_beginning("aéx", "aéy"), 3);
        assert_eq!(common_beginning("aé", "aè"), 1);
        assert_eq!(common_beginning("a", "ab"), 1);
    }
}
