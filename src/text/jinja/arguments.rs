//! Arguments of a call, bound to parameters as Python binds them.

use super::ast::Name;
use super::limits::{Res, fault};
use super::value::Value;

/// The arguments that a call gives.
#[derive(Default, Clone)]
pub(super) struct Given {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Name, Value)>,
}

impl Given {
    pub(super) fn of(positional: Vec<Value>) -> Self {
        Self { positional, named: Vec::new() }
    }

    /// One value for each parameter, if given; an argument that is none of them is an error.
    pub(super) fn bind<const N: usize>(self, function: &str, parameters: [&str; N]) -> Res<[Option<Value>; N]> {
        if self.positional.len() > N {
            return Err(fault(format!("{function} takes at most {N} arguments, {} are given", self.positional.len())));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            let Some(at) = parameters.iter().position(|parameter| **parameter == *name) else {
                return Err(fault(format!("{function} has no argument {name:?}")));
            };
            if bound[at].replace(value).is_some() {
                return Err(fault(format!("{function} is given {name:?} twice")));
            }
        }
        Ok(bound)
    }

    /// As [`Self::bind`], for functions that need exactly these.
    pub(super) fn exactly<const N: usize>(self, function: &str, parameters: [&str; N]) -> Res<[Value; N]> {
        let mut bound = self.bind(function, parameters)?;
        if let Some(at) = bound.iter().position(Option::is_none) {
            return Err(fault(format!("{function} needs the argument {:?}", parameters[at])));
        }
        Ok(std::array::from_fn(|at| bound[at].take().unwrap_or(Value::None)))
    }
}

/// A count or width argument: the default when it is not given.
pub(super) fn int_or(value: Option<&Value>, default: i128) -> Res<i128> {
    match value {
        None => Ok(default),
        Some(value) => value.as_int().ok_or_else(|| fault(format!("expected a whole number, found a {}", value.type_name()))),
    }
}
