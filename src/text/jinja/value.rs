//! Values of a running template: Python's, as far as templates meet them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::limits::{self, Budget, Res, fault};

#[derive(Clone)]
pub(super) enum Value {
    /// With what to say when it is used.
    Undefined(Arc<str>),
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    /// Start, end and step.
    Range(i64, i64, i64),
    /// What filters such as `map` give: true, without a length, gone over once.
    Iterator(Rc<Lazy>),
    /// By its place in [`Heap::namespaces`], so that a namespace can hold itself.
    Namespace(usize),
    /// By its place in the interpreter's list of closures.
    Macro(usize),
    /// By its place in the interpreter's list of loops.
    Loop(usize),
    Function(Function),
    Method(Rc<(Value, Arc<str>)>),
    /// Items and the place in [`Heap::counters`].
    Cycler(Rc<Items>, usize),
    Joiner(Arc<str>, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Range,
    Dict,
    Namespace,
    Cycler,
    Joiner,
    RaiseException,
    StrftimeNow,
}

/// Items and how deep they nest.
pub(super) struct Items {
    pub(super) items: Vec<Value>,
    depth: usize,
}

pub(super) struct Lazy {
    pub(super) rest: RefCell<std::vec::IntoIter<Value>>,
    depth: usize,
}

/// A dict in the order of insertion.
#[derive(Default)]
pub(super) struct Dict {
    entries: Vec<(Value, Value)>,
    /// Places of the keys that are strings.
    strings: HashMap<Arc<str>, usize>,
    depth: usize,
}

/// What values share while a template runs.
pub(super) struct Heap {
    pub(super) budget: Budget,
    pub(super) namespaces: RefCell<Vec<Dict>>,
    pub(super) counters: RefCell<Vec<usize>>,
}

impl Value {
    /// How deep lists and dicts nest in it. Namespaces count as flat, since they can hold themselves.
    fn depth(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Cycler(items, _) => items.depth,
            Self::Dict(dict) => dict.depth,
            Self::Iterator(lazy) => lazy.depth,
            Self::Method(method) => method.0.depth(),
            _ => 0,
        }
    }

