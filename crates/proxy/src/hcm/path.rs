//! Path normalisation, as Envoy's `normalize_path`, `merge_slashes` and `path_with_escaped_slashes_action`.
//!
//! A path that is normal already costs one scan and no allocation.

use meltemi_http::ByteStr;
use meltemi_plan::hcm::EscapedSlashes;

#[derive(Debug, PartialEq, Eq)]
pub enum Normalized {
    /// Nothing to do.
    Same,
    Changed(ByteStr),
    /// The client is sent to the normal form.
    Redirect(ByteStr),
    Rejected,
}

pub fn normalize(path: &str, dots: bool, merge: bool, escaped: EscapedSlashes) -> Normalized {
    if is_plain(path.as_bytes()) {
        return Normalized::Same;
    }
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (before, query) = path.split_at(end);
    let escapes = escaped != EscapedSlashes::Keep && has_escaped_slash(before);
    if dots && before.contains("%00") {
        return Normalized::Rejected;
    }
    let normal = !(escapes || dots && needs_dots(before) || merge && before.contains("//"));
    if normal {
        return Normalized::Same;
    }
    let mut current = before.to_owned();
    let mut redirect = false;
    if escapes {
        match escaped {
            EscapedSlashes::Reject => return Normalized::Rejected,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            EscapedSlashes::Keep | EscapedSlashes::UnescapeAndForward => {}
        }
        current = unescape_slashes(&current);
    }
    if dots && needs_dots(&current) {
        let Some(clean) = remove_dots(&decode_unreserved(&current.replace('\\', "/"))) else {
            return Normalized::Rejected;
        };
        current = clean;
    }
    if merge && current.contains("//") {
        current = merge_slashes(&current);
    }
    if current == before {
        return Normalized::Same;
    }
    let whole = ByteStr::from(current + query);
    if redirect { Normalized::Redirect(whole) } else { Normalized::Changed(whole) }
}

/// Nothing before the query that any step looks for: most paths, by one scan.
fn is_plain(path: &[u8]) -> bool {
    let mut after_slash = false;
    for byte in path {
        match byte {
            b'?' | b'#' => return true,
            b'%' | b'\\' => return false,
            b'/' | b'.' if after_slash => return false,
            _ => after_slash = *byte == b'/',
        }
    }
    true
}

fn has_escaped_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|w| w[0] == b'%' && is_slash_escape(w[1], w[2]))
}

fn is_slash_escape(high: u8, low: u8) -> bool {
    matches!((high, low), (b'2', b'f' | b'F') | (b'5', b'c' | b'C'))
}

fn unescape_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let bytes = rest.as_bytes();
        out.push_str(&rest[..at]);
        match (bytes.get(at + 1), bytes.get(at + 2)) {
            (Some(&high), Some(&low)) if is_slash_escape(high, low) => {
                out.push(if high == b'2' { '/' } else { '\\' });
                rest = &rest[at + 3..];
            }
            _ => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

fn needs_dots(path: &str) -> bool {
    path.contains("/.") || path.contains('%') || path.contains('\\')
}

/// Percent-encoded unreserved characters as themselves (RFC 3986 6.2.2.2).
fn decode_unreserved(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut out = String::with_capacity(path.len());
    let mut i = 0;
    while i < bytes.len() {
        let decoded = (bytes[i] == b'%').then(|| bytes.get(i + 1..i + 3)).flatten().and_then(|hex| {
            let text = std::str::from_utf8(hex).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
            u8::from_str_radix(text, 16).ok()
        });
        match decoded {
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                out.push(char::from(b));
                i += 3;
            }
            _ => {
                out.push(char::from(bytes[i]));
                i += 1;
            }
        }
    }
    out
}

/// RFC 3986 5.2.4 for absolute paths; `None` when it is not one.
fn remove_dots(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let mut kept: Vec<&str> = Vec::new();
    let mut open_end = false;
    for segment in rest.split('/') {
        open_end = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if out.is_empty() || (open_end && !out.ends_with('/')) {
        out.push('/');
    }
    Some(out)
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if !(c == '/' && out.ends_with('/')) {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        let same = |p: &'static str| (p, Normalized::Same);
        let to = |p: &'static str, q: &'static str| (p, Normalized::Changed(ByteStr::from(q)));
        let cases = [
            same("/"),
            same("/a/b?x=/../y"),
            same("/a%20b"),
            to("/a/../b", "/b"),
            to("/a/./b/..", "/a/"),
            to("/../../x?q", "/x?q"),
            to("/a//b", "/a/b"),
            to("/%61/%2e%2e/b", "/b"),
            to("/a\\..\\b", "/b"),
            to("/a%2Fb", "/a/b"),
            to("/..", "/"),
        ];
        for (path, expected) in cases {
            assert_eq!(normalize(path, true, true, EscapedSlashes::UnescapeAndForward), expected, "{path}");
        }
    }

    #[test]
    fn escaped_slashes() {
        let check = |action| normalize("/a%2fb", true, true, action);
        assert_eq!(check(EscapedSlashes::Keep), Normalized::Same);
        assert_eq!(check(EscapedSlashes::Reject), Normalized::Rejected);
        assert_eq!(check(EscapedSlashes::UnescapeAndRedirect), Normalized::Redirect(ByteStr::from("/a/b")));
    }
}
