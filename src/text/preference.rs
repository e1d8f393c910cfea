//! Preference rows: two answers to one prompt, of which the first is preferred, as TRL and LLaMA-Factory have them.
//!
//! | `chosen`, `rejected` | beside them | prompt |
//! |---|---|---|
//! | texts | `prompt` | the prompt |
//! | texts | `instruction`, and `input` where there is one | the Alpaca prompt |
//! | texts | nothing | what both begin with, up to the last line break or else space |
//! | messages | `prompt` as messages or a text | the prompt |
//! | messages that begin with a user or system | anything | the messages that both begin with |
//!
//! Either side is read as a row of its own would be. Turns that both sides have before they part are not trained: they say nothing of which is
//! better.

use serde_json::{Map, Value};

use super::content::Content;
use super::messages::{are_messages, begins_a_conversation};
use super::row_error::data;
use crate::{Error, Result};

/// The keys of the two answers.
pub(super) const SIDES: [&str; 2] = ["chosen", "rejected"];

/// Whether a row holds a preference.
pub(super) fn is_preference(row: &Map<String, Value>) -> bool {
    SIDES.iter().all(|side| row.contains_key(*side))
}

/// Reads both sides of a preference row with `read`, which reads an ordinary one.
///
/// # Errors
/// Those of `read`; sides of two kinds, or two equal ones.
pub(super) fn sides(
    (file, number): (&str, usize),
    row: &Map<String, Value>,
    mut read: impl FnMut(&mut Map<String, Value>) -> Result<Content>,
) -> Result<Content> {
    let [chosen, rejected] = SIDES.map(|side| &row[side]);
    let wrong = |problem: &str, hint: &'static str| -> Error { data(file, number, problem.to_owned(), hint) };
    if are_messages(chosen) != are_messages(rejected) {
        return Err(wrong("one of `chosen` and `rejected` is a list of messages, the other is none", "give both in the same way"));
    }
    let mut rows = SIDES.map(|side| as_row(row, &row[side]));
    if let [(_, true), (_, true)] = rows {
        let (Value::String(one), Value::String(other)) = (chosen, rejected) else {
            return Err(wrong("`chosen` and `rejected` without a `prompt` are no texts", "give the prompt, too"));
        };
        let prompt = shared_prompt(one, other);
        for ((row, _), text) in rows.iter_mut().zip([one, other]) {
            row.insert("prompt".into(), prompt.into());
            row.insert("completion".into(), text[prompt.len()..].into());
        }
    }
    let [(mut chosen, _), (mut rejected, _)] = rows;
    let (mut chosen, mut rejected) = (read(&mut chosen)?, read(&mut rejected)?);
    if chosen == rejected {
        return Err(wrong("`chosen` and `rejected` are the same", "remove the row: it prefers nothing"));
    }
    if let (Content::Messages(one), Content::Messages(other)) = (&mut chosen, &mut rejected) {
        let shared = one.messages.iter().zip(&other.messages).take_while(|(a, b)| a == b).count();
        for talk in [one, other] {
            talk.trained[..shared].fill(false);
            if !talk.trained.contains(&true) {
                let problem = "one of `chosen` and `rejected` has no turn of the assistant of its own";
                return Err(wrong(problem, "give each an answer that the other does not have"));
            }
        }
    }
    Ok(Content::Preference { chosen: Box::new(chosen), rejected: Box::new(rejected) })
}

/// The row that one side would be alone, and whether its prompt is missing.
fn as_row(row: &Map<String, Value>, side: &Value) -> (Map<String, Value>, bool) {
    let mut own: Map<String, Value> = row.clone();
    ["chosen", "rejected", "messages", "conversations", "text", "completion", "output"].iter().for_each(|key| drop(own.shift_remove(*key)));
    let whole = are_messages(side) && begins_a_conversation(side);
    let instruction = own.contains_key("instruction") && !are_messages(side);
    if whole {
        ["prompt", "instruction", "input"].iter().for_each(|key| drop(own.shift_remove(*key)));
        own.insert("messages".into(), side.clone());
        return (own, false);
    }
    own.insert(if instruction { "output" } else { "completion" }.into(), side.clone());
    if instruction {
        own.shift_remove("prompt");
    }
    let lacks = !instruction && !own.contains_key("prompt");
    (own, lacks)
}

