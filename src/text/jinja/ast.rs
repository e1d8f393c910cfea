//! What a template is made of. Chains of operators, filters and conditions are flat, so that only brackets and tags nest.

use std::sync::Arc;

pub(super) type Name = Arc<str>;

/// A statement, or text to print, and its line.
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) kind: Stmt,
}

pub(super) type Block = Vec<Node>;

pub(super) enum Stmt {
    Text(Arc<str>),
    Print(Expr),
    If {
        branches: Vec<(Expr, Block)>,
        otherwise: Block,
    },
    For(Box<For>),
    Set {
        target: Target,
        value: Expr,
    },
    SetBlock {
        target: Target,
        filters: Vec<Call>,
        body: Block,
    },
    With {
        assigned: Vec<(Target, Expr)>,
        body: Block,
    },
    Filter {
        filters: Vec<Call>,
        body: Block,
    },
    /// The place of a macro in [`Ast::macros`].
    Macro(usize),
    /// `{% call %}`: the call, and the macro that is `caller` in it.
    CallBlock {
        call: Expr,
        caller: usize,
    },
    Generation(Block),
    /// `{% block %}`, which prints its body where it stands.
    Scope(Block),
    Break,
    Continue,
}

pub(super) struct For {
    pub(super) target: Target,
    pub(super) items: Expr,
    pub(super) test: Option<Expr>,
    pub(super) body: Block,
    pub(super) otherwise: Block,
    pub(super) recursive: bool,
}

/// What is assigned to.
pub(super) enum Target {
    Name(Name),
    /// `namespace.attribute`.
    Attribute(Name, Name),
    Tuple(Vec<Target>),
}

pub(super) struct Macro {
    pub(super) name: Name,
    pub(super) parameters: Vec<(Name, Option<Expr>)>,
    pub(super) body: Block,
    /// Which of `varargs`, `kwargs` and `caller` the body names; a call that gives others is refused.
    pub(super) takes_varargs: bool,
    pub(super) takes_kwargs: bool,
    pub(super) takes_caller: bool,
}

/// A name with arguments: a filter or a test.
pub(super) struct Call {
    pub(super) name: Name,
    pub(super) arguments: Arguments,
}

#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Expr>,
    pub(super) named: Vec<(Name, Expr)>,
    /// `*list`.
    pub(super) list: Option<Expr>,
    /// `**dict`.
    pub(super) dict: Option<Expr>,
}

pub(super) enum Expr {
    Undefined,
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(Arc<str>),
    Name(Name),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    /// `then if condition else otherwise`.
    If(Box<[Expr; 3]>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Positive(Box<Expr>),
    /// `first op x op y …`, from left to right.
    Chain(Box<Expr>, Vec<(Operator, Expr)>),
    Concat(Vec<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `a < b < c`.
    Compare(Box<Expr>, Vec<(Comparison, Expr)>),
    /// A value with what follows it: `.name`, `[…]`, `(…)`, `|filter`, `is test`.
    Postfix(Box<Expr>, Vec<Suffix>),
}

pub(super) enum Suffix {
    Attribute(Name),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Arguments),
    Filter(Call),
    Test { call: Call, negated: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

/// A parsed template.
#[derive(Default)]
pub(super) struct Ast {
    pub(super) body: Block,
    pub(super) macros: Vec<Macro>,
    pub(super) marks_generation: bool,
}
