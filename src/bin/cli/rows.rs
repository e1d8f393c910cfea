//! The flags that say how rows and prompts become text, for the verbs that do not train.

use std::path::Path;

use clap::Args;
use weblora::Result;
use weblora::gpu::clock;
use weblora::text::{ChatOptions, DataOptions, Date, templates};

use super::files;

/// Which chat template, and its date.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Chat template: a Jinja file, or chatml, llama3, mistral, gemma or alpaca [default: the adapter's, else the model's own].
    #[arg(long, value_name = "FILE|NAME")]
    chat_template: Option<String>,
    /// The day that chat templates take for today [default: today].
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<Date>,
}

impl ChatArgs {
    /// What the flags say, where they say nothing what `adapter` was trained with, and today.
    pub fn options(&self, adapter: &ChatOptions) -> Result<ChatOptions> {
        let given = self.chat_template.as_deref().map(template).transpose()?;
        let date = self.date.or(adapter.date).unwrap_or_else(|| Date::of_unix_time(clock::unix_seconds()));
        Ok(ChatOptions { template: given.or_else(|| adapter.template.clone()), date: Some(date) })
    }
}

/// How rows become text.
#[derive(Debug, Args)]
pub struct RowArgs {
    /// How rows become text: auto, plain, chat or alpaca.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    format: String,
    #[command(flatten)]
    chat: ChatArgs,
    /// Write words of the assistant that the chat template leaves out, such as reasoning.
    #[arg(long)]
    keep_reasoning: bool,
    /// Read control tokens in prompts and completions; text rows always do, messages never.
    #[arg(long)]
    parse_special: bool,
    /// Train on prompts too.
    #[arg(long)]
    train_on_prompt: bool,
}

impl RowArgs {
    /// Whether a chat template is given.
    pub fn gives_template(&self) -> bool {
        self.chat.chat_template.is_some()
    }

    /// As the library takes it, for rows of at most `context` tokens; `adapter` as for [`ChatArgs::options`].
    pub fn options(&self, context: usize, adapter: &ChatOptions) -> Result<DataOptions> {
        Ok(DataOptions {
            format: self.format.parse()?,
            chat: self.chat.options(adapter)?,
            keep_reasoning: self.keep_reasoning,
            train_on_prompt: self.train_on_prompt,
            parse_special: self.parse_special,
            ..DataOptions::new(context)
        })
    }
}

/// A template as settings hold it: a built-in one by its name, any other as its text, which may come from a file.
pub fn template(given: &str) -> Result<String> {
    let path = Path::new(given);
    if !templates::NAMES.contains(&given) && !given.contains(['{', '\n']) && path.exists() {
        return files::read_text(path);
    }
    templates::source(given).map(|_| given.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_a_name_a_file_or_its_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("chat.jinja");
        std::fs::write(&path, "{{ messages }}").expect("written");
        assert_eq!(template(&path.display().to_string()).expect("a file"), "{{ messages }}");
        assert_eq!(template("chatml").expect("a name"), "chatml");
        assert_eq!(template("{{ x }}").expect("Jinja"), "{{ x }}");
        let error = template("no-such-file.jinja").expect_err("neither").to_string();
        assert!(error.contains("no-such-file.jinja") && error.contains("chatml"), "{error}");
    }
}
