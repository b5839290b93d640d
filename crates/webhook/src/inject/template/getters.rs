//! Templates as the engine reads them: getters are written as the fields that they get, and comments are taken out, since the
//! engine trims text behind a comment that trims only before it.

/// Types of one value, whose value the engine has in their place (`google.protobuf.BoolValue` and the like).
const WRAPPERS: [&str; 5] =
    ["HoldApplicationUntilProxyStarts", "Concurrency", "EnablePrometheusMerge", "EnableAutoMtls", "StatsCompression"];
/// Methods that give what the engine has already.
const IDENTITIES: [&str; 3] = ["GetValue", "String", "AsDuration"];

/// The text of a template, with getters inside of its actions replaced and without its comments.
pub fn as_fields(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        let (before, action) = rest.split_at(start);
        out.push_str(before);
        let (action, after) = action.split_at(end_of_action(action));
        rest = after;
        if !is_comment(action) {
            rewrite(action, &mut out);
            continue;
        }
        if action.starts_with("{{-") {
            out.truncate(out.trim_end().len());
        }
        if action.ends_with("-}}") {
            rest = rest.trim_start();
        }
    }
    out.push_str(rest);
    out
}

fn is_comment(action: &str) -> bool {
    let inside = action.strip_prefix("{{- ").or_else(|| action.strip_prefix("{{"));
    inside.is_some_and(|inside| inside.trim_start().starts_with("/*"))
}

/// Behind its `}}`; quoted ones do not count.
fn end_of_action(action: &str) -> usize {
    let mut at = 2;
    while at < action.len() {
        let rest = &action[at..];
        if rest.starts_with("}}") {
            return at + 2;
        }
        at += literal(rest).unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
    }
    action.len()
}

/// The length of a literal or comment at the beginning of a text.
fn literal(text: &str) -> Option<usize> {
    let closed = |from: usize, end: &str| text[from..].find(end).map_or(text.len(), |found| from + found + end.len());
    match text.as_bytes().first()? {
        b'`' => Some(closed(1, "`")),
        b'/' if text.starts_with("/*") => Some(closed(2, "*/")),
        quote @ (b'"' | b'\'') => {
            let mut escaped = false;
            let end = text.bytes().skip(1).position(|byte| {
                let is_end = byte == *quote && !escaped;
                escaped = byte == b'\\' && !escaped;
                is_end
            });
            Some(end.map_or(text.len(), |end| end + 2))
        }
        _ => None,
    }
}

fn rewrite(action: &str, out: &mut String) {
    let mut rest = action;
    let mut previous = "";
    while !rest.is_empty() {
        if let Some(length) = literal(rest) {
            out.push_str(&rest[..length]);
            rest = &rest[length..];
            continue;
        }
        let Some(name) = rest.strip_prefix('.').map(identifier).filter(|name| !name.is_empty()) else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..length]);
            (rest, previous) = (&rest[length..], "");
            continue;
        };
        rest = &rest[1 + name.len()..];
        let field = field(name, previous);
        if !field.is_empty() {
            out.push('.');
            out.push_str(field);
            previous = field;
        }
    }
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// What a name in a chain becomes; empty for what falls away.
fn field<'a>(name: &'a str, previous: &str) -> &'a str {
    let is_method = !previous.is_empty() && IDENTITIES.contains(&name);
    if is_method || (name == "Value" && WRAPPERS.contains(&previous)) {
        return "";
    }
    match name.strip_prefix("Get") {
        Some(field) if field.starts_with(|c: char| c.is_ascii_uppercase()) => field,
        _ => name,
    }
}
