//! Of the length of lines, in bytes.

use gotmpl::Result;

use super::super::functions::{Function, number, refuse, text};

/// Bound of the breaks that a text may get.
const MAX_LINES: usize = 10_000;
/// In place of what is left out.
const MARK: &str = "...";

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("abbrevboth", |args| {
        let (left, right) = (number(args, 0)?, number(args, 1)?);
        Ok(abbreviated(&text(args, 2)?, left, right).into())
    }),
    ("wrap", |args| Ok(wrapped(&text(args, 1)?, number(args, 0)?, "\n", false)?.into())),
    ("wrapWith", |args| Ok(wrapped(&text(args, 2)?, number(args, 0)?, &text(args, 1)?, true)?.into())),
];

/// At most `length` bytes between breaks; a longer word is broken, or left whole.
fn wrapped(text: &str, length: i64, separator: &str, breaks_words: bool) -> Result<String> {
    let length = usize::try_from(length).unwrap_or(1).max(1);
    let separator = if separator.is_empty() { "\n" } else { separator };
    let mut lines: Vec<&str> = Vec::new();
    let mut rest = text;
    while rest.len() > length {
        if let Some(behind) = rest.strip_prefix(' ') {
            rest = behind;
            continue;
        }
        if lines.len() == MAX_LINES {
            return refuse(format!("makes more than {MAX_LINES} lines"));
        }
        let end = rest.ceil_char_boundary(length);
        let space = rest.as_bytes()[..=length].iter().rposition(|byte| *byte == b' ');
        let (line, skipped) = match (space, breaks_words) {
            (Some(at), _) => (at, 1),
            (None, true) => (end, 0),
            (None, false) => rest[end..].find(' ').map_or((rest.len(), 0), |found| (end + found, 1)),
        };
        // What ends the text has no break behind it.
        if line == rest.len() {
            break;
        }
        lines.push(&rest[..line]);
        rest = &rest[line + skipped..];
    }
    lines.push(rest);
    Ok(lines.join(separator))
}

/// `right` bytes of a text, from about `left` on, with marks where something is left out.
fn abbreviated(text: &str, left: i64, right: i64) -> String {
    let Some(width) = usize::try_from(right).ok().filter(|width| *width >= if left > 0 { 7 } else { 4 }) else {
        return text.to_owned();
    };
    if text.len() <= width {
        return text.to_owned();
    }
    let kept = width - MARK.len();
    let start = usize::try_from(left).unwrap_or_default().min(text.len() - kept);
    if start <= 4 {
        return format!("{}{MARK}", &text[..text.floor_char_boundary(kept)]);
    }
    let tail = &text[text.ceil_char_boundary(start)..];
    if start + kept < text.len() {
        let middle = &tail[..tail.floor_char_boundary(kept - MARK.len())];
        return format!("{MARK}{middle}{MARK}");
    }
    format!("{MARK}{tail}")
}
