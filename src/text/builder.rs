//! Rows to examples, one after the other.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

use super::alpaca::alpaca_prompt;
use super::chat::ChatTemplate;
use super::content::{Content, Row};
use super::data_options::{DataOptions, Format, Overlong};
use super::example::Example;
use super::messages::{Conversation, REASONING};
use super::report::DataReport;
use super::row_error::data;
use super::templates;
use super::tokenizer::{EncodeOptions, Tokenizer};
use super::turns::{Rendered, Way};
use super::words::{Lost, all_words, first_lost, unwritten};
use crate::{Error, Result};

/// What turns rows into examples.
pub(super) struct Builder<'a> {
    file: &'a str,
    tokenizer: &'a Tokenizer,
    options: DataOptions,
    template: Option<ChatTemplate>,
    /// Control tokens that the template's source spells and the vocabulary does not have.
    unknown_tokens: Vec<String>,
    report: DataReport,
    notes: BTreeMap<usize, Vec<String>>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(file: &'a str, rows: &[Row], tokenizer: &'a Tokenizer, options: DataOptions) -> Result<Self> {
        if options.context < 2 {
            return Err(Error::config("seq", format!("{} leaves nothing to predict", options.context), "use at least 2"));
        }
        let chat = match options.format {
            Format::Chat => true,
            Format::Auto => rows.iter().any(|row| row.content.is_conversation()),
            Format::Plain | Format::Alpaca => false,
        };
        let mut report = DataReport::default();
        let spelled = tokenizer.stop_ids().iter().filter_map(|&id| tokenizer.token_text(id));
        report.stops = spelled.collect::<Vec<_>>().join(" ");
        let template = if chat { Some(ChatTemplate::with(tokenizer, &options.chat)?) } else { None };
        let source = options.chat.source(tokenizer)?.filter(|_| chat).unwrap_or_default();
        let unknown = templates::control_tokens(source).into_iter().filter(|token| tokenizer.token_id(token).is_none());
        let unknown_tokens = unknown.map(str::to_owned).collect();
        Ok(Self { file, tokenizer, options, template, unknown_tokens, report, notes: BTreeMap::new() })
    }

    /// What was done to all rows, and to single ones.
    pub(super) fn finish(self) -> (DataReport, BTreeMap<usize, Vec<String>>) {
        (self.report, self.notes)
    }

    /// The example of a row, cut to the context; `None` when nothing of it is a target.
    pub(super) fn example(&mut self, row: &Row) -> Result<Option<Example>> {
        let mut example = match &row.content {
            Content::Preference { chosen, rejected } => {
                let rejected = self.tokens(row.number, rejected)?;
                Example { rejected: Some(Box::new(rejected)), ..self.tokens(row.number, chosen)? }
            }
            content => self.tokens(row.number, content)?,
        };
        self.report.rows += 1;
        if let Some(key) = row.unread {
            self.report.unread_system.entry(key).or_insert(row.number);
        }
        for key in &row.look_alikes {
            self.report.look_alikes.entry(key.clone()).or_insert(row.number);
        }
        self.fit(&mut example)?;
        if let Some(rejected) = &mut example.rejected {
            self.fit(rejected)?;
        }
        if example.documents().any(|document| document.n_targets() == 0) {
            self.report.dropped += 1;
            return Ok(None);
        }
        let stops = self.tokenizer.stop_ids();
        let ended = example.tokens.iter().zip(&example.targets).any(|(id, &target)| target && stops.contains(id));
        self.report.ended += usize::from(ended);
        for document in example.documents() {
            self.report.tokens += document.tokens.len();
            self.report.targets += document.n_targets();
        }
        self.report.longest = self.report.longest.max(example.longest());
        Ok(Some(example))
    }

    pub(super) fn fit(&mut self, example: &mut Example) -> Result<()> {
        let context = self.options.context;
        if example.tokens.len() > context {
            if self.options.overlong == Overlong::Refuse {
                let problem = format!("the row has {} tokens but the context is {context}", example.tokens.len());
                return Err(data(self.file, example.row, problem, "raise --seq or shorten the row"));
            }
            self.report.truncated += 1;
            example.tokens.truncate(context);
            example.targets.truncate(context);
        }
        Ok(())
    }

    /// All tokens of row `number` with their mask.
    pub(super) fn tokens(&mut self, number: usize, content: &Content) -> Result<Example> {
        let parse = self.options.parse_special;
        let mut example = match (content, self.options.format) {
            (Content::Text(text), Format::Auto | Format::Plain) => self.plain(number, "", text, true)?,
            (Content::Completion { prompt, completion, .. }, Format::Auto | Format::Plain) => {
                self.plain(number, prompt, completion, parse)?
            }
            (Content::Instruction { instruction, input, output }, Format::Auto | Format::Alpaca) => {
                self.plain(number, &alpaca_prompt(instruction, input), output, parse)?
            }
            (Content::Messages(talk), Format::Auto | Format::Chat) => self.chat(number, talk)?,
            // Plain prompts and completions carry the space or line break between them; a template brings its own.
            (Content::Completion { prompt, completion, .. }, Format::Chat) => {
                self.chat(number, &Conversation::exchange(prompt.trim(), completion.trim()))?
            }
            (Content::Instruction { instruction, input, output }, Format::Chat) => {
                let prompt = if input.is_empty() { instruction.clone() } else { format!("{instruction}\n\n{input}") };
                self.chat(number, &Conversation::exchange(prompt.trim(), output.trim()))?
            }
            (content, format) => {
                let problem = format!("a {} row does not fit --format {}", content.shape(), format!("{format:?}").to_lowercase());
                let hint = match content {
                    Content::Messages(_) => "use --format auto, with --chat-template NAME where the model has no chat template",
                    _ => "use --format auto",
                };
                return Err(data(self.file, number, problem, hint));
            }
        };
        if let Some(first) = example.targets.first_mut() {
            *first = false;
        }
        Ok(example)
    }

    fn plain(&mut self, row: usize, prompt: &str, completion: &str, parse_special: bool) -> Result<Example> {
        let tokenizer = self.tokenizer;
        let Some(eos) = tokenizer.eos() else {
            let problem = "the tokenizer names no end-of-sequence token, with which a trained row must end";
            return Err(Error::format("tokenizer", problem, "add the model's tokenizer_config.json"));
        };
        if tokenizer.mentions_special(prompt) || tokenizer.mentions_special(completion) {
            let count = if parse_special { &mut self.report.with_control_tokens } else { &mut self.report.with_control_text };
            *count += 1;
        }
        let options = EncodeOptions { add_special: false, parse_special, continuation: false };
        let place = |e| self.at_row(row, e);
        let mut tokens = tokenizer.encode_with(prompt, options).map_err(place)?;
        // A text row has no prompt, so its text is a beginning of its own and not a continuation.
        let continuation = !prompt.is_empty();
        let answer = tokenizer.encode_with(completion, EncodeOptions { continuation, ..options }).map_err(place)?;
        // A row that begins with the spelling of the first token gets no second one.
        if tokens.first().or(answer.first()) != tokenizer.prefix().first() {
            tokens.splice(0..0, tokenizer.prefix().iter().copied());
        }
        let mut targets = vec![self.options.train_on_prompt; tokens.len()];
        // A rendered row may have its end already, with a line break after it.
        let is_blank = |id: &u32| tokenizer.token_bytes(*id).iter().all(u8::is_ascii_whitespace);
        let ended = answer.iter().rev().find(|id| !is_blank(id)).is_some_and(|last| tokenizer.stop_ids().contains(last));
        tokens.extend(answer);
        if !ended {
            tokens.push(eos);
        }
        targets.resize(tokens.len(), true);
        Ok(Example { tokens, targets, row, rejected: None })
    }

    fn chat(&mut self, row: usize, talk: &Conversation) -> Result<Example> {
        let Some(template) = &self.template else {
            return Err(data(self.file, row, "a conversation without a chat template".into(), "use --format chat"));
        };
        let at_row = |e| self.at_row(row, e);
        let talk = talk.up_to_the_last_target(self.options.train_on_prompt);
        let told = Told::new(template, &talk, self.options.keep_reasoning).map_err(at_row)?;
        let text = told.rendered.text.as_str();
        let (pieces, spells_control) = match told.masked(template, self.tokenizer).map_err(at_row)? {
            None => (self.tokenizer.encode_with_ranges(text).map_err(at_row)?, false),
            Some(masked) => (self.tokenizer.encode_masked(text, &masked).map_err(at_row)?, true),
        };
        let example = self.mask(row, &talk, &told.rendered, &pieces)?;
        self.report.with_control_text += usize::from(spells_control);
        let (written, rest) = std::mem::take(&mut self.unknown_tokens).into_iter().partition(|token| text.contains(token.as_str()));
        self.unknown_tokens = rest;
        self.report.unknown_tokens.extend::<Vec<String>>(written);
        let within = within_token(&told.rendered, &pieces);
        self.note(row, &talk, &told, &within);
        Ok(example)
    }

    /// The tokens of a rendered conversation with those of its trained turns as targets.
    fn mask(&self, row: usize, talk: &Conversation, rendered: &Rendered, pieces: &[(u32, Range<usize>)]) -> Result<Example> {
        let mut tokens: Vec<u32> = pieces.iter().map(|(id, _)| *id).collect();
        let mut targets = vec![self.options.train_on_prompt; tokens.len()];
        let stop_ids = self.tokenizer.stop_ids();
        let found = |i: &usize| rendered.turns.contains(i);
        if self.options.train_on_prompt && !(0..talk.messages.len()).filter(|i| talk.is_excluded(*i)).all(|i| found(&i)) {
            let problem = "a turn that is to be left out of training cannot be found in the rendered text".to_owned();
            return Err(data(self.file, row, problem, "leave out --train-on-prompt, or choose another --chat-template"));
        }
        for (span, &turn) in rendered.spans.iter().zip(&rendered.turns) {
            let first = pieces.partition_point(|(_, piece)| piece.end <= span.start);
            let mut end = first + pieces[first..].partition_point(|(_, piece)| piece.start < span.end);
            // A token that reaches beyond the turn is what comes after it, unless it is all there is.
            if end > first + 1 && pieces[end - 1].1.end > span.end {
                end -= 1;
            }
            if !talk.trained[turn] {
                targets[first..end].fill(false);
                continue;
            }
            // The turn ends with its end-of-turn token; the line break that templates put after it is not the assistant's.
            let stop = tokens[first..end].iter().rposition(|id| stop_ids.contains(id)).map(|at| first + at + 1);
            targets[first..stop.unwrap_or(end)].fill(true);
            let ends_text = rendered.text[span.end..].trim().is_empty();
            if ends_text && stop.is_none() && end > first {
                // The template leaves the last turn open: end it, or the model never learns to stop.
                tokens.truncate(end);
                targets.truncate(end);
                tokens.extend(self.tokenizer.eos());
                targets.resize(tokens.len(), true);
                break;
            }
        }
        Ok(Example { tokens, targets, row, rejected: None })
    }

    /// Counts what happened to a conversation, and says what is worth a look.
    fn note(&mut self, row: usize, talk: &Conversation, told: &Told, within_token: &[usize]) {
        let (report, rendered) = (&mut self.report, &told.rendered);
        let notes = self.notes.entry(row).or_default();
        let mut say = |note: &str| notes.push(note.to_owned());
        let excluded = (0..talk.messages.len()).filter(|i| talk.is_excluded(*i)).count();
        report.excluded_turns += excluded;
        if excluded > 0 {
            say(&format!("{excluded} assistant turns are context, not trained"));
        }
        match rendered.way {
            Way::Whole => {}
            Way::PromptThenAnswer => {
                report.prompt_then_answer += 1;
                say("the prompt is rendered as for generation, and the answer follows");
            }
        }
        if rendered.last_turn_only {
            report.last_turn_only += 1;
            say("only the last turn is trained");
        }
        if !told.kept.is_empty() {
            say("words that the chat template leaves out are kept");
        }
        for (turn, lost) in told.lost.iter().filter(|(turn, _)| talk.trained[*turn]) {
            let what = match lost {
                Lost::Word(word) => format!("{word:?}"),
                Lost::Key(key) => format!("the words under {key:?}"),
                Lost::Call(name) => format!("the call of {name:?}"),
                Lost::Argument(name, key) if key.is_empty() => format!("the arguments of the call of {name:?}"),
                Lost::Argument(name, key) => format!("the argument {key:?} of the call of {name:?}"),
            };
            say(&format!("the chat template does not write {what} of message {}", turn + 1));
            match lost {
                Lost::Word(_) => report.lost_words.add(row, || what),
                Lost::Call(_) | Lost::Argument(..) => report.lost_calls.add(row, || what),
                Lost::Key(key) => drop(report.unread_words.entry(key.clone()).or_insert(row)),
            }
        }
        let is_empty = |turn: usize| rendered.turns.iter().zip(&rendered.spans).all(|(own, span)| *own != turn || span.is_empty());
        for &turn in rendered.turns.iter().filter(|turn| talk.trained[**turn] && is_empty(**turn) && says_something(&talk.messages[**turn]))
        {
            report.dropped_answers.add(row, || format!("message {}", turn + 1));
        }
        let first_kept = told.kept.keys().next().copied().unwrap_or(usize::MAX);
        for (k, &turn) in rendered.turns.iter().enumerate().filter(|(_, turn)| talk.trained[**turn]) {
            // Where the words of earlier turns are kept, generation gives a prompt without them.
            if rendered.other_prompt.contains(&k) || turn > first_kept {
                report.other_prompt.add(row, || format!("message {}", turn + 1));
                say(&format!("message {} stands behind another prompt than generation gives", turn + 1));
            } else if within_token.contains(&k) {
                report.within_token.add(row, || format!("message {}", turn + 1));
                say(&format!("message {} begins within a token", turn + 1));
            }
        }
        if notes.is_empty() {
            self.notes.remove(&row);
        }
    }

    /// Says in which row something went wrong.
    fn at_row(&self, row: usize, e: Error) -> Error {
        match e {
            Error::Format { file, problem, hint } => data(self.file, row, format!("{file}: {problem}"), hint),
            other => other,
        }
    }
}

