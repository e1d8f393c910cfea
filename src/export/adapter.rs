//! An adapter folder of any kind.

use super::folder::Folder;
use super::mixlora::MixLoraAdapter;
use super::mixlora::config::MixLoraConfig;
use super::peft::{Note, PeftAdapter};
use crate::config::ModelConfig;
use crate::formats::BaseId;
use crate::{Error, Result};

/// What a folder holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Adapter {
    /// Plain LoRA, which every program loads.
    Plain(PeftAdapter),
    /// Routed experts.
    Routed(MixLoraAdapter),
}

impl Adapter {
    /// Reads a folder and checks it against the model it is to be used with, or where none is given as far as that goes without.
    ///
    /// # Errors
    /// As [`PeftAdapter::read`] and [`MixLoraAdapter::read`].
    pub fn read(folder: Folder<'_>, model: Option<&ModelConfig>) -> Result<Self> {
        match (MixLoraConfig::is_one(folder.config), model) {
            (true, Some(model)) => MixLoraAdapter::read(folder, model).map(Self::Routed),
            (true, None) => MixLoraAdapter::read_alone(folder).map(Self::Routed),
            (false, Some(model)) => PeftAdapter::read(folder, model).map(Self::Plain),
            (false, None) => PeftAdapter::read_alone(folder).map(Self::Plain),
        }
    }

    /// It, as exporters take it.
    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::Plain(adapter) => Subject::Plain(adapter),
            Self::Routed(adapter) => Subject::Routed(adapter),
        }
    }

    /// What to say of an adapter that changes nothing.
    pub fn zero_problem(&self) -> Option<String> {
        match self {
            Self::Plain(adapter) => adapter.zero_problem(),
            Self::Routed(adapter) => adapter.zero_problem(),
        }
    }

    /// Our note, where there is one.
    pub fn note(&self) -> Option<&Note> {
        match self {
            Self::Plain(adapter) => adapter.note.as_ref(),
            Self::Routed(adapter) => adapter.note.as_ref(),
        }
    }

    /// As [`PeftAdapter::check_base`].
    ///
    /// # Errors
    /// When both bases are known and differ, and `strict` says that this is no warning.
    pub fn check_base(&self, name: &str, base: &BaseId, strict: bool) -> Result<Option<String>> {
        match self {
            Self::Plain(adapter) => adapter.check_base(name, base, strict),
            Self::Routed(adapter) => adapter.check_base(name, base, strict),
        }
    }
}

/// An adapter that is exported.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Plain LoRA.
    Plain(&'a PeftAdapter),
    /// Routed experts.
    Routed(&'a MixLoraAdapter),
}

impl<'a> From<&'a PeftAdapter> for Subject<'a> {
    fn from(adapter: &'a PeftAdapter) -> Self {
        Self::Plain(adapter)
    }
}

impl<'a> Subject<'a> {
    /// The plain adapter that `what` is made of; `name` is what errors call it.
    ///
    /// # Errors
    /// When it has routed experts.
    pub fn plain(self, name: &str, what: &str) -> Result<&'a PeftAdapter> {
        match self {
            Self::Plain(adapter) => Ok(adapter),
            Self::Routed(_) => Err(Error::Adapter {
                adapter: name.to_owned(),
                problem: format!(
                    "it is MixLoRA: its routers choose experts for every token, so it is no update of the weights, and {what} cannot be made of it"
                ),
                hint: "use it with generate or eval, or export it with --to mixlora or mixlora-bin",
            }),
        }
    }

    /// The routed adapter that `what` is made of.
    ///
    /// # Errors
    /// When it is plain LoRA.
    pub fn routed(self, name: &str, what: &str) -> Result<&'a MixLoraAdapter> {
        match self {
            Self::Routed(adapter) => Ok(adapter),
            Self::Plain(_) => Err(Error::Adapter {
                adapter: name.to_owned(),
                problem: format!("it is plain LoRA without routed experts, and {what} needs them"),
                hint: "export it with --to peft",
            }),
        }
    }
}
