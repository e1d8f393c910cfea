//! Chat templates as Hugging Face renders them: Jinja2 with `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`,
//! `strftime_now`, Python's string and dict methods, `tojson` without HTML escapes, and `{% generation %}`.

mod generation_tags;
mod python;
pub mod strftime;

use std::ops::Range;

use minijinja::{Environment, ErrorKind};
use serde_json::Value;

use self::generation_tags::{BEGIN, END};
pub use self::strftime::Date;
use crate::{Error, Result};

const NAME: &str = "chat_template";

/// A compiled template.
pub struct Template {
    env: Environment<'static>,
    marks: bool,
}

/// Rendered text, and the byte ranges of it that stood inside `{% generation %}`, in order; never empty ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The text.
    pub text: String,
    /// What the template says the model wrote.
    pub generated: Vec<Range<usize>>,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is not valid Jinja.
    pub fn new(source: &str) -> Result<Self> {
        let mut env = Environment::new();
        env.set_trim_blocks(true);
        env.set_lstrip_blocks(true);
        env.set_formatter(python::print);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_filter("tojson", python::tojson);
        env.add_function("raise_exception", |message: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        let rewritten = generation_tags::rewrite(source);
        let marks = rewritten.is_some();
        env.add_template_owned(NAME, rewritten.unwrap_or_else(|| source.to_owned())).map_err(|e| failed(&e))?;
        Ok(Self { env, marks })
    }

    /// Gives the template `strftime_now`, which is undefined otherwise. Its day is `date`, its time midnight.
    pub fn set_date(&mut self, date: Date) {
        self.env.add_function("strftime_now", move |format: String| strftime::strftime(date, &format));
    }

    /// Whether the template marks what the model wrote with `{% generation %}`.
    pub fn marks_generation(&self) -> bool {
        self.marks
    }

    /// Renders the template with these variables; one that is absent is undefined, one that is null is `None`.
    ///
    /// # Errors
    /// When the template refuses its variables, or when they contain the two noncharacters that mark generation tags.
    pub fn render(&self, variables: Vec<(&str, Value)>) -> Result<Output> {
        let reserved = |value: &Value| value.to_string().contains([BEGIN, END]);
        if self.marks && variables.iter().any(|(_, value)| reserved(value)) {
            return Err(Error::format(NAME, "the messages contain U+FDD0 or U+FDD1", "remove these noncharacters from the row"));
        }
        let template = self.env.get_template(NAME).map_err(|e| failed(&e))?;
        let variables = variables.into_iter().map(|(name, value)| (name, minijinja::Value::from_serialize(value)));
        let marked = template.render(minijinja::Value::from_iter(variables)).map_err(|e| failed(&e))?;
        let (text, generated) = generation_tags::take_marks(&marked);
        Ok(Output { text, generated })
    }
}

fn failed(error: &minijinja::Error) -> Error {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let line = error.line().map(|line| format!(" (line {line} of the template)")).unwrap_or_default();
    Error::format(NAME, format!("{what}{line}"), "change the row to what the template accepts, or use another format")
}