/// Those of the spans, by index, whose first token begins in the prompt before them.
fn within_token(rendered: &Rendered, pieces: &[(u32, Range<usize>)]) -> Vec<usize> {
    let begins_before = |span: &Range<usize>| {
        let first = pieces.partition_point(|(_, piece)| piece.end <= span.start);
        pieces.get(first).is_some_and(|(_, piece)| piece.start < span.start && span.start < span.end)
    };
    (0..rendered.spans.len()).filter(|k| begins_before(&rendered.spans[*k])).collect()
}

/// Whether a turn has words or calls.
fn says_something(message: &Value) -> bool {
    let words = message["content"].as_str().is_some_and(|content| !content.trim().is_empty());
    words || message.get("tool_calls").is_some() || message.get("function_call").is_some()
}

/// A conversation as the template told it.
struct Told {
    messages: Vec<Value>,
    tools: Option<Value>,
    rendered: Rendered,
    /// The words of messages that the template did not see.
    kept: BTreeMap<usize, String>,
    /// What is missing of the assistant's turns.
    lost: Vec<(usize, Lost)>,
}

impl Told {
    /// Renders a conversation; with `keep`, words that the template leaves out are written all the same.
    fn new(template: &ChatTemplate, talk: &Conversation, keep: bool) -> Result<Self> {
        let (messages, tools) = (talk.messages.clone(), talk.tools.clone());
        let rendered = template.render_with_spans(&messages, tools.as_ref())?;
        let mut told = Self { lost: Vec::new(), messages, tools, rendered, kept: BTreeMap::new() };
        told.lost = told.find_lost(template);
        if keep {
            let words = |i: usize| (i, all_words(&told.messages[i]));
            told.kept = told.lost.iter().filter(|(_, lost)| matches!(lost, Lost::Word(_))).map(|(i, _)| words(*i)).collect();
        }
        if !told.kept.is_empty() {
            for i in told.kept.keys() {
                if let Some(message) = told.messages[*i].as_object_mut() {
                    message.insert("content".into(), told.kept[i].clone().into());
                    REASONING.iter().for_each(|key| drop(message.shift_remove(*key)));
                }
            }
            told.rendered = template.render_verbatim(&told.messages, told.tools.as_ref(), &told.kept)?;
            told.lost = told.find_lost(template);
        }
        Ok(told)
    }

