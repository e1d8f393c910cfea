//! What a row of a data file holds.

use super::messages::Conversation;

/// One row, as it stands in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// 1-based line of a JSON-lines file, or 1-based place in a JSON array.
    pub number: usize,
    /// What the row holds.
    pub content: Content,
    /// Keys that are not read but look as if they were to leave something out of training, such as `training` or `lossMask`.
    pub look_alikes: Vec<String>,
    /// A key of a system text that is not read in a row of this shape, or beside another system text.
    pub unread: Option<&'static str>,
}

/// The shapes a row can have, told by its keys. A key whose value is null is absent; other keys are ignored.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// `prompt`, `completion`, and for labelled rows `choices`, of which the completion is one.
    Completion {
        /// What the model is given.
        prompt: String,
        /// What it is to write.
        completion: String,
        /// All the answers it may give; at least two.
        choices: Option<Vec<String>>,
    },
    /// `instruction`, `output`, and `input`, which may be absent or empty.
    Instruction {
        /// The task.
        instruction: String,
        /// What the task is about.
        input: String,
        /// The answer.
        output: String,
    },
    /// `messages` or `conversations`, or a `prompt` and `completion` that hold messages.
    Messages(Conversation),
    /// `text`: every token is trained.
    Text(String),
    /// `chosen` and `rejected`: two answers to one prompt, for preference training.
    Preference {
        /// The better answer with its prompt, of another shape.
        chosen: Box<Content>,
        /// The worse one with the same prompt.
        rejected: Box<Content>,
    },
}

impl Content {
    /// Whether it holds messages, of which a chat template makes text.
    pub(super) fn is_conversation(&self) -> bool {
        match self {
            Self::Messages(_) => true,
            Self::Preference { chosen, .. } => chosen.is_conversation(),
            _ => false,
        }
    }

    /// The shape's name: the keys that tell it.
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Completion { .. } => "prompt/completion",
            Self::Instruction { .. } => "instruction/output",
            Self::Messages(_) => "messages",
            Self::Text(_) => "text",
            Self::Preference { .. } => "chosen/rejected",
        }
    }
}
