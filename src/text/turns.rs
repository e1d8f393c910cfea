//! Where the assistant speaks in a rendered conversation.
//!
//! A template with `{% generation %}` says so itself. With any other, turn i lies between the text of the messages before it, with the
//! generation prompt, and the text of the messages up to it, where those texts are beginnings of the whole. Three things differ from that:
//!
//! - Templates that end the text only when no prompt is asked for: a turn inside ends where the continuations part.
//! - Templates that render the prompt otherwise than the whole conversation (a system text that goes into the last user message): then
//!   the text is the prompt as generation gives it, followed by the answer as the whole has it. Only the last turn can be trained so.
//! - Templates that write a turn otherwise while it is the last (with its reasoning, as Qwen3's do): a turn inside ends where the next message begins, if
//!   the prompt before it and that of the turn after it, as generation gives them, are beginnings of the whole. Where not even those are, only the last
//!   turn is certain.
//!
//! Rendering the beginning of a conversation for every turn would take a time that grows with the square of its length. So one more text is
//! rendered, with marks for contents, and turns whose surroundings are spelled alike are rendered once. Where each is spelled otherwise, the work has a
//! bound, behind which only the last turn is found.

mod finder;
mod marks;
mod talk;

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use self::finder::{Finder, Turn};
use self::marks::content;
use self::talk::Talk;
use super::chat::{ChatTemplate, NAME};
use crate::{Error, Result};

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
        // Where too much work went into it, the others are not looked for.
        let sought = |&i: &usize| Some(&i) == turns.last() || !talk.is_spent();
        let found: Vec<Option<Turn>> = turns.iter().map(|i| if sought(i) { finder.turn(*i) } else { None }).collect();
        let last_turn_only = (0..found.len()).any(|k| !is_certain(&found, k));
        let found: Vec<(usize, Turn)> = match (turns.last(), found.last()) {
            (Some(i), Some(Some(last))) if last_turn_only && is_certain(&found, found.len() - 1) => vec![(*i, last.clone())],
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

impl Talk<'_> {
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
        if agreed.is_none() && self.drops(i) {
            let spans = std::iter::once(whole.len()..whole.len()).collect();
            return Ok(Rendered { text: whole, spans, turns: vec![i], other_prompt: Vec::new(), way: Way::Whole, last_turn_only });
        }
        let at = agreed.or_else(spoken).ok_or_else(not_found)?;
        let text = format!("{prompt}{}", &whole[at..]);
        let answer = prompt.len()..text.len();
        let spans = std::iter::once(answer).collect();
        Ok(Rendered { text, spans, turns: vec![i], other_prompt: Vec::new(), way: Way::PromptThenAnswer, last_turn_only })
    }

    /// Whether the template writes nothing of what message `i` says, so that other words change nothing.
    fn drops(&self, i: usize) -> bool {
        let mut messages = self.messages[..=i].to_vec();
        let render = |messages: &[Value]| self.template.render(messages, self.tools, false).ok();
        let before = render(&messages);
        messages[i]["content"] = format!("{} weblora", content(&messages[i])).into();
        before.is_some() && before == render(&messages)
    }
}

/// Whether turn `k` is found. One that the template writes otherwise while it is the last counts where its prompt, and that of the turn after it, are
/// those of generation.
fn is_certain(found: &[Option<Turn>], k: usize) -> bool {
    let as_generated = |turn: &Option<Turn>| turn.as_ref().is_some_and(|turn| !turn.other_prompt);
    found[k].as_ref().is_some_and(|turn| !turn.rewritten || (!turn.other_prompt && found.get(k + 1).is_none_or(as_generated)))
}