    /// Python's name of the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Range(..) => "range",
            Self::Iterator(_) => "generator",
            Self::Namespace(_) => "Namespace",
            Self::Macro(_) => "Macro",
            Self::Loop(_) => "LoopContext",
            Self::Function(_) | Self::Method(_) => "function",
            Self::Cycler(..) => "Cycler",
            Self::Joiner(..) => "Joiner",
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    pub(super) fn truth(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Range(..) => self.range_len() > 0,
            _ => true,
        }
    }

    /// A number as Python's arithmetic sees it: booleans are 0 and 1.
    pub(super) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Bool(value) => Some(i128::from(*value)),
            _ => None,
        }
    }

    pub(super) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(*value),
            _ => self.as_int().map(|value| value as f64),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn range_len(&self) -> usize {
        let Self::Range(start, end, step) = *self else { return 0 };
        let (start, end, step) = (i128::from(start), i128::from(end), i128::from(step));
        let span = if step > 0 { end - start } else { start - end };
        if span <= 0 { 0 } else { usize::try_from((span - 1) / step.abs() + 1).unwrap_or(usize::MAX) }
    }

    /// Refuses what cannot be a key.
    pub(super) fn check_hashable(&self, heap: &Heap) -> Res<()> {
        heap.budget.steps(1)?;
        match self {
            Self::List(_) | Self::Dict(_) | Self::Range(..) => Err(fault(format!("unhashable type: '{}'", self.type_name()))),
            Self::Tuple(items) => items.items.iter().try_for_each(|item| item.check_hashable(heap)),
            _ => Ok(()),
        }
    }

    /// What a lookup that finds nothing gives.
    pub(super) fn missing(&self, what: &str) -> Self {
        let object = match self {
            Self::None => "None".to_owned(),
            other => format!("'{} object'", other.type_name()),
        };
        Self::Undefined(format!("{object} has no {what}").into())
    }

    /// Its length, when it has one.
    pub(super) fn length(&self, heap: &Heap) -> Res<Option<usize>> {
        Ok(Some(match self {
            Self::Undefined(_) => 0,
            Self::Str(text) => {
                heap.budget.steps(text.len() / 64)?;
                text.chars().count()
            }
            Self::List(items) | Self::Tuple(items) => items.items.len(),
            Self::Dict(dict) => dict.entries.len(),
            Self::Range(..) => self.range_len(),
            _ => return Ok(None),
        }))
    }

    /// The items that a loop goes over; `None` when it is nothing to go over.
    pub(super) fn iterate(&self, heap: &Heap) -> Res<Option<Vec<Value>>> {
        let charge = |n: usize| heap.budget.bytes(n.saturating_mul(size_of::<Value>()));
        Ok(Some(match self {
            Self::Undefined(_) => Vec::new(),
            Self::Str(text) => {
                charge(text.len().saturating_mul(2))?;
                text.chars().map(|c| Value::Str(c.to_string().into())).collect()
            }
            Self::List(items) | Self::Tuple(items) => {
                charge(items.items.len())?;
                items.items.clone()
            }
            Self::Dict(dict) => {
                charge(dict.entries.len())?;
                dict.entries.iter().map(|(key, _)| key.clone()).collect()
            }
            Self::Range(start, _, step) => {
                let n = self.range_len();
                charge(n)?;
                (0..n as i128).map(|i| Value::Int(i128::from(*start) + i * i128::from(*step))).collect()
            }
            Self::Iterator(lazy) => {
                let rest = std::mem::take(&mut *lazy.rest.borrow_mut());
                charge(rest.len())?;
                rest.collect()
            }
            _ => return Ok(None),
        }))
    }

    /// As [`Self::iterate`], an error when it is nothing to go over.
    pub(super) fn items(&self, heap: &Heap) -> Res<Vec<Value>> {
        self.iterate(heap)?.ok_or_else(|| fault(format!("'{}' object is not iterable", self.type_name())))
    }
}

impl Dict {
    pub(super) fn entries(&self) -> &[(Value, Value)] {
        &self.entries
    }

