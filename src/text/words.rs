//! What a chat template leaves out of a turn: reasoning before `</think>`, tool calls.

use serde_json::Value;

use super::messages::REASONING;

/// Something of a turn that is not in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lost {
    /// This word of its content or its reasoning.
    Word(String),
    /// The call of this tool.
    Call(String),
}

/// The first thing that `message` says and `text` lacks. White space does not count, since templates trim; words must stand in order.
pub(super) fn first_lost(text: &str, message: &Value) -> Option<Lost> {
    let spoken = std::iter::once("content").chain(REASONING.iter().copied()).filter_map(|key| message[key].as_str());
    for said in spoken {
        let mut at = 0;
        for word in said.split_whitespace() {
            match text[at..].find(word) {
                Some(found) => at += found + word.len(),
                None => return Some(Lost::Word(word.to_owned())),
            }
        }
    }
    // `function_call` is what OpenAI called the only call of a turn before there were several.
    let calls = message["tool_calls"].as_array().into_iter().flatten().chain([&message["function_call"]]);
    let mut names = calls.filter_map(|call| call["function"]["name"].as_str().or_else(|| call["name"].as_str()));
    names.find(|name| !text.contains(*name)).map(|name| Lost::Call(name.to_owned()))
}

/// All the words of a turn, the reasoning first, in the spelling that reasoning models use.
pub(super) fn all_words(message: &Value) -> String {
    let content = message["content"].as_str().unwrap_or_default().trim();
    match REASONING.iter().find_map(|key| message[*key].as_str()).map(str::trim) {
        Some(reasoning) if !reasoning.is_empty() && !content.contains(reasoning) => format!("<think>\n{reasoning}\n</think>\n\n{content}"),
        _ => content.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lost_words_are_found_and_white_space_does_not_count() {
        let message = json!({"content": "<think>\nadd\n</think>\n\nIt is 4.", "tool_calls": [{"function": {"name": "sum"}}]});
        assert_eq!(first_lost("It is 4.", &message), Some(Lost::Word("<think>".into())));
        assert_eq!(first_lost("<think> add </think>It is  4.", &message), Some(Lost::Call("sum".into())));
        assert_eq!(first_lost("<think> add </think>It is  4.[sum]", &message), None);
        let older = json!({"content": "", "function_call": {"name": "sum", "arguments": "{}"}});
        assert_eq!(first_lost("", &older), Some(Lost::Call("sum".into())));
        assert_eq!(first_lost("b a", &json!({"content": "a b"})), Some(Lost::Word("b".into())), "the order counts");
        assert_eq!(first_lost("a", &json!({"content": "a", "reasoning_content": "why"})), Some(Lost::Word("why".into())));
    }

    #[test]
    fn reasoning_beside_the_content_comes_first() {
        assert_eq!(all_words(&json!({"content": " a ", "reasoning": "why\n"})), "<think>\nwhy\n</think>\n\na");
        assert_eq!(all_words(&json!({"content": "<think>why</think>a", "thinking": "why"})), "<think>why</think>a");
    }
}