/// What both texts begin with, up to where a word or line of either ends.
fn shared_prompt<'t>(one: &'t str, other: &str) -> &'t str {
    let same = one.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
    let same = (0..=same).rev().find(|at| one.is_char_boundary(*at) && other.is_char_boundary(*at)).unwrap_or(0);
    let shared = &one[..same];
    let end = shared.rfind('\n').map(|at| at + 1).or_else(|| shared.rfind(char::is_whitespace));
    // Where both parted at once after a mark such as "Assistant:", the rest of the line is the prompt's.
    let line = end.unwrap_or(0);
    match shared[line..].rfind(':') {
        Some(at) => &shared[..line + at + 1],
        None => &shared[..line],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::read_rows;

    fn read(row: &str) -> std::result::Result<(Content, Content), String> {
        match read_rows("p.jsonl", row.as_bytes()).map_err(|e| e.to_string())?.remove(0).content {
            Content::Preference { chosen, rejected } => Ok((*chosen, *rejected)),
            other => Err(format!("{other:?}")),
        }
    }

    fn completion(prompt: &str, completion: &str) -> Content {
        Content::Completion { prompt: prompt.into(), completion: completion.into(), choices: None }
    }

    #[test]
    fn texts_have_their_prompt_beside_them_or_before_them() {
        let found = read(r#"{"prompt": "2+2=", "chosen": "4", "rejected": "5", "score": 1}"#);
        assert_eq!(found, Ok((completion("2+2=", "4"), completion("2+2=", "5"))));
        let whole = r#"{"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: He?"}"#;
        let prompt = "\n\nHuman: Hi\n\nAssistant:";
        assert_eq!(read(whole), Ok((completion(prompt, " Hello."), completion(prompt, " He?"))));
        let (chosen, _) = read(r#"{"instruction": "Add", "input": "2 2", "chosen": "4", "rejected": "5"}"#).expect("read");
        assert_eq!(chosen, Content::Instruction { instruction: "Add".into(), input: "2 2".into(), output: "4".into() });
    }

    #[test]
    fn conversations_train_what_the_other_does_not_have() {
        let row = r#"{"prompt": "Hi", "messages": [], "chosen": [{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}],
            "rejected": [{"role":"user","content":"Hi"},{"role":"assistant","content":"What"}]}"#
            .replace('\n', " ");
        let (chosen, rejected) = read(&row).expect("read");
        for (side, word) in [(chosen, "Hello"), (rejected, "What")] {
            let Content::Messages(talk) = side else { panic!("messages") };
            assert_eq!((talk.trained.as_slice(), talk.messages[1]["content"].as_str()), (&[false, true][..], Some(word)));
        }
        let explicit = r#"{"prompt": [{"role":"user","content":"Hi"}], "chosen": [{"role":"assistant","content":"A"}], "rejected": [{"role":"assistant","content":"B"}]}"#;
        let (Content::Messages(one), Content::Messages(other)) = read(explicit).expect("read") else { panic!("messages") };
        assert_eq!((one.messages.len(), other.trained), (2, vec![false, true]));
    }

    #[test]
    fn what_prefers_nothing_is_refused() {
        let refused = |row: &str, word: &str| {
            let error = read(row).expect_err("refused");
            assert!(error.contains(word) && error.contains("row 1"), "{error}");
        };
        refused(r#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#, "the same");
        refused(r#"{"prompt": "a", "chosen": [{"role":"assistant","content":"A"}], "rejected": "b"}"#, "same way");
        refused(r#"{"chosen": [{"role":"assistant","content":"A"}], "rejected": [{"role":"assistant","content":"B"}]}"#, "prompt");
        let prefix = r#"{"chosen": [{"role":"user","content":"q"},{"role":"assistant","content":"A"}], "rejected": [{"role":"user","content":"q"}]}"#;
        refused(prefix, "of its own");
        refused(r#"{"prompt": "a", "chosen": "b"}"#, "`chosen`");
    }
}
