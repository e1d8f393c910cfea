//! Tokens to statements. Expressions are in `expressions.rs`.

use super::ast::{Ast, Block, Call, Expr, For, Macro, Name, Node, Stmt, Target};
use super::lexer::{self, Kind, Token};
use super::limits::{self, Fault, Res, fault};

/// Parses a template; an error comes with its line.
pub(super) fn parse(source: &str) -> Result<Ast, (Fault, usize)> {
    let mut parser = Parser { tokens: lexer::tokens(source)?, at: 0, depth: 0, ast: Ast::default(), used: vec![Used::default()] };
    match parser.block(&[]) {
        Ok(body) => {
            parser.ast.body = body;
            Ok(parser.ast)
        }
        Err(e) => Err((e, parser.line())),
    }
}

pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    pub(super) ast: Ast,
    /// Which of the special names the macros around, the template last of all, use.
    pub(super) used: Vec<Used>,
}

#[derive(Default)]
pub(super) struct Used {
    pub(super) varargs: bool,
    pub(super) kwargs: bool,
    pub(super) caller: bool,
}

impl Parser {
    pub(super) fn peek(&self) -> &Kind {
        self.peek_after(0)
    }

    pub(super) fn peek_after(&self, n: usize) -> &Kind {
        // The last token is `End`, and nothing goes past it.
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + n).min(last)].kind
    }

    pub(super) fn line(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].line
    }

    pub(super) fn next(&mut self) -> Kind {
        let kind = self.peek().clone();
        self.at += 1;
        kind
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Kind::Name(found) if &**found == name)
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Kind::Op(found) if *found == op)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn skip_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Res<()> {
        if self.skip_op(op) { Ok(()) } else { Err(self.unexpected(&format!("{op:?}"))) }
    }

    fn expect_name(&mut self, name: &str) -> Res<()> {
        if self.skip_name(name) { Ok(()) } else { Err(self.unexpected(&format!("{name:?}"))) }
    }

    fn expect(&mut self, kind: &Kind, what: &str) -> Res<()> {
        if self.peek() != kind {
            return Err(self.unexpected(what));
        }
        self.at += 1;
        Ok(())
    }

    pub(super) fn name(&mut self) -> Res<Name> {
        match self.peek().clone() {
            Kind::Name(name) => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    pub(super) fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.peek() {
            Kind::Data(_) | Kind::BlockBegin | Kind::VariableBegin => "text".to_owned(),
            Kind::BlockEnd => "\"%}\"".to_owned(),
            Kind::VariableEnd => "\"}}\"".to_owned(),
            Kind::Name(name) => format!("{name:?}"),
            Kind::Str(_) => "a string".to_owned(),
            Kind::Int(_) | Kind::Float(_) => "a number".to_owned(),
            Kind::Op(op) => format!("{op:?}"),
            Kind::End => "the end of the template".to_owned(),
        };
        fault(format!("expected {expected}, found {found}"))
    }

    /// Runs a part of the parser one level deeper.
    pub(super) fn nested<T>(&mut self, part: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        if self.depth >= limits::SYNTAX_DEPTH {
            return Err(fault(format!("tags and brackets are nested deeper than the limit of {}", limits::SYNTAX_DEPTH)));
        }
        self.depth += 1;
        let result = part(self);
        self.depth -= 1;
        result
    }

    /// Statements up to one of the tags `ends`, whose name is the next token then, or up to the end of the template when there are none.
    fn block(&mut self, ends: &[&str]) -> Res<Block> {
        let mut nodes = Vec::new();
        loop {
            let line = self.line();
            let kind = match self.next() {
                Kind::Data(text) => Stmt::Text(text),
                Kind::VariableBegin => {
                    let value = self.tuple(true, false)?;
                    self.expect(&Kind::VariableEnd, "\"}}\"")?;
                    Stmt::Print(value)
                }
                Kind::BlockBegin => {
                    if matches!(self.peek(), Kind::Name(name) if ends.contains(&&**name)) {
                        return Ok(nodes);
                    }
                    let statement = self.nested(Self::statement)?;
                    self.expect(&Kind::BlockEnd, "\"%}\"")?;
                    statement
                }
                _ => {
                    self.at -= 1;
                    return if ends.is_empty() { Ok(nodes) } else { Err(self.unexpected(&format!("the tag {:?}", ends[ends.len() - 1]))) };
                }
            };
            nodes.push(Node { line, kind });
        }
    }

    /// The body of a tag, from the end of its opening to the name of its closing, which is taken.
    fn body(&mut self, end: &str) -> Res<Block> {
        let body = self.open_body(&[end])?;
        self.expect_name(end)?;
        Ok(body)
    }

    fn open_body(&mut self, ends: &[&str]) -> Res<Block> {
        self.skip_op(":");
        self.expect(&Kind::BlockEnd, "\"%}\"")?;
        self.block(ends)
    }

    fn statement(&mut self) -> Res<Stmt> {
        let tag = self.name()?;
        match &*tag {
            "if" => self.if_tag(),
            "for" => self.for_tag(),
            "set" => self.set_tag(),
            "with" => self.with_tag(),
            "macro" => self.macro_tag(),
            "call" => self.call_tag(),
            "print" => Ok(Stmt::Print(self.tuple(true, false)?)),
            "filter" => {
                let filters = self.filters(true)?;
                Ok(Stmt::Filter { filters, body: self.body("endfilter")? })
            }
            "generation" => {
                self.ast.marks_generation = true;
                Ok(Stmt::Generation(self.body("endgeneration")?))
            }
            "block" => {
                let name = self.name()?;
                while self.skip_name("scoped") || self.skip_name("required") {}
                let body = self.body("endblock")?;
                self.skip_name(&name);
                Ok(Stmt::Scope(body))
            }
            "break" => Ok(Stmt::Break),
            "continue" => Ok(Stmt::Continue),
            "include" | "import" | "from" | "extends" => {
                Err(fault(format!("the tag {tag:?} needs other files, which a chat template has not")))
            }
            _ => Err(fault(format!("unknown tag {tag:?}"))),
        }
    }

    fn if_tag(&mut self) -> Res<Stmt> {
        let mut branches = Vec::new();
        let mut otherwise = Vec::new();
        let mut condition = self.tuple(false, false)?;
        loop {
            let body = self.open_body(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            if self.skip_name("elif") {
                condition = self.tuple(false, false)?;
                continue;
            }
            if self.skip_name("else") {
                otherwise = self.open_body(&["endif"])?;
            }
            self.expect_name("endif")?;
            return Ok(Stmt::If { branches, otherwise });
        }
    }

    fn for_tag(&mut self) -> Res<Stmt> {
        let target = self.target(false)?;
        self.expect_name("in")?;
        let items = self.tuple(false, true)?;
        let test = if self.skip_name("if") { Some(self.expression()?) } else { None };
        let recursive = self.skip_name("recursive");
        let body = self.open_body(&["else", "endfor"])?;
        let otherwise = if self.skip_name("else") { self.open_body(&["endfor"])? } else { Vec::new() };
        self.expect_name("endfor")?;
        Ok(Stmt::For(Box::new(For { target, items, test, body, otherwise, recursive })))
    }

    fn set_tag(&mut self) -> Res<Stmt> {
        let target = self.target(true)?;
        if self.skip_op("=") {
            return Ok(Stmt::Set { target, value: self.tuple(true, false)? });
        }
        let filters = self.filters(false)?;
        Ok(Stmt::SetBlock { target, filters, body: self.body("endset")? })
    }

    fn with_tag(&mut self) -> Res<Stmt> {
        let mut assigned = Vec::new();
        while *self.peek() != Kind::BlockEnd {
            if !assigned.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(false)?;
            self.expect_op("=")?;
            assigned.push((target, self.expression()?));
        }
        Ok(Stmt::With { assigned, body: self.body("endwith")? })
    }

    fn macro_tag(&mut self) -> Res<Stmt> {
        let name = self.name()?;
        let parameters = self.signature()?;
        let place = self.macro_body(name, parameters, "endmacro")?;
        Ok(Stmt::Macro(place))
    }

    fn call_tag(&mut self) -> Res<Stmt> {
        let parameters = if self.is_op("(") { self.signature()? } else { Vec::new() };
        let call = self.expression()?;
        let is_call = matches!(&call, Expr::Postfix(_, suffixes) if matches!(suffixes.last(), Some(super::ast::Suffix::Call(_))));
        if !is_call {
            return Err(fault("{% call %} needs a call"));
        }
        let caller = self.macro_body("caller".into(), parameters, "endcall")?;
        Ok(Stmt::CallBlock { call, caller })
    }

    fn macro_body(&mut self, name: Name, parameters: Vec<(Name, Option<Expr>)>, end: &str) -> Res<usize> {
        self.used.push(Used::default());
        let body = self.body(end);
        let used = self.used.pop().unwrap_or_default();
        let (takes_varargs, takes_kwargs, takes_caller) = (used.varargs, used.kwargs, used.caller);
        self.ast.macros.push(Macro { name, parameters, body: body?, takes_varargs, takes_kwargs, takes_caller });
        Ok(self.ast.macros.len() - 1)
    }

    fn signature(&mut self) -> Res<Vec<(Name, Option<Expr>)>> {
        self.expect_op("(")?;
        let mut parameters: Vec<(Name, Option<Expr>)> = Vec::new();
        let mut has_default = false;
        while !self.skip_op(")") {
            if !parameters.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.name()?;
            let default = if self.skip_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && has_default {
                return Err(fault(format!("the parameter {name:?} without a default follows one with a default")));
            }
            has_default |= default.is_some();
            parameters.push((name, default));
        }
        Ok(parameters)
    }

    /// What `set`, `for` and `with` assign to: a name, an attribute of a namespace where that is allowed, or several.
    fn target(&mut self, attributes: bool) -> Res<Target> {
        let mut targets = vec![self.one_target(attributes)?];
        let mut several = false;
        while self.skip_op(",") {
            several = true;
            if self.is_name("in") || self.is_op("=") || *self.peek() == Kind::BlockEnd {
                break;
            }
            targets.push(self.one_target(attributes)?);
        }
        if several {
            return Ok(Target::Tuple(targets));
        }
        targets.pop().ok_or_else(|| fault("nothing to assign to"))
    }

    fn one_target(&mut self, attributes: bool) -> Res<Target> {
        if self.skip_op("(") {
            let target = self.nested(|parser| parser.target(attributes))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.name()?;
        if matches!(&*name, "true" | "false" | "none" | "True" | "False" | "None") {
            return Err(fault(format!("cannot assign to {name:?}")));
        }
        if attributes && self.skip_op(".") {
            return Ok(Target::Attribute(name, self.name()?));
        }
        Ok(Target::Name(name))
    }

    /// Filters of `{% filter %}` and `{% set %}`; the first one without a bar where `inline`.
    fn filters(&mut self, inline: bool) -> Res<Vec<Call>> {
        let mut filters = Vec::new();
        let mut first = inline;
        while first || self.skip_op("|") {
            first = false;
            filters.push(self.named_call()?);
        }
        Ok(filters)
    }
}
