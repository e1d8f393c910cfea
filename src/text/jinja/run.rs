//! Runs the statements of a template.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::arguments::Given;
use super::ast::{Ast, Block, Expr, For, Name, Node, Stmt, Target};
use super::limits::{self, Res, fault};
use super::print;
use super::strftime::Date;
use super::value::{Function, Heap, Value};

/// What a statement asks of the loop around it.
#[derive(PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// Variables of a part of the template, and the scope around it.
#[derive(Default)]
struct Scope {
    variables: HashMap<Name, Value>,
    parent: Option<usize>,
}

/// A macro and the scope that it was made in.
#[derive(Clone, Copy)]
pub(super) struct Closure {
    pub(super) code: usize,
    pub(super) scope: usize,
}

/// A loop that runs.
pub(super) struct LoopState<'t> {
    pub(super) items: Vec<Value>,
    pub(super) at: usize,
    pub(super) depth: usize,
    /// What `loop.changed` was given last.
    pub(super) last: Option<Vec<Value>>,
    pub(super) code: &'t For,
    pub(super) scope: usize,
}

/// A template while it runs.
pub(super) struct Run<'t> {
    pub(super) ast: &'t Ast,
    pub(super) heap: Heap,
    pub(super) date: Option<Date>,
    pub(super) line: usize,
    pub(super) out: String,
    /// Length of the rendered text where a macro or a block began whose text is caught; `None` outside of such.
    caught_at: Option<usize>,
    pub(super) generated: Vec<Range<usize>>,
    scopes: Vec<Scope>,
    /// Scopes below this place belong to macros and stay.
    kept: usize,
    pub(super) closures: Vec<Closure>,
    pub(super) loops: Vec<LoopState<'t>>,
    depth: usize,
}

impl<'t> Run<'t> {
    pub(super) fn new(ast: &'t Ast, heap: Heap, date: Option<Date>, variables: Vec<(Name, Value)>) -> Self {
        Self {
            ast,
            heap,
            date,
            line: 1,
            out: String::new(),
            caught_at: None,
            generated: Vec::new(),
            scopes: vec![Scope { variables: variables.into_iter().collect(), parent: None }],
            kept: 1,
            closures: Vec::new(),
            loops: Vec::new(),
            depth: 0,
        }
    }

    /// Runs a part one level deeper.
    pub(super) fn deeper<T>(&mut self, part: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        if self.depth >= limits::CALL_DEPTH {
            return Err(fault(format!(
                "calls and tags are nested deeper than the limit of {}; does a macro call itself?",
                limits::CALL_DEPTH
            )));
        }
        self.depth += 1;
        let result = part(self);
        self.depth -= 1;
        result
    }

    /// Runs a part in a new scope inside `parent`.
    pub(super) fn scoped<T>(&mut self, parent: usize, part: impl FnOnce(&mut Self, usize) -> Res<T>) -> Res<T> {
        self.heap.budget.bytes(size_of::<Scope>())?;
        let scope = self.scopes.len();
        self.scopes.push(Scope { variables: HashMap::new(), parent: Some(parent) });
        let result = part(self, scope)?;
        if scope >= self.kept {
            self.scopes.truncate(scope);
        }
        Ok(result)
    }

    /// Runs a part whose text is caught instead of printed.
    pub(super) fn caught<T>(&mut self, part: impl FnOnce(&mut Self) -> Res<T>) -> Res<String> {
        let outer = std::mem::take(&mut self.out);
        let outermost = self.caught_at.is_none();
        if outermost {
            self.caught_at = Some(outer.len());
        }
        part(self)?;
        if outermost {
            self.caught_at = None;
        }
        Ok(std::mem::replace(&mut self.out, outer))
    }

    pub(super) fn variable(&self, name: &str, scope: usize) -> Res<Option<Value>> {
        let mut at = Some(scope);
        let mut scopes = 0;
        while let Some(scope) = at.and_then(|at| self.scopes.get(at)) {
            scopes += 1;
            self.heap.budget.steps(usize::from(scopes % 4 == 0) + name.len() / 64)?;
            if let Some(value) = scope.variables.get(name) {
                return Ok(Some(value.clone()));
            }
            at = scope.parent;
        }
        let function = match name {
            "range" => Function::Range,
            "dict" => Function::Dict,
            "namespace" => Function::Namespace,
            "cycler" => Function::Cycler,
            "joiner" => Function::Joiner,
            "raise_exception" => Function::RaiseException,
            "strftime_now" if self.date.is_some() => Function::StrftimeNow,
            _ => return Ok(None),
        };
        Ok(Some(Value::Function(function)))
    }

