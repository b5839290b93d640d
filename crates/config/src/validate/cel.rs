//! Whether a text is an expression of the Common Expression Language: its syntax, not what its names mean.
//!
//! A recursive descent over the grammar of the language's definition. Linear in the text; depth is bounded.

mod tokens;

use self::tokens::{Token, tokens};

/// As deep as Istio's parser goes.
const MAX_DEPTH: usize = 250;

/// Macros that bind a variable: of so many arguments, the first of which is its name.
const COMPREHENSIONS: &[(&str, &[usize])] =
    &[("all", &[2]), ("exists", &[2]), ("exists_one", &[2]), ("existsOne", &[2]), ("map", &[2, 3]), ("filter", &[2])];

/// What is wrong with an expression, if it is none.
pub(super) fn expression(text: &str) -> Result<(), String> {
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    parser.ternary()?;
    match parser.peek() {
        None => Ok(()),
        Some(token) => Err(format!("unexpected {token}")),
    }
}

/// What a part of an expression is, as far as macros ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Name,
    Selection,
    Other,
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    next: usize,
    depth: usize,
}

type Parsed = Result<Form, String>;

/// Binary operators, those that bind least first.
const LEVELS: &[&[&str]] =
    &[&["||"], &["&&"], &["<", "<=", ">", ">=", "==", "!=", "in"], &["+", "-"], &["*", "/", "%"]];

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
        let mut form = self.binary(0)?;
        if self.take("?") {
            self.binary(0)?;
            self.need(":")?;
            self.ternary()?;
            form = Form::Other;
        }
        self.depth -= 1;
        Ok(form)
    }

    fn binary(&mut self, level: usize) -> Parsed {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut form = self.binary(level + 1)?;
        while operators.iter().any(|operator| self.take(operator)) {
            self.binary(level + 1)?;
            form = Form::Other;
        }
        Ok(form)
    }

    fn unary(&mut self) -> Parsed {
        let operator = ["!", "-"].into_iter().find(|operator| self.take(operator));
        let Some(operator) = operator else { return self.member() };
        while self.take(operator) {}
        self.member()?;
        Ok(Form::Other)
    }

    fn member(&mut self) -> Parsed {
        let (mut form, mut path) = self.primary()?;
        loop {
            if self.take(".") {
                let name = self.selector()?;
                form = Form::Selection;
                if self.take("(") {
                    let arguments = self.list(")")?;
                    macro_arguments(name, &arguments)?;
                    (form, path) = (Form::Other, false);
                }
            } else if self.take("[") {
                self.ternary()?;
                self.need("]")?;
                (form, path) = (Form::Other, false);
            } else if path && self.take("{") {
                self.message()?;
                (form, path) = (Form::Other, false);
            } else {
                return Ok(form);
            }
        }
    }

    /// The form, and whether a message may be made of it: a name, or names after dots.
    fn primary(&mut self) -> Result<(Form, bool), String> {
        let rooted = self.take(".");
        match self.peek() {
            Some(Token::Name(name)) => {
                self.next += 1;
                if !self.take("(") {
                    return Ok((Form::Name, true));
                }
                let arguments = self.list(")")?;
                if name == "has" && arguments != [Form::Selection] {
                    return Err("has() needs a field, as in has(a.b)".into());
                }
                Ok((Form::Other, false))
            }
            _ if rooted => Err(self.missing("a name")),
            Some(Token::Literal) => {
                self.next += 1;
                Ok((Form::Other, false))
            }
            _ if self.take("(") => {
                let form = self.ternary()?;
                self.need(")")?;
                Ok((form, false))
            }
            _ if self.take("[") => self.list("]").map(|_| (Form::Other, false)),
            _ if self.take("{") => self.map().map(|()| (Form::Other, false)),
            _ => Err(self.missing("an operand")),
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

    /// Elements up to the end; after the last one of a list a comma may stand.
    fn list(&mut self, end: &str) -> Result<Vec<Form>, String> {
        let mut forms = Vec::new();
        while !self.take(end) {
            forms.push(self.ternary()?);
            if !self.take(",") {
                self.need(end)?;
                break;
            }
            if end == ")" && self.peek() == Some(Token::Symbol(end)) {
                return Err(self.missing("an argument"));
            }
        }
        Ok(forms)
    }

    fn map(&mut self) -> Result<(), String> {
        while !self.take("}") {
            self.ternary()?;
            self.need(":")?;
            self.ternary()?;
            if !self.take(",") {
                return self.need("}");
            }
        }
        Ok(())
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

fn macro_arguments(name: &str, arguments: &[Form]) -> Result<(), String> {
    let binds = COMPREHENSIONS.iter().any(|(known, counts)| *known == name && counts.contains(&arguments.len()));
    if binds && arguments.first() != Some(&Form::Name) {
        return Err(format!("the first argument of {name}() must be the name of a variable"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