    /// What the text lacks of each of the assistant's turns: of each kind the first.
    fn find_lost(&self, template: &ChatTemplate) -> Vec<(usize, Lost)> {
        let Rendered { text, spans, turns, .. } = &self.rendered;
        let mut lost = Vec::new();
        let mut known = turns.iter().zip(spans).peekable();
        for (i, message) in self.messages.iter().enumerate().filter(|(_, message)| message["role"] == "assistant") {
            let mut own: Option<Range<usize>> = None;
            while let Some((_, span)) = known.next_if(|(turn, _)| **turn == i) {
                own = Some(own.map_or(span.start, |first| first.start)..span.end);
            }
            let region = own.unwrap_or(0..text.len());
            let content = message["content"].as_str().unwrap_or_default();
            let missing = first_lost(&text[region.clone()], content);
            // The prompt may hold the beginning of the words: an opened reasoning.
            let before = (region.start.saturating_sub(48)..=region.start).find(|at| text.is_char_boundary(*at));
            let with_prompt = before.unwrap_or(region.start)..region.end;
            lost.extend(missing.and_then(|_| first_lost(&text[with_prompt], content)).map(|what| (i, what)));
        }
        for (i, what) in unwritten(template, &self.messages, self.tools.as_ref(), &self.kept, text) {
            if !lost.iter().any(|(turn, known)| *turn == i && known.is_like(&what)) {
                lost.push((i, what));
            }
        }
        lost
    }

    /// The text again with every spelling of a control token in the messages replaced by as many other letters; `None` when there is none.
    ///
    /// # Errors
    /// When the template does something else with the replaced ones.
    fn masked(&self, template: &ChatTemplate, tokenizer: &Tokenizer) -> Result<Option<String>> {
        let messages: Vec<Value> = self.messages.iter().map(|message| tokenizer.mask_message(message)).collect();
        let tools = self.tools.as_ref().map(|tools| tokenizer.mask_value(tools));
        if messages == self.messages && tools == self.tools {
            return Ok(None);
        }
        let kept: BTreeMap<usize, String> =
            self.kept.keys().map(|i| (*i, messages[*i]["content"].as_str().unwrap_or_default().to_owned())).collect();
        let masked = template.render_verbatim(&messages, tools.as_ref(), &kept)?;
        if masked.text.len() != self.rendered.text.len() {
            let problem = "it does something with a control token that the messages spell";
            return Err(Error::format(super::chat::NAME, problem, "remove the spelling of the control token from the row"));
        }
        Ok(Some(masked.text))
    }
}
