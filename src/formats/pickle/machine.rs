//! The stack machine of a pickle, without what makes pickles dangerous: the only names that a program may use are those of [`GLOBALS`], and each of
//! them only builds a tensor or an empty dictionary, here, in Rust.
//!
//! Objects lie in one list and refer to each other by number, so that nothing recurses; every instruction appends at most one object, so
//! that memory is bounded: there are at most [`MAX_OBJECTS`]. Nothing a program does more than once copies what it built before.

use std::collections::{BTreeMap, HashMap};

use super::opcodes::*;
use crate::error::{Error, Result};
use crate::quant::{self, QuantFormat};

/// What a name of [`GLOBALS`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A storage of numbers of this safetensors type.
    Storage(&'static str),
    /// A tensor of a storage: (storage, offset, shape, strides, requires_grad, hooks).
    Tensor,
    /// A parameter of a tensor: (tensor, requires_grad, hooks).
    Parameter,
    /// An empty dictionary.
    Dictionary,
}

/// Every name that a pickle may use: module, name, meaning.
pub static GLOBALS: &[(&str, &str, Meaning)] = &[
    ("torch", "FloatStorage", Meaning::Storage("F32")),
    ("torch", "HalfStorage", Meaning::Storage("F16")),
    ("torch", "BFloat16Storage", Meaning::Storage("BF16")),
    ("torch._utils", "_rebuild_tensor_v2", Meaning::Tensor),
    ("torch._utils", "_rebuild_parameter", Meaning::Parameter),
    ("collections", "OrderedDict", Meaning::Dictionary),
];

/// What is done about files that `torch.save` did not write so.
pub(super) const HINT: &str = "save the tensors again with torch.save or as safetensors";
/// Most sizes of a tensor.
const MAX_DIMENSIONS: usize = 8;
/// Most objects: some twenty a tensor.
const MAX_OBJECTS: usize = 1 << 21;
/// Most bytes of the name of a storage's file, which torch.save numbers.
const MAX_KEY: usize = 100;

/// A storage, as a pickle refers to it.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// Name of its file.
    pub key: String,
    /// Type of its numbers.
    pub format: &'static QuantFormat,
    /// How many they are.
    pub numel: usize,
}

/// A tensor, as a pickle describes it.
#[derive(Debug, Clone)]
pub(super) struct Strided {
    /// Where its numbers are.
    pub storage: Storage,
    /// The first of them.
    pub offset: usize,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Distances in the storage, one a size.
    pub strides: Vec<usize>,
}

/// Number of an object.
type Id = u32;

#[derive(Debug, Clone)]
enum Object {
    None,
    Bool,
    Int(i64),
    /// Where the text is in the program.
    Text(usize, usize),
    Tuple(Vec<Id>),
    /// Keys and values, in order.
    Dictionary(Vec<(Id, Id)>),
    Global(Meaning),
    Storage(Box<Storage>),
    Tensor(Box<Strided>),
}

/// Runs the program and takes the dictionary that it leaves apart.
pub(super) fn run(file: &str, program: &[u8]) -> Result<Vec<(String, Strided)>> {
    let mut machine =
        Machine { file, program, at: 0, objects: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), protocol: false };
    let root = machine.execute()?;
    let Object::Dictionary(items) = &machine.objects[root as usize] else {
        return Err(machine.bad("it holds no dictionary of tensors"));
    };
    let mut named = BTreeMap::new();
    let mut order = Vec::with_capacity(items.len());
    for (key, value) in items {
        let Object::Text(from, to) = machine.objects[*key as usize] else {
            return Err(machine.bad("a name of its dictionary is no text"));
        };
        let name = machine.text(from, to)?;
        let Object::Tensor(tensor) = &machine.objects[*value as usize] else {
            return Err(machine.bad(format!("`{}` is no tensor", short(name))));
        };
        if named.insert(name, ()).is_some() {
            return Err(machine.bad(format!("`{}` is there twice", short(name))));
        }
        order.push((name.to_owned(), Strided::clone(tensor)));
    }
    Ok(order)
}

struct Machine<'p> {
    file: &'p str,
    program: &'p [u8],
    at: usize,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Lengths of the stack at which marks are.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    protocol: bool,
}

impl<'p> Machine<'p> {
    fn bad(&self, problem: impl Into<String>) -> Error {
        Error::format(format!("{}, pickle byte {}", self.file, self.at), problem, HINT)
    }

