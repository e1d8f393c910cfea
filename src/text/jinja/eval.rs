//! Evaluates expressions.

use super::arguments::Given;
use super::ast::{Arguments, Expr, Name, Suffix};
use super::limits::{Res, fault};
use super::run::Run;
use super::value::{Dict, Function, Value, equal};
use super::{lookup, methods, operators, print, strftime};

/// Longest range, as in Jinja2's sandbox.
const RANGE: usize = 100_000;

impl<'t> Run<'t> {
    pub(super) fn eval(&mut self, expr: &'t Expr, scope: usize) -> Res<Value> {
        self.heap.budget.steps(1)?;
        match expr {
            Expr::Undefined => Ok(Value::Undefined("the condition is false and there is no else".into())),
            Expr::None => Ok(Value::None),
            Expr::Bool(value) => Ok(Value::Bool(*value)),
            Expr::Int(value) => Ok(Value::Int(*value)),
            Expr::Float(value) => Ok(Value::Float(*value)),
            Expr::Str(text) => Ok(Value::Str(text.clone())),
            Expr::Name(name) => {
                Ok(self.variable(name, scope)?.unwrap_or_else(|| Value::Undefined(format!("'{name}' is undefined").into())))
            }
            other => self.deeper(|run| run.compound(other, scope)),
        }
    }

