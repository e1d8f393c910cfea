//! Questions about something that stands in the middle of a long text: a pass key, one of several keys, a chain of variables, a note. What a model
//! with a longer context is measured on.

use crate::settings::one_of;
use crate::text::Tokenizer;
use crate::{Error, Result, rng};

/// What is hidden and asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One number, as in the papers on long contexts.
    Passkey,
    /// Four numbers with a name each; one of them is asked for.
    Keys,
    /// A number, and two variables after it that are told one by the other; the last one is asked for.
    Variables,
    /// A note of two words for somebody, in the words of the embedded model, which cannot tell digits apart (`scripts/embedded/language.py`).
    Note,
}

/// A question and what answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The text, which ends where the answer begins.
    pub prompt: Vec<u32>,
    /// The number, or the words, that answer it.
    pub answer: String,
}

/// Tokens that an answer may take: five digits, one each in the worst case, and what comes before them.
pub const ANSWER: usize = 8;

const FILLER: [&str; 1] = [" The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."];
const BOXES: [&str; 4] = ["red", "green", "blue", "yellow"];
const INTRODUCTION: &str = "There is something important hidden in a lot of irrelevant text. Find it and remember it.";
/// Sentences, people and words of the embedded model's language. Every word is one token of its vocabulary.
const NOTE_FILLER: [&str; 8] = [
    " The sun is warm.",
    " Birds sing in the garden.",
    " The river is slow.",
    " A dog sleeps at the door.",
    " The bread is fresh.",
    " Children play in the street.",
    " The wind is cold.",
    " The road is long.",
];
const PEOPLE: [&str; 8] = ["Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Henry"];
const WORDS: [&str; 32] = [
    "cat", "cow", "pig", "hen", "fox", "owl", "bee", "ant", "bear", "wolf", "lion", "frog", "duck", "goat", "deer", "mouse", "apple",
    "plum", "pear", "fig", "lime", "kiwi", "peach", "grape", "lemon", "mango", "melon", "cherry", "berry", "date", "olive", "banana",
];