    fn execute(&mut self) -> Result<Id> {
        loop {
            let opcode = self.byte()?;
            if opcode == STOP {
                let root = self.pop()?;
                return if self.stack.is_empty() { Ok(root) } else { Err(self.bad("it ends with objects that nothing uses")) };
            }
            if (opcode == PROTO) == self.protocol {
                return Err(self.bad("it does not begin with its protocol, as pickles of torch.save do"));
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<()> {
        match opcode {
            PROTO => {
                let version = self.byte()?;
                if version != 2 {
                    return Err(self.bad(format!("it has protocol {version}, 2 was expected")));
                }
                self.protocol = true;
            }
            MARK => self.marks.push(self.stack.len()),
            NONE => self.push(Object::None)?,
            NEWTRUE | NEWFALSE => self.push(Object::Bool)?,
            BININT => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()))?;
            }
            BININT1 => {
                let number = self.byte()?;
                self.push(Object::Int(number.into()))?;
            }
            BININT2 => {
                let number = u16::from_le_bytes(self.array()?);
                self.push(Object::Int(number.into()))?;
            }
            LONG1 => self.long()?,
            BINUNICODE => {
                let length = u32::from_le_bytes(self.array()?) as usize;
                let from = self.at;
                self.take(length)?;
                self.text(from, self.at)?;
                self.push(Object::Text(from, self.at))?;
            }
            BINPUT => {
                let place = self.byte()?;
                self.put(place.into())?;
            }
            LONG_BINPUT => {
                let place = u32::from_le_bytes(self.array()?);
                self.put(place)?;
            }
            BINGET => {
                let place = self.byte()?;
                self.get(place.into())?;
            }
            LONG_BINGET => {
                let place = u32::from_le_bytes(self.array()?);
                self.get(place)?;
            }
            EMPTY_TUPLE => self.push(Object::Tuple(Vec::new()))?,
            TUPLE1 | TUPLE2 | TUPLE3 => {
                let first = self.stack.len().checked_sub(usize::from(opcode - TUPLE1) + 1).filter(|first| *first >= self.floor());
                let first = first.ok_or_else(|| self.bad("a tuple of more than there is"))?;
                let items = self.stack.split_off(first);
                self.push(Object::Tuple(items))?;
            }
            TUPLE => {
                let items = self.since_mark()?;
                self.push(Object::Tuple(items))?;
            }
            EMPTY_DICT => self.push(Object::Dictionary(Vec::new()))?,
            SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            SETITEMS => {
                let items = self.since_mark()?;
                self.set(&items)?;
            }
            GLOBAL => self.global()?,
            BINPERSID => self.storage()?,
            REDUCE => self.reduce()?,
            BUILD => self.build()?,
            other => return Err(self.bad(format!("it uses the instruction {other:#04x}, which dictionaries of tensors do not need"))),
        }
        Ok(())
    }

    // ---- the program ----------------------------------------------------------------------------------------------------------------