    fn compound(&mut self, expr: &'t Expr, scope: usize) -> Res<Value> {
        match expr {
            Expr::List(items) => {
                let items = self.all(items, scope)?;
                self.heap.list(items)
            }
            Expr::Tuple(items) => {
                let items = self.all(items, scope)?;
                self.heap.tuple(items)
            }
            Expr::Dict(entries) => {
                let entries: Vec<(Value, Value)> =
                    entries.iter().map(|(key, value)| Ok((self.eval(key, scope)?, self.eval(value, scope)?))).collect::<Res<_>>()?;
                self.heap.dict(entries)
            }
            Expr::If(parts) => {
                let [then, condition, otherwise] = &**parts;
                if self.eval(condition, scope)?.truth() { self.eval(then, scope) } else { self.eval(otherwise, scope) }
            }
            Expr::Not(value) => Ok(Value::Bool(!self.eval(value, scope)?.truth())),
            Expr::Negative(value) => operators::signed(&self.eval(value, scope)?, true),
            Expr::Positive(value) => operators::signed(&self.eval(value, scope)?, false),
            Expr::Chain(first, rest) => {
                let mut value = self.eval(first, scope)?;
                for (operator, operand) in rest {
                    let operand = self.eval(operand, scope)?;
                    value = operators::binary(&value, *operator, &operand, &self.heap)?;
                }
                Ok(value)
            }
            Expr::Concat(parts) => self.concat(parts, scope),
            Expr::And(operands) => self.first_that(operands, false, scope),
            Expr::Or(operands) => self.first_that(operands, true, scope),
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (comparison, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !operators::compare(&left, *comparison, &right, &self.heap)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Postfix(first, suffixes) => {
                let value = self.eval(first, scope)?;
                self.suffixes(value, suffixes, None, scope)
            }
            // Those without parts are evaluated above.
            _ => Ok(Value::None),
        }
    }

    fn all(&mut self, items: &'t [Expr], scope: usize) -> Res<Vec<Value>> {
        items.iter().map(|item| self.eval(item, scope)).collect()
    }

    fn concat(&mut self, parts: &'t [Expr], scope: usize) -> Res<Value> {
        let mut text = String::new();
        for part in parts {
            let value = self.eval(part, scope)?;
            self.heap.budget.push(&mut text, &print::text(&value, &self.heap)?)?;
        }
        Ok(Value::Str(text.into()))
    }

    /// The first operand whose truth is `wanted`, or else the last one.
    fn first_that(&mut self, operands: &'t [Expr], wanted: bool, scope: usize) -> Res<Value> {
        let mut value = Value::Bool(!wanted);
        for operand in operands {
            value = self.eval(operand, scope)?;
            if value.truth() == wanted {
                break;
            }
        }
        Ok(value)
    }

    /// Evaluates a call with one more named argument: `caller`.
    pub(super) fn call_with(&mut self, call: &'t Expr, caller: Value, scope: usize) -> Res<Value> {
        let Expr::Postfix(first, suffixes) = call else { return Err(fault("{% call %} needs a call")) };
        let value = self.eval(first, scope)?;
        self.suffixes(value, suffixes, Some(caller), scope)
    }

    /// Applies what follows a value; `caller` goes to the call at the end.
    fn suffixes(&mut self, value: Value, suffixes: &'t [Suffix], caller: Option<Value>, scope: usize) -> Res<Value> {
        let mut value = value;
        for (i, suffix) in suffixes.iter().enumerate() {
            self.heap.budget.steps(1)?;
            value = match suffix {
                Suffix::Attribute(name) => self.attribute(&value, name)?,
                Suffix::Item(key) => match (self.eval(key, scope)?, &value) {
                    (Value::Str(name), Value::Loop(_)) => self.attribute(&value, &name)?,
                    (key, _) => lookup::item(&value, &key, &self.heap)?,
                },
                Suffix::Slice(bounds) => {
                    let mut places = [None, None, None];
                    for (place, bound) in places.iter_mut().zip(&**bounds) {
                        *place = bound.as_ref().map(|bound| self.eval(bound, scope)).transpose()?;
                    }
                    lookup::slice(&value, places, &self.heap)?
                }
                Suffix::Call(arguments) => {
                    let mut given = self.arguments(arguments, scope)?;
                    if let Some(caller) = caller.clone().filter(|_| i + 1 == suffixes.len()) {
                        given.named.push(("caller".into(), caller));
                    }
                    self.call(&value, given)?
                }
                Suffix::Filter(call) => {
                    let given = self.arguments(&call.arguments, scope)?;
                    self.filter(&call.name, value, given)?
                }
                Suffix::Test { call, negated } => {
                    let given = self.arguments(&call.arguments, scope)?;
                    Value::Bool(self.test(&call.name, &value, given)? != *negated)
                }
            };
        }
        Ok(value)
    }

    pub(super) fn arguments(&mut self, arguments: &'t Arguments, scope: usize) -> Res<Given> {
        let mut given = Given { positional: self.all(&arguments.positional, scope)?, named: Vec::new() };
        for (name, value) in &arguments.named {
            let value = self.eval(value, scope)?;
            given.named.push((name.clone(), value));
        }
        if let Some(list) = &arguments.list {
            given.positional.extend(self.eval(list, scope)?.items(&self.heap)?);
        }
        if let Some(dict) = &arguments.dict {
            let Value::Dict(dict) = self.eval(dict, scope)? else { return Err(fault("the argument after ** must be a dict")) };
            for (key, value) in dict.entries() {
                let Value::Str(name) = key else { return Err(fault("names of arguments must be strings")) };
                given.named.push((name.clone(), value.clone()));
            }
        }
        Ok(given)
    }

    fn attribute(&mut self, value: &Value, name: &Name) -> Res<Value> {
        let Value::Loop(place) = value else { return lookup::attribute(value, name, &self.heap) };
        let Some(state) = self.loops.get(*place) else { return Err(fault("the loop has ended")) };
        let (at, n) = (state.at, state.items.len());
        let int = |n: usize| Ok(Value::Int(n as i128));
        match &**name {
            "index" => int(at + 1),
            "index0" => int(at),
            "revindex" => int(n - at),
            "revindex0" => int(n - at - 1),
            "first" => Ok(Value::Bool(at == 0)),
            "last" => Ok(Value::Bool(at + 1 == n)),
            "length" => int(n),
            "depth" => int(state.depth + 1),
            "depth0" => int(state.depth),
            "previtem" if at > 0 => Ok(state.items[at - 1].clone()),
            "previtem" => Ok(Value::Undefined("there is no previous item".into())),
            "nextitem" => Ok(state.items.get(at + 1).cloned().unwrap_or_else(|| Value::Undefined("there is no next item".into()))),
            "cycle" | "changed" => Ok(Value::Method(std::rc::Rc::new((value.clone(), name.clone())))),
            _ => Ok(value.missing(&format!("attribute '{name}'"))),
        }
    }

    pub(super) fn call(&mut self, callee: &Value, given: Given) -> Res<Value> {
        match callee {
            Value::Macro(place) => {
                let closure = *self.closures.get(*place).ok_or_else(|| fault("a macro that is gone"))?;
                self.deeper(|run| run.call_macro(closure, given))
            }
            Value::Function(function) => self.call_function(*function, given),
            Value::Method(method) => match &**method {
                (Value::Loop(place), name) => self.call_loop(*place, name, given),
                (value, name) => methods::call(value, name, given, &self.heap),
            },
            Value::Loop(place) => {
                let [items] = given.exactly("loop", ["iterable"])?;
                let Some(state) = self.loops.get(*place) else { return Err(fault("the loop has ended")) };
                let (code, scope, depth) = (state.code, state.scope, state.depth);
                if !code.recursive {
                    return Err(fault("a loop can be called only if it says \"recursive\""));
                }
                let text = self.deeper(|run| run.caught(|run| run.run_loop(code, items, scope, depth + 1)))?;
                Ok(Value::Str(text.into()))
            }
            Value::Joiner(separator, place) => {
                let mut counters = self.heap.counters.borrow_mut();
                let counter = counters.get_mut(*place).ok_or_else(|| fault("a joiner that is gone"))?;
                let first = std::mem::replace(counter, 1) == 0;
                Ok(Value::Str(if first { "".into() } else { separator.clone() }))
            }
            Value::Undefined(what) => Err(fault(&**what)),
            other => Err(fault(format!("'{}' object is not callable", other.type_name()))),
        }
    }

    fn call_loop(&mut self, place: usize, name: &str, given: Given) -> Res<Value> {
        let Some(state) = self.loops.get_mut(place) else { return Err(fault("the loop has ended")) };
        if name == "cycle" {
            let n = given.positional.len();
            return if n == 0 { Err(fault("no items for cycling given")) } else { Ok(given.positional[state.at % n].clone()) };
        }
        let last = state.last.take();
        let same = match &last {
            Some(last) if last.len() == given.positional.len() => {
                let mut same = true;
                for (a, b) in last.iter().zip(&given.positional) {
                    same &= equal(a, b, &self.heap)?;
                }
                same
            }
            _ => false,
        };
        if let Some(state) = self.loops.get_mut(place) {
            state.last = Some(given.positional);
        }
        Ok(Value::Bool(!same))
    }

    fn call_function(&mut self, function: Function, given: Given) -> Res<Value> {
        match function {
            Function::Range => range(given),
            Function::Dict | Function::Namespace => {
                let mut dict = Dict::default();
                for value in &given.positional {
                    for (key, value) in pairs(value, self)? {
                        dict.insert(key, value, &self.heap)?;
                    }
                }
                for (name, value) in given.named {
                    dict.insert(Value::Str(name), value, &self.heap)?;
                }
                if function == Function::Dict {
                    return Ok(Value::Dict(dict.into()));
                }
                let mut namespaces = self.heap.namespaces.borrow_mut();
                namespaces.push(dict);
                self.heap.budget.bytes(size_of::<Dict>())?;
                Ok(Value::Namespace(namespaces.len() - 1))
            }
            Function::Cycler if given.positional.is_empty() => Err(fault("at least one item has to be provided")),
            Function::Cycler => Ok(Value::Cycler(self.heap.wrap(given.positional)?, self.heap.counter()?)),
            Function::Joiner => {
                let [separator] = given.bind("joiner", ["sep"])?;
                self.heap.budget.text(separator.as_ref().and_then(Value::as_str).map_or(0, str::len))?;
                let separator = separator.map_or(Ok(", ".into()), |text| print::text(&text, &self.heap).map(Into::into))?;
                Ok(Value::Joiner(separator, self.heap.counter()?))
            }
            Function::RaiseException => {
                let [message] = given.exactly("raise_exception", ["message"])?;
                Err(fault(print::text(&message, &self.heap)?))
            }
            Function::StrftimeNow => {
                let [format] = given.exactly("strftime_now", ["format"])?;
                let format = format.as_str().ok_or_else(|| fault("strftime_now needs a format"))?;
                let date = self.date.ok_or_else(|| fault("no date is set"))?;
                self.heap.budget.text(format.len().saturating_mul(8))?;
                self.heap.str(strftime::strftime(date, format))
            }
        }
    }
}

/// What `dict` and `namespace` are made of: a dict, or pairs.
fn pairs(value: &Value, run: &Run) -> Res<Vec<(Value, Value)>> {
    if let Value::Dict(dict) = value {
        run.heap.budget.steps(dict.entries().len())?;
        return Ok(dict.entries().to_vec());
    }
    let pair = |item: Value| match item.items(&run.heap)?.as_slice() {
        [key, value] => Ok((key.clone(), value.clone())),
        _ => Err(fault("a dict is made of pairs")),
    };
    value.items(&run.heap)?.into_iter().map(pair).collect()
}

fn range(given: Given) -> Res<Value> {
    let [a, b, c] = given.bind("range", ["start", "stop", "step"])?;
    let int = |value: Value| {
        let wrong = || fault(format!("'{}' object cannot be interpreted as an integer", value.type_name()));
        value.as_int().and_then(|n| i64::try_from(n).ok()).ok_or_else(wrong)
    };
    let a = int(a.ok_or_else(|| fault("range needs a number"))?)?;
    let (start, end) = match b {
        Some(b) => (a, int(b)?),
        None => (0, a),
    };
    let step = c.map_or(Ok(1), int)?;
    if step == 0 {
        return Err(fault("range() arg 3 must not be zero"));
    }
    let range = Value::Range(start, end, step);
    if range.range_len() > RANGE {
        return Err(fault(format!("a range of {} numbers is above the limit of {RANGE}", range.range_len())));
    }
    Ok(range)
}
