//! Tokens to expressions, with Jinja2's precedences: `if`, `or`, `and`, `not`, comparisons, `+ -`, `~`, `* / // %`, `**`, signs.

use super::ast::{Arguments, Call, Comparison, Expr, Operator, Suffix};
use super::lexer::Kind;
use super::limits::{Res, SYNTAX_DEPTH, fault};
use super::parser::Parser;

impl Parser {
    /// An expression, or several with commas between as a tuple. Conditions are left to `{% if %}` and `{% for %}` where not wanted.
    pub(super) fn tuple(&mut self, with_condition: bool, before_recursive: bool) -> Res<Expr> {
        let mut items = Vec::new();
        let mut several = false;
        loop {
            let ended = matches!(self.peek(), Kind::VariableEnd | Kind::BlockEnd)
                || self.is_op(")")
                || (before_recursive && self.is_name("recursive"));
            if ended && several {
                break;
            }
            items.push(if with_condition { self.expression()? } else { self.nested(Self::or)? });
            if !self.skip_op(",") {
                break;
            }
            several = true;
        }
        if several {
            return Ok(Expr::Tuple(items));
        }
        items.pop().ok_or_else(|| self.unexpected("an expression"))
    }

    pub(super) fn expression(&mut self) -> Res<Expr> {
        self.nested(|parser| {
            let mut value = parser.or()?;
            let mut conditions = 0;
            while parser.skip_name("if") {
                conditions += 1;
                if conditions > SYNTAX_DEPTH {
                    return Err(fault(format!("an expression has more than {SYNTAX_DEPTH} conditions, the limit")));
                }
                let condition = parser.or()?;
                let otherwise = if parser.skip_name("else") { parser.expression()? } else { Expr::Undefined };
                value = Expr::If(Box::new([value, condition, otherwise]));
            }
            Ok(value)
        })
    }

