//! Chat templates as Hugging Face renders them: Jinja2's sandbox with `trim_blocks`, `lstrip_blocks`, loop controls, `raise_exception`,
//! `strftime_now`, `tojson` without HTML escapes, and `{% generation %}`.
//!
//! This is an interpreter of its own, for two reasons. Templates are written for Python: they call its methods, format with `%`, and
//! print its lists and floats. And a template comes with any model file, so every step, byte and level that it takes is counted
//! (`limits.rs`), also inside operators.

mod arguments;
mod ast;
mod eval;
mod expressions;
mod filters;
mod json;
mod layout;
mod lexer;
mod limits;
mod lookup;
mod markup;
mod method_names;
mod methods;
mod operators;
mod parser;
mod print;
mod printf;
mod run;
mod sequences;
pub mod strftime;
mod tests;
mod text_methods;
mod value;

use std::ops::Range;

use serde_json::Value;

use self::ast::Ast;
use self::limits::Fault;
use self::run::Run;
pub use self::strftime::Date;
use self::value::Heap;
use crate::{Error, Result};

const NAME: &str = "chat_template";

/// A compiled template.
pub struct Template {
    ast: Ast,
    date: Option<Date>,
}

/// Rendered text, and the byte ranges of it that stood inside `{% generation %}`, in order; never empty ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The text.
    pub text: String,
    /// What the template says the model wrote.
    pub generated: Vec<Range<usize>>,
    /// How many steps it took.
    pub steps: u64,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// When it is not valid Jinja, or too long or nested too deep.
    pub fn new(source: &str) -> Result<Self> {
        let ast = parser::parse(source).map_err(|(fault, line)| failed(&fault, line))?;
        Ok(Self { ast, date: None })
    }

    /// Gives the template `strftime_now`, which is undefined otherwise. Its day is `date`, its time midnight.
    pub fn set_date(&mut self, date: Date) {
        self.date = Some(date);
    }

    /// Whether the template marks what the model wrote with `{% generation %}`.
    pub fn marks_generation(&self) -> bool {
        self.ast.marks_generation
    }

    /// Renders the template with these variables; one that is absent is undefined, one that is null is `None`.
    ///
    /// # Errors
    /// When the template refuses its variables, fails, or takes more than its limits allow.
    pub fn render(&self, variables: Vec<(&str, Value)>) -> Result<Output> {
        let heap = Heap::new(variables.iter().map(|(_, value)| size(value)).sum());
        let converted = variables.iter().map(|(name, value)| Ok(((*name).into(), heap.json_value(value)?))).collect::<limits::Res<_>>();
        let converted = converted.map_err(|fault| failed(&fault, 1))?;
        let mut run = Run::new(&self.ast, heap, self.date, converted);
        match run.block(&self.ast.body, 0) {
            Ok(_) => {
                let mut generated = run.generated;
                let fits = |range: &Range<usize>| run.out.get(range.clone()).is_some();
                generated.retain(fits);
                Ok(Output { text: run.out, generated, steps: run.heap.budget.spent() })
            }
            Err(fault) => Err(failed(&fault, run.line)),
        }
    }
}

/// About how many bytes a value takes as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(size).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 4 + size(value)).sum::<usize>() + 2,
        _ => 4,
    }
}

fn failed(fault: &Fault, line: usize) -> Error {
    let what = format!("{} (line {line} of the template)", fault.shown());
    Error::format(NAME, what, "change the row to what the template accepts, or use another format")
}
