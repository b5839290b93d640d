//! The tokens of an expression.

use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    /// A word that no variable may have for a name.
    Reserved(&'a str),
    /// A number, text, `true`, `false` or `null`, as it is written.
    Literal(&'a str),
    Symbol(&'a str),
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) | Self::Reserved(text) | Self::Symbol(text) => write!(f, "`{text}`"),
            Self::Literal(_) => f.write_str("a value"),
        }
    }
}

/// The longer ones first.
const SYMBOLS: [&str; 24] = [
    "||", "&&", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

const RESERVED: [&str; 16] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "namespace",
    "package",
    "return",
    "var",
    "void",
];

pub(super) fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n', '\x0c']);
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        if rest.is_empty() {
            return Ok(found);
        }
        let (token, length) = one(rest)?;
        found.push(token);
        rest = &rest[length..];
    }
}

fn one(rest: &str) -> Result<(Token<'_>, usize), String> {
    if let Some(length) = text(rest)? {
        return Ok((Token::Literal(&rest[..length]), length));
    }
    if let Some(length) = number(rest) {
        return Ok((Token::Literal(&rest[..length]), length));
    }
    let word = word_length(rest);
    if word > 0 {
        let name = &rest[..word];
        let token = match name {
            "true" | "false" | "null" => Token::Literal(name),
            "in" => Token::Symbol(name),
            "while" => Token::Reserved(name),
            _ if RESERVED.contains(&name) => Token::Reserved(name),
            _ => Token::Name(name),
        };
        return Ok((token, word));
    }
    match SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
        Some(symbol) => Ok((Token::Symbol(symbol), symbol.len())),
        None => Err(format!("unexpected {:?}", rest.chars().next().unwrap_or_default())),
    }
}

fn word_length(rest: &str) -> usize {
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())
}

fn digits(rest: &str) -> usize {
    rest.bytes().take_while(u8::is_ascii_digit).count()
}

/// The length of a number.
fn number(rest: &str) -> Option<usize> {
    if let Some(hex) = rest.strip_prefix("0x") {
        let length = hex.bytes().take_while(u8::is_ascii_hexdigit).count();
        if length > 0 {
            return Some(2 + length + usize::from(hex[length..].starts_with(['u', 'U'])));
        }
    }
    let whole = digits(rest);
    let fraction = rest[whole..].strip_prefix('.').map_or(0, digits);
    let mut length = if fraction > 0 { whole + 1 + fraction } else { whole };
    if length == 0 {
        return None;
    }
    let exponent = rest[length..].strip_prefix(['e', 'E']).map_or(0, |power| {
        let sign = usize::from(power.starts_with(['+', '-']));
        let count = digits(&power[sign..]);
        if count > 0 { 1 + sign + count } else { 0 }
    });
    length += exponent;
    let is_whole = fraction == 0 && exponent == 0;
    Some(length + usize::from(is_whole && rest[length..].starts_with(['u', 'U'])))
}

/// The length of a text or of bytes; `None` if none begins here.
fn text(rest: &str) -> Result<Option<usize>, String> {
    let prefix = rest.bytes().take_while(|b| matches!(b, b'r' | b'R' | b'b' | b'B')).count();
    let after = &rest[prefix..];
    let Some(quote) = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| after.starts_with(quote)) else {
        return Ok(None);
    };
    let raw = rest[..prefix].contains(['r', 'R']);
    if prefix > 2 || (prefix == 2 && rest[..2].eq_ignore_ascii_case("rr")) {
        return Ok(None);
    }
    let body = &after[quote.len()..];
    let mut position = 0;
    while let Some(c) = body[position..].chars().next() {
        if body[position..].starts_with(quote) {
            return Ok(Some(prefix + 2 * quote.len() + position));
        }
        match c {
            '\n' | '\r' if quote.len() == 1 => break,
            '\\' if !raw => position += escape(&body[position..]).ok_or("an unknown escape in a text")?,
            c => position += c.len_utf8(),
        }
    }
    Err("a text without its end".into())
}

/// The length of an escape, the backslash included.
fn escape(rest: &str) -> Option<usize> {
    let hex = |count: usize| {
        let found = rest.bytes().skip(2).take(count).filter(u8::is_ascii_hexdigit).count();
        (found == count).then_some(2 + count)
    };
    match rest.as_bytes().get(1)? {
        b'\\' | b'?' | b'"' | b'\'' | b'`' | b'a' | b'b' | b'f' | b'n' | b'r' | b't' | b'v' => Some(2),
        b'x' | b'X' => hex(2),
        b'u' => hex(4),
        b'U' => hex(8),
        b'0'..=b'3' => rest.bytes().skip(2).take(2).all(|b| (b'0'..=b'7').contains(&b)).then_some(4),
        _ => None,
    }
}