    fn take(&mut self, count: usize) -> Result<&'p [u8]> {
        let bytes = self.at.checked_add(count).and_then(|end| self.program.get(self.at..end));
        let bytes = bytes.ok_or_else(|| self.bad("it is cut off"))?;
        self.at += count;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn text(&self, from: usize, to: usize) -> Result<&'p str> {
        std::str::from_utf8(&self.program[from..to]).map_err(|_| self.bad("a text is not UTF-8"))
    }

    fn line(&mut self) -> Result<&'p str> {
        let from = self.at;
        let length = self.program[from..].iter().position(|byte| *byte == b'\n').ok_or_else(|| self.bad("it is cut off"))?;
        self.at += length + 1;
        self.text(from, from + length)
    }

    // ---- the stack ------------------------------------------------------------------------------------------------------------------

    /// Below this the stack belongs to what was begun before the last mark.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn push(&mut self, object: Object) -> Result<()> {
        if self.objects.len() == MAX_OBJECTS {
            return Err(self.bad(format!("it makes more than {MAX_OBJECTS} objects, which no dictionary of tensors needs")));
        }
        self.stack.push(self.objects.len() as Id);
        self.objects.push(object);
        Ok(())
    }

    fn pop(&mut self) -> Result<Id> {
        match self.stack.pop() {
            Some(id) if self.stack.len() >= self.floor() => Ok(id),
            _ => Err(self.bad("it takes more from its stack than there is")),
        }
    }

    fn top(&self) -> Result<Id> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| self.bad("it takes more from its stack than there is"))
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| self.bad("it ends what it did not begin"))?;
        Ok(self.stack.split_off(mark))
    }

    fn put(&mut self, place: u32) -> Result<()> {
        let id = self.top()?;
        self.memo.insert(place, id);
        Ok(())
    }

    fn get(&mut self, place: u32) -> Result<()> {
        let id = self.memo.get(&place).copied().ok_or_else(|| self.bad(format!("it reads place {place}, where nothing was put")))?;
        self.stack.push(id);
        Ok(())
    }

    // ---- objects --------------------------------------------------------------------------------------------------------------------

    /// A whole number of up to eight bytes.
    fn long(&mut self) -> Result<()> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        if length > 8 {
            return Err(self.bad(format!("a number of {length} bytes")));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = if negative { [0xff; 8] } else { [0; 8] };
        wide[..length].copy_from_slice(bytes);
        self.push(Object::Int(i64::from_le_bytes(wide)))?;
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Result<()> {
        let id = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err(self.bad("a key of a dictionary has no value"));
        }
        match &mut self.objects[id as usize] {
            Object::Dictionary(list) => list.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => return Err(self.bad("it puts items into what is no dictionary")),
        }
        Ok(())
    }

    fn global(&mut self) -> Result<()> {
        let (module, name) = (self.line()?, self.line()?);
        let found = GLOBALS.iter().find(|(m, n, _)| (*m, *n) == (module, name));
        if found.is_none() && module == "torch" && name.ends_with("Storage") {
            return Err(self.bad(format!("it has numbers of the type {}, and float32, float16 and bfloat16 are read", short(name))));
        }
        let (.., meaning) = found.ok_or_else(|| {
            self.bad(format!("it asks for `{}.{}`, which is no part of a tensor: a pickle can run any program", short(module), short(name)))
        })?;
        self.push(Object::Global(*meaning))?;
        Ok(())
    }

    fn items(&self, id: Id) -> Result<&[Id]> {
        match &self.objects[id as usize] {
            Object::Tuple(items) => Ok(items),
            _ => Err(self.bad("a tuple was expected")),
        }
    }

    fn size(&self, id: Id) -> Result<usize> {
        match self.objects[id as usize] {
            Object::Int(number) => usize::try_from(number).map_err(|_| self.bad(format!("{number} as a size or place"))),
            _ => Err(self.bad("a whole number was expected")),
        }
    }

    fn sizes(&self, id: Id) -> Result<Vec<usize>> {
        let items = self.items(id)?;
        if items.len() > MAX_DIMENSIONS {
            return Err(self.bad(format!("a tensor of {} dimensions", items.len())));
        }
        items.iter().map(|item| self.size(*item)).collect()
    }

    /// ("storage", type, name of the file, device, numbers), which is how a tensor refers to its storage.
    fn storage(&mut self) -> Result<()> {
        let id = self.pop()?;
        let object = |id: &Id| &self.objects[*id as usize];
        let storage = match self.items(id)? {
            [kind, class, key, device, numel] => match [object(kind), object(class), object(key), object(device)] {
                [Object::Text(a, b), Object::Global(Meaning::Storage(dtype)), Object::Text(from, to), Object::Text(..)]
                    if &self.program[*a..*b] == b"storage" =>
                {
                    if to - from > MAX_KEY {
                        return Err(self.bad(format!("the name of a storage has {} bytes", to - from)));
                    }
                    let format = quant::by_safetensors_dtype(dtype).ok_or_else(|| self.bad(format!("numbers of type {dtype}")))?;
                    Storage { key: self.text(*from, *to)?.to_owned(), format, numel: self.size(*numel)? }
                }
                _ => return Err(self.bad("it refers to something that is no storage")),
            },
            _ => return Err(self.bad("it refers to something that is no storage")),
        };
        self.push(Object::Storage(Box::new(storage)))?;
        Ok(())
    }

    /// Calls what a name means.
    fn reduce(&mut self) -> Result<()> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Object::Global(meaning) = self.objects[callee as usize] else {
            return Err(self.bad("it calls what is no function"));
        };
        let wrong = || self.bad("the arguments of a tensor or dictionary are not those that torch.save writes");
        let object = match (meaning, self.items(arguments)?) {
            (Meaning::Dictionary, []) => Object::Dictionary(Vec::new()),
            (Meaning::Tensor, [storage, offset, shape, strides, _, _]) => {
                let Object::Storage(storage) = &self.objects[*storage as usize] else { return Err(wrong()) };
                let (shape, strides) = (self.sizes(*shape)?, self.sizes(*strides)?);
                if shape.len() != strides.len() {
                    return Err(wrong());
                }
                Object::Tensor(Box::new(Strided { storage: Storage::clone(storage), offset: self.size(*offset)?, shape, strides }))
            }
            (Meaning::Parameter, [tensor, _, _]) => match &self.objects[*tensor as usize] {
                Object::Tensor(tensor) => Object::Tensor(tensor.clone()),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        self.push(object)?;
        Ok(())
    }

    /// Attributes of a dictionary, such as the `_metadata` of a module's state: they say nothing of the tensors.
    fn build(&mut self) -> Result<()> {
        let (state, target) = (self.pop()?, self.top()?);
        let dictionary = |id: Id| matches!(self.objects[id as usize], Object::Dictionary(_));
        if !dictionary(state) || !dictionary(target) {
            return Err(self.bad("it sets attributes of what is no dictionary"));
        }
        Ok(())
    }
}

/// A text of a stranger, not longer than a line.
fn short(text: &str) -> &str {
    text.char_indices().nth(100).map_or(text, |(end, _)| &text[..end])
}