impl Task {
    /// Names in settings.
    pub const TABLE: &'static [(&'static str, Self)] =
        &[("passkey", Self::Passkey), ("keys", Self::Keys), ("variables", Self::Variables), ("note", Self::Note)];

    /// The task of that name.
    ///
    /// # Errors
    /// An unknown one, with those there are.
    pub fn by_name(name: &str) -> Result<Self> {
        let names = || Self::TABLE.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let found = Self::TABLE.iter().find(|(known, _)| *known == name).map(|(_, task)| *task);
        found.ok_or_else(|| Error::config("retrieval", format!("is \"{name}\""), format!("give {}", one_of(&names()))))
    }

    /// The beginning of the text, and the sentences that it is filled up with, in turns.
    fn surroundings(self) -> (&'static str, &'static [&'static str]) {
        if self == Self::Note { ("It rains a little.", &NOTE_FILLER) } else { (INTRODUCTION, &FILLER) }
    }

    /// What is hidden, each with its place as a share of the text; the question; the answer. `depth` is the place of what is asked for.
    fn parts(self, depth: f64, key: &str) -> (Vec<(f64, String)>, String, String) {
        // Five digits, as most of the papers' keys have.
        let number = |i: u64| 10_000 + rng::bits(rng::fnv1a(key), i) % 90_000;
        match self {
            Self::Passkey => {
                let n = number(1);
                let hidden = format!(" The pass key is {n}. Remember it. {n} is the pass key.");
                (vec![(depth, hidden)], " What is the pass key? The pass key is".to_owned(), n.to_string())
            }
            Self::Keys => {
                // The one that is asked for, and the others at even distances.
                let asked = (rng::bits(rng::fnv1a(key), 9) % 4) as usize;
                let mut places = [0.125, 0.375, 0.625, 0.875];
                places[asked] = depth;
                let hidden = |i: usize| (places[i], format!(" The key of the {} box is {}.", BOXES[i], number(i as u64 + 1)));
                let question = format!(" What is the key of the {0} box? The key of the {0} box is", BOXES[asked]);
                ((0..4).map(hidden).collect(), question, number(asked as u64 + 1).to_string())
            }
            Self::Variables => {
                let n = number(1);
                let later = |share: f64| depth + (1.0 - depth) * share;
                let hidden = [(depth, format!(" X is {n}.")), (later(0.4), " Y is X.".to_owned()), (later(0.8), " Z is Y.".to_owned())];
                (hidden.into(), " Which number is Z? Z is".to_owned(), n.to_string())
            }
            Self::Note => {
                let draw = |i: u64, of: usize| (rng::bits(rng::fnv1a(key), i) % of as u64) as usize;
                let (who, mut left) = (PEOPLE[draw(1, PEOPLE.len())], WORDS.to_vec());
                let words = [2, 3].map(|i| left.swap_remove(draw(i, left.len()))).join(" ");
                (vec![(depth, format!(" The note for {who} says {words}."))], format!(" What does the note for {who} say?"), words)
            }
        }
    }

    /// The question of trial `trial` in at most `length` tokens, with what is asked for at `depth` of the text, from 0 to 1. The same for one seed.
    ///
    /// # Errors
    /// When not even the question itself fits; a vocabulary that cannot spell it.
    pub fn question(self, tokenizer: &Tokenizer, length: usize, depth: f64, seed: u64, trial: u64) -> Result<Question> {
        let name = Self::TABLE.iter().find(|(_, task)| *task == self).map_or("", |(name, _)| name);
        let (hidden, question, answer) = self.parts(depth, &format!("{seed}/{name}/{length}/{depth}/{trial}"));
        let (introduction, filler) = self.surroundings();
        let text = |fillers: usize| {
            let mut text = introduction.to_owned();
            for i in 0..=fillers {
                // What belongs after so many fillers, in order.
                let here = |place: f64| ((place.clamp(0.0, 1.0) * fillers as f64).round() as usize) == i;
                hidden.iter().filter(|(place, _)| here(*place)).for_each(|(_, words)| text += words);
                text += if i < fillers { filler[i % filler.len()] } else { "" };
            }
            text + &question
        };
        let tokens = |fillers: usize| tokenizer.encode(&text(fillers), false);
        let mut best = tokens(0)?;
        let bare = best.len();
        if bare > length {
            let problem = format!("{length} tokens do not hold the question, which takes {bare}");
            return Err(Error::config("window", problem, format!("give {bare} or more")));
        }
        // The most that fit, between none and one for every token, which are too many.
        let (mut low, mut high) = (0, length);
        while low + 1 < high {
            let middle = usize::midpoint(low, high);
            let found = tokens(middle)?;
            if found.len() <= length {
                (low, best) = (middle, found);
            } else {
                high = middle;
            }
        }
        Ok(Question { prompt: best, answer })
    }
}

impl Question {
    /// Whether a continuation of the prompt begins with the answer and nothing longer.
    pub fn is_answered_by(&self, text: &str) -> bool {
        text.trim_start().strip_prefix(self.answer.as_str()).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_numbers() {
        let question = Question { prompt: Vec::new(), answer: "12345".into() };
        assert!(question.is_answered_by(" 12345. And") && question.is_answered_by("12345"));
        assert!(!question.is_answered_by(" 123456") && !question.is_answered_by(" 1234") && !question.is_answered_by(" is 12345"));
        let question = Question { prompt: Vec::new(), answer: "plum fig".into() };
        assert!(question.is_answered_by(" plum fig.") && !question.is_answered_by(" plum figs") && !question.is_answered_by(" fig."));
    }

    #[test]
    fn what_is_asked_for_is_hidden_at_its_depth() {
        for (name, task) in Task::TABLE {
            for depth in [0.0, 0.3, 1.0] {
                let (hidden, question, answer) = task.parts(depth, "0/test");
                assert!((answer.len() == 5 || *task == Task::Note) && !question.contains(&answer), "{name}");
                let told: Vec<&(f64, String)> = hidden.iter().filter(|(_, words)| words.contains(&answer)).collect();
                assert!(told.len() == 1 && told[0].0 == depth, "{name} {depth}: {hidden:?}");
            }
            assert_ne!(task.parts(0.5, "0/one").2, task.parts(0.5, "0/two").2, "{name}");
        }
        let (hidden, ..) = Task::Variables.parts(0.5, "0/test");
        assert!(hidden.windows(2).all(|two| two[0].0 < two[1].0), "variables are told in order");
    }
}