    fn or(&mut self) -> Res<Expr> {
        let first = self.and()?;
        if !self.is_name("or") {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.skip_name("or") {
            operands.push(self.and()?);
        }
        Ok(Expr::Or(operands))
    }

    fn and(&mut self) -> Res<Expr> {
        let first = self.not()?;
        if !self.is_name("and") {
            return Ok(first);
        }
        let mut operands = vec![first];
        while self.skip_name("and") {
            operands.push(self.not()?);
        }
        Ok(Expr::And(operands))
    }

    fn not(&mut self) -> Res<Expr> {
        if self.skip_name("not") {
            return Ok(Expr::Not(Box::new(self.nested(Self::not)?)));
        }
        self.compare()
    }

    fn compare(&mut self) -> Res<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let (comparison, length) = match self.peek() {
                Kind::Op("==") => (Comparison::Equal, 1),
                Kind::Op("!=") => (Comparison::NotEqual, 1),
                Kind::Op("<") => (Comparison::Less, 1),
                Kind::Op("<=") => (Comparison::LessOrEqual, 1),
                Kind::Op(">") => (Comparison::Greater, 1),
                Kind::Op(">=") => (Comparison::GreaterOrEqual, 1),
                Kind::Name(name) if &**name == "in" => (Comparison::In, 1),
                Kind::Name(name) if &**name == "not" && matches!(self.peek_after(1), Kind::Name(name) if &**name == "in") => {
                    (Comparison::NotIn, 2)
                }
                _ => break,
            };
            (0..length).for_each(|_| drop(self.next()));
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Res<Expr> {
        self.chain(&[("+", Operator::Add), ("-", Operator::Subtract)], Self::concat)
    }

    fn concat(&mut self) -> Res<Expr> {
        let first = self.product()?;
        if !self.is_op("~") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.skip_op("~") {
            parts.push(self.product()?);
        }
        Ok(Expr::Concat(parts))
    }

    fn product(&mut self) -> Res<Expr> {
        let operators = [("*", Operator::Multiply), ("/", Operator::Divide), ("//", Operator::FloorDivide), ("%", Operator::Modulo)];
        self.chain(&operators, |parser| parser.chain(&[("**", Operator::Power)], |parser| parser.unary(true)))
    }

    fn chain(&mut self, operators: &[(&str, Operator)], operand: impl Fn(&mut Self) -> Res<Expr>) -> Res<Expr> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(&(sign, operator)) = operators.iter().find(|(sign, _)| self.is_op(sign)) {
            self.expect_op(sign)?;
            rest.push((operator, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Chain(Box::new(first), rest) })
    }

    fn unary(&mut self, with_filters: bool) -> Res<Expr> {
        let first = if self.skip_op("-") {
            Expr::Negative(Box::new(self.nested(|parser| parser.unary(false))?))
        } else if self.skip_op("+") {
            Expr::Positive(Box::new(self.nested(|parser| parser.unary(false))?))
        } else {
            self.primary()?
        };
        let mut suffixes = Vec::new();
        self.postfix(&mut suffixes)?;
        if with_filters {
            self.filters_and_tests(&mut suffixes)?;
        }
        Ok(if suffixes.is_empty() { first } else { Expr::Postfix(Box::new(first), suffixes) })
    }

    fn primary(&mut self) -> Res<Expr> {
        match self.peek().clone() {
            Kind::Name(name) => {
                self.next();
                self.note_use(&name);
                Ok(match &*name {
                    "true" | "True" => Expr::Bool(true),
                    "false" | "False" => Expr::Bool(false),
                    "none" | "None" => Expr::None,
                    _ => Expr::Name(name),
                })
            }
            Kind::Str(first) => {
                self.next();
                if !matches!(self.peek(), Kind::Str(_)) {
                    return Ok(Expr::Str(first));
                }
                let mut text = first.to_string();
                while let Kind::Str(more) = self.peek().clone() {
                    self.next();
                    text.push_str(&more);
                }
                Ok(Expr::Str(text.into()))
            }
            Kind::Int(value) => {
                self.next();
                Ok(Expr::Int(value))
            }
            Kind::Float(value) => {
                self.next();
                Ok(Expr::Float(value))
            }
            Kind::Op("(") => {
                self.next();
                let inner = if self.is_op(")") { Expr::Tuple(Vec::new()) } else { self.tuple(true, false)? };
                self.expect_op(")")?;
                Ok(inner)
            }
            Kind::Op("[") => {
                self.next();
                Ok(Expr::List(self.items("]", Self::expression)?))
            }
            Kind::Op("{") => {
                self.next();
                let pair = |parser: &mut Self| {
                    let key = parser.expression()?;
                    parser.expect_op(":")?;
                    Ok((key, parser.expression()?))
                };
                Ok(Expr::Dict(self.items("}", pair)?))
            }
            _ => Err(self.unexpected("an expression")),
        }
    }

    fn note_use(&mut self, name: &str) {
        if let Some(used) = self.used.last_mut() {
            match name {
                "varargs" => used.varargs = true,
                "kwargs" => used.kwargs = true,
                "caller" => used.caller = true,
                _ => {}
            }
        }
    }

    /// Items with commas between, and one more comma if wanted, up to `end`, which is taken.
    fn items<T>(&mut self, end: &str, item: impl Fn(&mut Self) -> Res<T>) -> Res<Vec<T>> {
        let mut items = Vec::new();
        while !self.skip_op(end) {
            if !items.is_empty() {
                self.expect_op(",")?;
                if self.skip_op(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn postfix(&mut self, suffixes: &mut Vec<Suffix>) -> Res<()> {
        loop {
            if self.skip_op(".") {
                suffixes.push(match self.peek().clone() {
                    Kind::Name(name) => Suffix::Attribute(name),
                    Kind::Int(place) => Suffix::Item(Expr::Int(place)),
                    _ => return Err(self.unexpected("a name or a number")),
                });
                self.next();
            } else if self.skip_op("[") {
                suffixes.push(self.subscript()?);
            } else if self.is_op("(") {
                suffixes.push(Suffix::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    fn subscript(&mut self) -> Res<Suffix> {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.skip_op(":") {
                colons += 1;
                if colons > 2 {
                    return Err(fault("a slice has at most two colons"));
                }
            } else if self.skip_op("]") {
                break;
            } else if parts[colons].is_some() {
                return Err(self.unexpected("\"]\""));
            } else {
                parts[colons] = Some(self.tuple_in_brackets()?);
            }
        }
        match parts {
            parts if colons > 0 => Ok(Suffix::Slice(Box::new(parts))),
            [Some(item), _, _] => Ok(Suffix::Item(item)),
            _ => Err(fault("expected an expression in []")),
        }
    }

    fn tuple_in_brackets(&mut self) -> Res<Expr> {
        let first = self.expression()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.skip_op(",") && !self.is_op("]") {
            items.push(self.expression()?);
        }
        Ok(Expr::Tuple(items))
    }

    fn filters_and_tests(&mut self, suffixes: &mut Vec<Suffix>) -> Res<()> {
        loop {
            if self.skip_op("|") {
                suffixes.push(Suffix::Filter(self.named_call()?));
            } else if self.skip_name("is") {
                suffixes.push(self.test()?);
            } else if self.is_op("(") {
                suffixes.push(Suffix::Call(self.arguments()?));
            } else {
                return Ok(());
            }
        }
    }

    /// A filter's name with its arguments, if any.
    pub(super) fn named_call(&mut self) -> Res<Call> {
        let name = self.name()?;
        let arguments = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
        Ok(Call { name, arguments })
    }

    fn test(&mut self) -> Res<Suffix> {
        let negated = self.skip_name("not");
        let name = self.name()?;
        let mut arguments = Arguments::default();
        let begins_argument = match self.peek() {
            Kind::Name(name) => !matches!(&**name, "else" | "or" | "and"),
            Kind::Str(_) | Kind::Int(_) | Kind::Float(_) | Kind::Op("[" | "{") => true,
            _ => false,
        };
        if self.is_op("(") {
            arguments = self.arguments()?;
        } else if begins_argument {
            if self.is_name("is") {
                return Err(fault("tests cannot be chained with \"is\""));
            }
            let first = self.nested(Self::primary)?;
            let mut suffixes = Vec::new();
            self.postfix(&mut suffixes)?;
            arguments.positional.push(if suffixes.is_empty() { first } else { Expr::Postfix(Box::new(first), suffixes) });
        }
        Ok(Suffix::Test { call: Call { name, arguments }, negated })
    }

    fn arguments(&mut self) -> Res<Arguments> {
        self.expect_op("(")?;
        let mut arguments = Arguments::default();
        let mut first = true;
        while !self.skip_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.skip_op(")") {
                    break;
                }
            }
            first = false;
            let named = matches!((self.peek(), self.peek_after(1)), (Kind::Name(_), Kind::Op("=")));
            if self.skip_op("*") {
                arguments.list = Some(self.expression()?);
            } else if self.skip_op("**") {
                arguments.dict = Some(self.expression()?);
            } else if named {
                let name = self.name()?;
                self.expect_op("=")?;
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() && arguments.list.is_none() && arguments.dict.is_none() {
                arguments.positional.push(self.expression()?);
            } else {
                return Err(fault("an argument without a name follows one with a name"));
            }
        }
        Ok(arguments)
    }
}