    pub(super) fn set(&mut self, name: &Name, value: Value, scope: usize) {
        self.scopes[scope].variables.insert(name.clone(), value);
    }

    /// Makes a macro of the template a value.
    pub(super) fn closure(&mut self, code: usize, scope: usize) -> Res<Value> {
        self.heap.budget.bytes(size_of::<Closure>())?;
        // A macro may be called when its scope is left.
        self.kept = self.kept.max(scope + 1);
        self.closures.push(Closure { code, scope });
        Ok(Value::Macro(self.closures.len() - 1))
    }

    pub(super) fn block(&mut self, block: &'t Block, scope: usize) -> Res<Flow> {
        for node in block {
            self.heap.budget.steps(1)?;
            let flow = self.deeper(|run| run.statement(node, scope))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, node: &'t Node, scope: usize) -> Res<Flow> {
        self.line = node.line;
        match &node.kind {
            Stmt::Text(text) => self.heap.budget.push(&mut self.out, text)?,
            Stmt::Print(value) => {
                let value = self.eval(value, scope)?;
                let text = print::text(&value, &self.heap)?;
                self.heap.budget.push(&mut self.out, &text)?;
            }
            Stmt::If { branches, otherwise } => return self.branch(branches, otherwise, scope),
            Stmt::For(code) => self.for_loop(code, scope)?,
            Stmt::Set { target, value } => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::SetBlock { target, filters, body } => {
                let text = self.inner_text(body, scope)?;
                let value = self.filtered(text, filters, scope)?;
                self.assign(target, value, scope)?;
            }
            Stmt::Filter { filters, body } => {
                let text = self.inner_text(body, scope)?;
                let value = self.filtered(text, filters, scope)?;
                let text = print::text(&value, &self.heap)?;
                self.heap.budget.push(&mut self.out, &text)?;
            }
            Stmt::With { assigned, body } => {
                let values: Vec<Value> = assigned.iter().map(|(_, value)| self.eval(value, scope)).collect::<Res<_>>()?;
                return self.scoped(scope, |run, inner| {
                    for ((target, _), value) in assigned.iter().zip(values) {
                        run.assign(target, value, inner)?;
                    }
                    run.block(body, inner)
                });
            }
            Stmt::Macro(code) => {
                let value = self.closure(*code, scope)?;
                self.set(&self.ast.macros[*code].name, value, scope);
            }
            Stmt::CallBlock { call, caller } => self.call_block(call, *caller, scope)?,
            Stmt::Generation(body) => return self.generation(body, scope),
            Stmt::Scope(body) => return self.scoped(scope, |run, inner| run.block(body, inner)),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn branch(&mut self, branches: &'t [(Expr, Block)], otherwise: &'t Block, scope: usize) -> Res<Flow> {
        for (condition, body) in branches {
            if self.eval(condition, scope)?.truth() {
                return self.block(body, scope);
            }
        }
        self.block(otherwise, scope)
    }

    fn inner_text(&mut self, body: &'t Block, scope: usize) -> Res<Value> {
        let text = self.caught(|run| run.scoped(scope, |run, inner| run.block(body, inner)))?;
        Ok(Value::Str(text.into()))
    }

    fn filtered(&mut self, value: Value, filters: &'t [super::ast::Call], scope: usize) -> Res<Value> {
        let mut value = value;
        for filter in filters {
            let given = self.arguments(&filter.arguments, scope)?;
            value = self.filter(&filter.name, value, given)?;
        }
        Ok(value)
    }

    fn call_block(&mut self, call: &'t Expr, caller: usize, scope: usize) -> Res<()> {
        let Expr::Postfix(..) = call else { return Err(fault("{% call %} needs a call")) };
        let caller = self.closure(caller, scope)?;
        let value = self.scoped(scope, |run, inner| run.call_with(call, caller, inner))?;
        let text = print::text(&value, &self.heap)?;
        self.heap.budget.push(&mut self.out, &text)
    }

    fn generation(&mut self, body: &'t Block, scope: usize) -> Res<Flow> {
        let before = self.out.len();
        let flow = self.scoped(scope, |run, inner| run.block(body, inner))?;
        // Inside a macro, Hugging Face counts from what is printed so far.
        let start = self.caught_at.unwrap_or(before);
        let length = self.out.len() - before;
        if length > 0 {
            self.generated.push(start..start + length);
        }
        Ok(flow)
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value, scope: usize) -> Res<()> {
        match target {
            Target::Name(name) => self.set(name, value, scope),
            Target::Attribute(name, attribute) => {
                let Some(Value::Namespace(place)) = self.variable(name, scope)? else {
                    return Err(fault(format!("cannot assign an attribute of {name:?}, which is no namespace")));
                };
                if let Some(dict) = self.heap.namespaces.borrow_mut().get_mut(place) {
                    dict.insert(Value::Str(attribute.clone()), value, &self.heap)?;
                }
            }
            Target::Tuple(targets) => {
                let values = value.items(&self.heap)?;
                if values.len() != targets.len() {
                    return Err(fault(format!("expected {} values to unpack, found {}", targets.len(), values.len())));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope)?;
                }
            }
        }
        Ok(())
    }

    fn for_loop(&mut self, code: &'t For, scope: usize) -> Res<()> {
        let items = self.eval(&code.items, scope)?;
        self.run_loop(code, items, scope, 0)
    }

    /// Runs a loop over these items; `depth` is 0 unless it calls itself.
    pub(super) fn run_loop(&mut self, code: &'t For, items: Value, scope: usize, depth: usize) -> Res<()> {
        let mut items = items.items(&self.heap)?;
        if let Some(test) = &code.test {
            let mut chosen = Vec::new();
            for item in items {
                let keep = self.scoped(scope, |run, inner| {
                    run.assign(&code.target, item.clone(), inner)?;
                    Ok(run.eval(test, inner)?.truth())
                })?;
                if keep {
                    chosen.push(item);
                }
            }
            items = chosen;
        }
        if items.is_empty() {
            self.scoped(scope, |run, inner| run.block(&code.otherwise, inner))?;
            return Ok(());
        }
        let place = self.loops.len();
        let n = items.len();
        self.loops.push(LoopState { items, at: 0, depth, last: None, code, scope });
        let name: Name = Arc::from("loop");
        for at in 0..n {
            self.heap.budget.steps(1)?;
            self.loops[place].at = at;
            let item = self.loops[place].items[at].clone();
            let flow = self.scoped(scope, |run, inner| {
                run.set(&name, Value::Loop(place), inner);
                run.assign(&code.target, item, inner)?;
                run.block(&code.body, inner)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        self.loops.truncate(place);
        Ok(())
    }

    /// Calls a macro.
    pub(super) fn call_macro(&mut self, closure: Closure, given: Given) -> Res<Value> {
        let code = &self.ast.macros[closure.code];
        let mut given = given;
        let text = self.caught(|run| {
            run.scoped(closure.scope, |run, scope| {
                let spare = given.positional.split_off(code.parameters.len().min(given.positional.len()));
                let mut positional = std::mem::take(&mut given.positional).into_iter();
                for (name, default) in &code.parameters {
                    run.heap.budget.steps(1 + given.named.len() / 4)?;
                    let named = given.named.iter().position(|(own, _)| own == name);
                    let value = match (positional.next(), named, default) {
                        (Some(value), None, _) => value,
                        (Some(_), Some(_), _) => return Err(fault(format!("macro {:?} is given {name:?} twice", code.name))),
                        (None, Some(at), _) => given.named.remove(at).1,
                        (None, None, Some(default)) => run.eval(default, scope)?,
                        (None, None, None) => Value::Undefined(format!("parameter '{name}' was not provided").into()),
                    };
                    run.set(name, value, scope);
                }
                run.rest_of_arguments(closure.code, spare, given.named, scope)?;
                run.deeper(|run| run.block(&code.body, scope))
            })
        })?;
        Ok(Value::Str(text.into()))
    }

    /// `caller`, `varargs` and `kwargs`, or an error where the macro does not name them.
    fn rest_of_arguments(&mut self, code: usize, spare: Vec<Value>, named: Vec<(Name, Value)>, scope: usize) -> Res<()> {
        let code = &self.ast.macros[code];
        let mut named = named;
        if code.takes_caller && !code.parameters.iter().any(|(name, _)| &**name == "caller") {
            let caller = named.iter().position(|(name, _)| &**name == "caller").map(|at| named.remove(at).1);
            let caller = caller.unwrap_or_else(|| Value::Undefined("No caller defined".into()));
            self.set(&Arc::from("caller"), caller, scope);
        }
        if code.takes_kwargs {
            let dict = self.heap.dict(named.into_iter().map(|(name, value)| (Value::Str(name), value)))?;
            self.set(&Arc::from("kwargs"), dict, scope);
        } else if let Some((name, _)) = named.first() {
            return Err(fault(format!("macro {:?} takes no argument {name:?}", code.name)));
        }
        if code.takes_varargs {
            let spare = self.heap.tuple(spare)?;
            self.set(&Arc::from("varargs"), spare, scope);
        } else if !spare.is_empty() {
            return Err(fault(format!("macro {:?} takes at most {} arguments", code.name, code.parameters.len())));
        }
        Ok(())
    }
}
