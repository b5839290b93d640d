//! From the text of an expression to its tree: a recursive descent over the grammar of the language's definition.
//!
//! Linear in the text. Depth is bounded twice: of the descent, and of the tree, which repeated selections deepen, too.

use super::literal;
use super::tokens::{Token, tokens};
use super::value::Value;

/// As deep as Istio's parser goes.
const MAX_DEPTH: usize = 250;
/// Of the tree.
const MAX_HEIGHT: usize = 300;

/// Macros that bind a variable: of so many arguments, the first of which is its name.
const COMPREHENSIONS: &[(&str, &[usize], Macro)] = &[
    ("all", &[2], Macro::All),
    ("exists", &[2], Macro::Exists),
    ("exists_one", &[2], Macro::ExistsOne),
    ("existsOne", &[2], Macro::ExistsOne),
    ("map", &[2, 3], Macro::Map),
    ("filter", &[2], Macro::Filter),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    /// Of three arguments, the second says which elements.
    Map,
    Filter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    Unequal,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Debug, Clone)]
pub(super) enum Expr {
    Literal(Value),
    Name(String),
    Select(Box<Expr>, String),
    Has(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    Call {
        function: String,
        receiver: Option<Box<Expr>>,
        arguments: Vec<Expr>,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// A message of protobuf, which no rule of a definition can make.
    Message,
    /// Any of them.
    Or(Vec<Expr>),
    /// All of them.
    And(Vec<Expr>),
    Not(Box<Expr>),
    Negative(Box<Expr>),
    Binary(Operator, Box<Expr>, Box<Expr>),
    /// The condition, and what follows if it holds and if not.
    Choice(Box<[Expr; 3]>),
    Comprehension(Box<Comprehension>),
}

#[derive(Debug, Clone)]
pub(super) struct Comprehension {
    pub what: Macro,
    pub over: Expr,
    pub variable: String,
    pub body: Vec<Expr>,
}

impl Expr {
    /// What it is made of, but for comprehensions' variables.
    pub fn children(&self) -> Vec<&Expr> {
        match self {
            Self::Literal(_) | Self::Name(_) | Self::Message => Vec::new(),
            Self::Select(of, _) | Self::Has(of, _) | Self::Not(of) | Self::Negative(of) => vec![of],
            Self::Index(of, at) | Self::Binary(_, of, at) => vec![of, at],
            Self::Call { receiver, arguments, .. } => receiver.as_deref().into_iter().chain(arguments).collect(),
            Self::List(items) | Self::Or(items) | Self::And(items) => items.iter().collect(),
            Self::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Self::Choice(parts) => parts.iter().collect(),
            Self::Comprehension(of) => std::iter::once(&of.over).chain(&of.body).collect(),
        }
    }
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let parsed = parser.ternary()?;
    match parser.peek() {
        None => Ok(parsed.expr),
        Some(token) => Err(format!("unexpected {token}")),
    }
}

/// A part of an expression, and how deep its tree is.
struct Part {
    expr: Expr,
    height: usize,
}

impl Part {
    fn leaf(expr: Expr) -> Self {
        Self { expr, height: 1 }
    }

    /// A node over parts of these heights.
    fn over(expr: Expr, heights: impl IntoIterator<Item = usize>) -> Parsed {
        let height = 1 + heights.into_iter().max().unwrap_or(0);
        if height > MAX_HEIGHT { Err(format!("deeper than {MAX_HEIGHT} levels")) } else { Ok(Self { expr, height }) }
    }
}

type Parsed = Result<Part, String>;

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

/// Binary operators: how tightly they bind, and which they are. `||` and `&&` are none, since they join many.
const OPERATORS: &[(&str, usize, Option<Operator>)] = &[
    ("||", OR, None),
    ("&&", AND, None),
    ("<", 3, Some(Operator::Less)),
    ("<=", 3, Some(Operator::LessOrEqual)),
    (">", 3, Some(Operator::Greater)),
    (">=", 3, Some(Operator::GreaterOrEqual)),
    ("==", 3, Some(Operator::Equal)),
    ("!=", 3, Some(Operator::Unequal)),
    ("in", 3, Some(Operator::In)),
    ("+", 4, Some(Operator::Add)),
    ("-", 4, Some(Operator::Subtract)),
    ("*", 5, Some(Operator::Multiply)),
    ("/", 5, Some(Operator::Divide)),
    ("%", 5, Some(Operator::Remainder)),
];
const OR: usize = 1;
const AND: usize = 2;

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.get(self.next).copied()
    }