    fn place(&self, key: &Value, heap: &Heap) -> Res<Option<usize>> {
        if let Value::Str(text) = key {
            heap.budget.scan(text.len())?; // hashed as a whole
            return Ok(self.strings.get(text).copied());
        }
        if self.strings.len() == self.entries.len() {
            return Ok(None);
        }
        for (place, (own, _)) in self.entries.iter().enumerate() {
            if !matches!(own, Value::Str(_)) && equal(own, key, heap)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    pub(super) fn get(&self, key: &Value, heap: &Heap) -> Res<Option<&Value>> {
        Ok(self.place(key, heap)?.map(|place| &self.entries[place].1))
    }

    pub(super) fn get_str(&self, key: &str) -> Option<&Value> {
        self.strings.get(key).map(|&place| &self.entries[place].1)
    }

    pub(super) fn insert(&mut self, key: Value, value: Value, heap: &Heap) -> Res<()> {
        heap.budget.bytes(3 * size_of::<Value>())?;
        let depth = value.depth().max(key.depth()) + 1;
        if depth > limits::VALUE_DEPTH {
            return Err(too_deep());
        }
        key.check_hashable(heap)?;
        self.depth = self.depth.max(depth);
        if let Some(place) = self.place(&key, heap)? {
            self.entries[place].1 = value;
            return Ok(());
        }
        if let Value::Str(text) = &key {
            self.strings.insert(text.clone(), self.entries.len());
        }
        self.entries.push((key, value));
        Ok(())
    }
}

fn too_deep() -> limits::Fault {
    fault(format!("lists and dicts are nested deeper than the limit of {}", limits::VALUE_DEPTH))
}

/// `==`
pub(super) fn equal(a: &Value, b: &Value, heap: &Heap) -> Res<bool> {
    heap.budget.steps(1)?;
    Ok(match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            heap.budget.steps(a.len().min(b.len()) / 64)?;
            a == b
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => all_equal(&a.items, &b.items, heap)?,
        (Value::Range(..), Value::Range(..)) => all_equal(&a.items(heap)?, &b.items(heap)?, heap)?,
        (Value::Dict(a), Value::Dict(b)) => {
            if a.entries().len() != b.entries().len() {
                return Ok(false);
            }
            for (key, value) in a.entries() {
                match b.get(key, heap)? {
                    Some(other) if equal(value, other, heap)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
        (Value::Namespace(a), Value::Namespace(b)) | (Value::Macro(a), Value::Macro(b)) | (Value::Loop(a), Value::Loop(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => matches!((a.as_float(), b.as_float()), (Some(a), Some(b)) if a == b),
        },
    })
}

fn all_equal(a: &[Value], b: &[Value], heap: &Heap) -> Res<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !equal(a, b, heap)? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Heap {
    pub(super) fn new(input: usize) -> Self {
        Self { budget: Budget::new(input), namespaces: RefCell::default(), counters: RefCell::default() }
    }

    fn depth_of(&self, items: &[Value]) -> Res<usize> {
        self.budget.bytes(std::mem::size_of_val(items))?;
        let depth = items.iter().map(Value::depth).max().unwrap_or(0) + 1;
        if depth > limits::VALUE_DEPTH { Err(too_deep()) } else { Ok(depth) }
    }

    pub(super) fn wrap(&self, items: Vec<Value>) -> Res<Rc<Items>> {
        let depth = self.depth_of(&items)?;
        Ok(Rc::new(Items { items, depth }))
    }

    pub(super) fn list(&self, items: Vec<Value>) -> Res<Value> {
        Ok(Value::List(self.wrap(items)?))
    }

    pub(super) fn tuple(&self, items: Vec<Value>) -> Res<Value> {
        Ok(Value::Tuple(self.wrap(items)?))
    }

    pub(super) fn iterator(&self, items: Vec<Value>) -> Res<Value> {
        let depth = self.depth_of(&items)?;
        Ok(Value::Iterator(Rc::new(Lazy { rest: RefCell::new(items.into_iter()), depth })))
    }

    pub(super) fn str(&self, text: impl Into<Arc<str>>) -> Res<Value> {
        let text = text.into();
        self.budget.text(text.len())?;
        Ok(Value::Str(text))
    }

    pub(super) fn dict(&self, entries: impl IntoIterator<Item = (Value, Value)>) -> Res<Value> {
        let mut dict = Dict::default();
        for (key, value) in entries {
            dict.insert(key, value, self)?;
        }
        Ok(Value::Dict(Rc::new(dict)))
    }

    /// A counter from 0, for what counts its calls.
    pub(super) fn counter(&self) -> Res<usize> {
        self.budget.bytes(size_of::<usize>())?;
        let mut counters = self.counters.borrow_mut();
        counters.push(0);
        Ok(counters.len() - 1)
    }

    /// The value of a JSON value.
    pub(super) fn json_value(&self, json: &serde_json::Value) -> Res<Value> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Null => Value::None,
            Json::Bool(value) => Value::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(value), ..) => Value::Int(value.into()),
                (_, Some(value), _) => Value::Int(value.into()),
                (.., value) => Value::Float(value.unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::Str(text.as_str().into()),
            Json::Array(items) => self.list(items.iter().map(|item| self.json_value(item)).collect::<Res<_>>()?)?,
            Json::Object(map) => {
                let entries = map.iter().map(|(key, value)| Ok((Value::Str(key.as_str().into()), self.json_value(value)?)));
                self.dict(entries.collect::<Res<Vec<_>>>()?)?
            }
        })
    }
}
