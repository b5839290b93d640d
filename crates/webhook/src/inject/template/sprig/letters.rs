//! Of the case of letters: names that are written in one way, written in another.

use gotmpl::Value;

use super::super::functions::{Function, text};

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("camelcase", |args| Ok(pascal(&text(args, 0)?).into())),
    ("kebabcase", |args| Ok(joined(&text(args, 0)?, '-').into())),
    ("snakecase", |args| Ok(joined(&text(args, 0)?, '_').into())),
    ("swapcase", |args| Ok(text(args, 0)?.chars().map(swapped).collect::<String>().into())),
    ("title", |args| Ok(Value::from(titled(&text(args, 0)?)))),
];

/// What a word is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Spaces, hyphens, underscores.
    Connector,
    Mark,
    /// Begins with a capital letter.
    Capital,
    Letter,
    Number,
    Other,
}

impl Kind {
    fn of(letter: char) -> Self {
        match letter {
            '-' | '_' => Self::Connector,
            letter if letter.is_whitespace() => Self::Connector,
            // Go's punctuation, of which these ASCII characters are symbols.
            letter if letter.is_ascii_punctuation() && !"$+<=>^`|~".contains(letter) => Self::Mark,
            letter if letter.is_uppercase() => Self::Capital,
            letter if letter.is_alphabetic() => Self::Letter,
            letter if letter.is_numeric() => Self::Number,
            _ => Self::Other,
        }
    }

    /// Whether it separates words by itself.
    fn separates(self) -> bool {
        matches!(self, Self::Connector | Self::Mark)
    }
}

/// The first word of a text that is not empty. `HTTPServer` begins with `HTTP`, `Server` with itself.
fn first_word(text: &str) -> Option<(Kind, &str)> {
    let kind = Kind::of(text.chars().next()?);
    let run = |of: &dyn Fn(Kind) -> bool| text.find(|c| !of(Kind::of(c))).unwrap_or(text.len());
    let length = match kind {
        Kind::Capital => {
            let capitals = run(&|kind| kind == Kind::Capital);
            let last = text[..capitals].char_indices().next_back().map_or(0, |(at, _)| at);
            let rest = &text[capitals..];
            let letters = rest.find(|c| Kind::of(c) != Kind::Letter).unwrap_or(rest.len());
            match (last, letters) {
                (0, letters) => capitals + letters,
                (_, 0) => capitals,
                (last, _) => last,
            }
        }
        kind => run(&|other| other == kind),
    };
    Some((kind, &text[..length]))
}

fn words(text: &str) -> Vec<(Kind, &str)> {
    let mut rest = text;
    std::iter::from_fn(|| {
        let word = first_word(rest)?;
        rest = &rest[word.1.len()..];
        Some(word)
    })
    .collect()
}

/// Words in small letters with `connector` between them; a number is part of the word before it, or begins one with the letters
/// that follow it.
fn joined(text: &str, connector: char) -> String {
    let words = words(text);
    let mut out = String::with_capacity(text.len() + words.len());
    let mut at = 0;
    while let Some((kind, word)) = words.get(at) {
        write(&mut out, *kind, word, connector);
        at += 1;
        let next = words.get(at).map(|(kind, _)| *kind);
        let numbered = match (*kind, next) {
            (Kind::Connector | Kind::Mark, _) | (_, None) => continue,
            (Kind::Number, _) => true,
            (_, Some(Kind::Number)) => {
                let before_letters = words.get(at + 1).is_some_and(|(kind, _)| *kind == Kind::Letter);
                if before_letters {
                    out.push(connector);
                }
                write(&mut out, Kind::Number, words[at].1, connector);
                at += 1;
                before_letters
            }
            _ => false,
        };
        while numbered && let Some((kind @ (Kind::Letter | Kind::Number), word)) = words.get(at) {
            write(&mut out, *kind, word, connector);
            at += 1;
        }
        if words.get(at).is_some_and(|(kind, _)| !kind.separates()) {
            out.push(connector);
        }
    }
    out
}

fn write(out: &mut String, kind: Kind, word: &str, connector: char) {
    match kind {
        Kind::Connector => out.extend(word.chars().map(|_| connector)),
        Kind::Capital => out.push_str(&word.to_lowercase()),
        _ => out.push_str(word),
    }
}

/// Connectors at the beginning stay, and one at the end; all others make the letter behind them a capital one.
fn pascal(text: &str) -> String {
    let is_connector = |letter: char| Kind::of(letter) == Kind::Connector;
    let name = text.trim_start_matches(is_connector);
    let mut out = text[..text.len() - name.len()].to_owned();
    let mut letters = name.chars().peekable();
    let Some(first) = letters.next() else { return out };
    out.extend(first.to_uppercase());
    let mut in_capitals = first.is_uppercase();
    let mut previous = first;
    while let Some(letter) = letters.next() {
        if is_connector(previous) && !is_connector(letter) {
            in_capitals = letter.is_uppercase();
            out.extend(letter.to_uppercase());
        } else if is_connector(letter) {
            let is_kept = is_connector(previous) || letters.peek().is_none();
            out.extend(is_kept.then_some(letter));
        } else {
            in_capitals &= letter.is_uppercase();
            if in_capitals { out.extend(letter.to_lowercase()) } else { out.push(letter) }
        }
        previous = letter;
    }
    out
}

fn swapped(letter: char) -> char {
    let mut changed = if letter.is_uppercase() { letter.to_lowercase().next() } else { letter.to_uppercase().next() };
    changed.take().unwrap_or(letter)
}

/// Go's `strings.Title`: a word begins behind what is neither a letter, a digit nor an underscore.
fn titled(text: &str) -> String {
    let mut is_start = true;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_start {
            out.extend(letter.to_uppercase());
        } else {
            out.push(letter);
        }
        is_start =
            if letter.is_ascii() { !(letter.is_ascii_alphanumeric() || letter == '_') } else { letter.is_whitespace() };
    }
    out
}