    fn take(&mut self, symbol: &str) -> bool {
        let found = self.peek() == Some(Token::Symbol(symbol));
        self.next += usize::from(found);
        found
    }

    fn need(&mut self, symbol: &str) -> Result<(), String> {
        if self.take(symbol) { Ok(()) } else { Err(self.missing(symbol)) }
    }

    fn missing(&self, what: &str) -> String {
        match self.peek() {
            Some(token) => format!("expected {what}, found {token}"),
            None => format!("expected {what}, found the end"),
        }
    }

    fn ternary(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("deeper than {MAX_DEPTH} levels"));
        }
        let mut part = self.binary(OR)?;
        if self.take("?") {
            let then = self.binary(OR)?;
            self.need(":")?;
            let other = self.ternary()?;
            let heights = [part.height, then.height, other.height];
            part = Part::over(Expr::Choice(Box::new([part.expr, then.expr, other.expr])), heights)?;
        }
        self.depth -= 1;
        Ok(part)
    }

    /// Operands and the operators between them that bind at least so tightly.
    fn binary(&mut self, least: usize) -> Parsed {
        let mut left = self.unary()?;
        while let Some(Token::Symbol(symbol)) = self.peek()
            && let Some((_, binding, operator)) = OPERATORS.iter().find(|(known, ..)| *known == symbol)
            && *binding >= least
        {
            self.next += 1;
            let right = self.binary(binding + 1)?;
            left = combined(left, *binding, *operator, right)?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed {
        let operator = ["!", "-"].into_iter().find(|operator| self.take(operator));
        let Some(operator) = operator else { return self.member() };
        let mut odd = true;
        while self.take(operator) {
            odd = !odd;
        }
        if operator == "-"
            && let Some(Token::Literal(text)) = self.peek()
            && let Some(value) = literal::negative(text).filter(|_| odd)
        {
            self.next += 1;
            return self.members(Part::leaf(Expr::Literal(value)), false);
        }
        let part = self.member()?;
        let make = if operator == "!" { Expr::Not } else { Expr::Negative };
        let heights = [part.height + 1];
        let once = make(Box::new(part.expr));
        // Twice is not the same as never: the operand must still have the right type.
        Part::over(if odd { once } else { make(Box::new(once)) }, heights)
    }

    fn member(&mut self) -> Parsed {
        let (part, path) = self.primary()?;
        self.members(part, path)
    }

    /// What follows an operand; `path` says whether a message may be made of it: it is a name, or names after dots.
    fn members(&mut self, mut part: Part, mut path: bool) -> Parsed {
        loop {
            if self.take(".") {
                let name = self.selector()?;
                if self.take("(") {
                    part = self.method(part, name)?;
                    path = false;
                } else {
                    let heights = [part.height];
                    part = Part::over(Expr::Select(Box::new(part.expr), name.to_owned()), heights)?;
                }
            } else if self.take("[") {
                let at = self.ternary()?;
                self.need("]")?;
                let heights = [part.height, at.height];
                part = Part::over(Expr::Index(Box::new(part.expr), Box::new(at.expr)), heights)?;
                path = false;
            } else if path && self.take("{") {
                self.message()?;
                part = Part::leaf(Expr::Message);
                path = false;
            } else {
                return Ok(part);
            }
        }
    }

    fn method(&mut self, receiver: Part, name: &str) -> Parsed {
        let (mut arguments, height) = self.list(")")?;
        let heights = [receiver.height, height];
        let known =
            COMPREHENSIONS.iter().find(|(known, counts, _)| *known == name && counts.contains(&arguments.len()));
        let Some((_, _, what)) = known else {
            let receiver = Some(Box::new(receiver.expr));
            return Part::over(Expr::Call { function: name.to_owned(), receiver, arguments }, heights);
        };
        let Expr::Name(variable) = arguments.remove(0) else {
            return Err(format!("the first argument of {name}() must be the name of a variable"));
        };
        let comprehension = Comprehension { what: *what, over: receiver.expr, variable, body: arguments };
        Part::over(Expr::Comprehension(Box::new(comprehension)), heights)
    }

    fn primary(&mut self) -> Result<(Part, bool), String> {
        let rooted = self.take(".");
        match self.peek() {
            Some(Token::Name(name)) => {
                self.next += 1;
                if self.take("(") { self.function(name) } else { Ok((Part::leaf(Expr::Name(name.to_owned())), true)) }
            }
            _ if rooted => Err(self.missing("a name")),
            Some(Token::Literal(text)) => {
                self.next += 1;
                Ok((Part::leaf(Expr::Literal(literal::value(text)?)), false))
            }
            _ if self.take("(") => {
                let part = self.ternary()?;
                self.need(")")?;
                Ok((part, false))
            }
            _ if self.take("[") => {
                let (items, height) = self.list("]")?;
                Part::over(Expr::List(items), [height]).map(|part| (part, false))
            }
            _ if self.take("{") => self.map().map(|part| (part, false)),
            _ => Err(self.missing("an operand")),
        }
    }

    fn function(&mut self, name: &str) -> Result<(Part, bool), String> {
        let (mut arguments, height) = self.list(")")?;
        if name != "has" {
            let call = Expr::Call { function: name.to_owned(), receiver: None, arguments };
            return Part::over(call, [height]).map(|part| (part, false));
        }
        match (arguments.pop(), arguments.is_empty()) {
            (Some(Expr::Select(of, field)), true) => {
                Part::over(Expr::Has(of, field), [height]).map(|part| (part, false))
            }
            _ => Err("has() needs a field, as in has(a.b)".into()),
        }
    }

    /// Words that are no names may be fields.
    fn selector(&mut self) -> Result<&'a str, String> {
        let name = match self.peek() {
            Some(Token::Name(name) | Token::Reserved(name)) => name,
            _ => return Err(self.missing("a field")),
        };
        self.next += 1;
        Ok(name)
    }

    /// Elements up to the end, and the height of the tallest; after the last one of a list a comma may stand.
    fn list(&mut self, end: &str) -> Result<(Vec<Expr>, usize), String> {
        let (mut items, mut height) = (Vec::new(), 0);
        while !self.take(end) {
            let item = self.ternary()?;
            height = height.max(item.height);
            items.push(item.expr);
            if !self.take(",") {
                self.need(end)?;
                break;
            }
            if end == ")" && self.peek() == Some(Token::Symbol(end)) {
                return Err(self.missing("an argument"));
            }
        }
        Ok((items, height))
    }

    fn map(&mut self) -> Parsed {
        let (mut entries, mut height) = (Vec::new(), 0);
        while !self.take("}") {
            let key = self.ternary()?;
            self.need(":")?;
            let value = self.ternary()?;
            height = height.max(key.height).max(value.height);
            entries.push((key.expr, value.expr));
            if !self.take(",") {
                self.need("}")?;
                break;
            }
        }
        Part::over(Expr::Map(entries), [height])
    }

    fn message(&mut self) -> Result<(), String> {
        while !self.take("}") {
            self.selector()?;
            self.need(":")?;
            self.ternary()?;
            if !self.take(",") {
                return self.need("}");
            }
        }
        Ok(())
    }
}

/// Joins of many parts stay flat, so that they may be long.
fn combined(left: Part, binding: usize, operator: Option<Operator>, right: Part) -> Parsed {
    let heights = [left.height, right.height];
    let expr = match (operator, left.expr) {
        (Some(operator), of) => Expr::Binary(operator, Box::new(of), Box::new(right.expr)),
        (None, Expr::Or(mut parts)) if binding == OR => {
            parts.push(right.expr);
            return Ok(Part { expr: Expr::Or(parts), height: left.height.max(right.height + 1) });
        }
        (None, Expr::And(mut parts)) if binding == AND => {
            parts.push(right.expr);
            return Ok(Part { expr: Expr::And(parts), height: left.height.max(right.height + 1) });
        }
        (None, of) if binding == OR => Expr::Or(vec![of, right.expr]),
        (None, of) => Expr::And(vec![of, right.expr]),
    };
    Part::over(expr, heights)
}
