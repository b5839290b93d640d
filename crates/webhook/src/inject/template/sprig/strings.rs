//! Of texts.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gotmpl::{Result, Value};

use super::super::functions::{Function, arg, list, number, refuse, text};
use super::super::view;
use super::{bool_of, repeated, spaces};

pub const FUNCTIONS: &[(&str, Function)] = &[
    ("abbrev", |args| {
        let (width, whole) = (number(args, 0)?, text(args, 1)?);
        let width = usize::try_from(width).ok().filter(|width| *width >= 4 && whole.len() > *width);
        Ok(width
            .map_or_else(|| whole.clone(), |width| format!("{}...", &whole[..whole.floor_char_boundary(width - 3)]))
            .into())
    }),
    ("b32dec", |args| Ok(base32_decoded(&text(args, 0)?).into())),
    ("b32enc", |args| Ok(base32(text(args, 0)?.as_bytes()).into())),
    ("b64dec", |args| match STANDARD.decode(text(args, 0)?) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned().into()),
        Err(error) => Ok(error.to_string().into()),
    }),
    ("b64enc", |args| Ok(STANDARD.encode(text(args, 0)?).into())),
    ("cat", |args| Ok(args.iter().map(Value::to_string).collect::<Vec<_>>().join(" ").into())),
    ("fromJson", |args| Ok(serde_json::from_str(&text(args, 0)?).map_or(Value::Nil, |json| view::plain(&json)))),
    ("hasPrefix", |args| bool_of(text(args, 1)?.starts_with(&text(args, 0)?))),
    ("hasSuffix", |args| bool_of(text(args, 1)?.ends_with(&text(args, 0)?))),
    ("initials", |args| {
        Ok(text(args, 0)?.split_whitespace().filter_map(|word| word.chars().next()).collect::<String>().into())
    }),
    ("join", |args| {
        let parts: Vec<String> = match arg(args, 1)? {
            Value::List(_) => {
                list(args, 1)?.iter().filter(|part| !matches!(part, Value::Nil)).map(Value::to_string).collect()
            }
            other => vec![other.to_string()],
        };
        Ok(parts.join(&text(args, 0)?).into())
    }),
    ("lower", |args| Ok(text(args, 0)?.to_lowercase().into())),
    ("nindent", |args| {
        let margin = spaces(number(args, 0)?)?;
        Ok(format!("\n{margin}{}", text(args, 1)?.replace('\n', &format!("\n{margin}"))).into())
    }),
    ("mustFromJson", |args| match serde_json::from_str(&text(args, 0)?) {
        Ok(json) => Ok(view::plain(&json)),
        Err(error) => refuse(error.to_string()),
    }),
    ("nospace", |args| Ok(text(args, 0)?.split_whitespace().collect::<String>().into())),
    ("plural", |args| text(args, if number(args, 2)? == 1 { 0 } else { 1 }).map(Value::from)),
    ("quote", |args| Ok(each(args, |value| quoted(&value.to_string())).into())),
    ("repeat", |args| Ok(repeated(&text(args, 1)?, number(args, 0)?)?.into())),
    ("replace", |args| {
        let replaced = text(args, 2)?.replace(&text(args, 0)?, &text(args, 1)?);
        Ok(replaced.into())
    }),
    ("split", |args| {
        let (separator, whole) = (text(args, 0)?, text(args, 1)?);
        let parts = whole.split(&separator).enumerate();
        Ok(parts.map(|(at, part)| (format!("_{at}"), part.into())).collect::<std::collections::BTreeMap<_, _>>().into())
    }),
    ("splitList", |args| {
        let (separator, whole) = (text(args, 0)?, text(args, 1)?);
        Ok(whole.split(&separator).map(Value::from).collect::<Vec<_>>().into())
    }),
    ("splitn", |args| {
        let (separator, count, whole) = (text(args, 0)?, number(args, 1)?, text(args, 2)?);
        let parts = whole.splitn(usize::try_from(count).unwrap_or(usize::MAX), &separator).enumerate();
        Ok(parts.map(|(at, part)| (format!("_{at}"), part.into())).collect::<std::collections::BTreeMap<_, _>>().into())
    }),
    ("squote", |args| Ok(each(args, |value| format!("'{value}'")).into())),
    ("substr", substring),
    ("toJson", |args| Ok(view::json_text(arg(args, 0)?).into())),
    ("toPrettyJson", |args| {
        let json = view::to_json(arg(args, 0)?);
        serde_json::to_string_pretty(&json).map_or_else(|error| refuse(error.to_string()), |text| Ok(text.into()))
    }),
    ("toRawJson", |args| Ok(view::to_json(arg(args, 0)?).to_string().into())),
    ("toString", |args| Ok(text(args, 0)?.into())),
    ("trim", |args| Ok(text(args, 0)?.trim().into())),
    ("trimAll", |args| Ok(trimmed_of(args)?.into())),
    ("trimPrefix", |args| {
        let (prefix, whole) = (text(args, 0)?, text(args, 1)?);
        Ok(whole.strip_prefix(&prefix).unwrap_or(&whole).into())
    }),
    ("trimSuffix", |args| {
        let (suffix, whole) = (text(args, 0)?, text(args, 1)?);
        Ok(whole.strip_suffix(&suffix).unwrap_or(&whole).into())
    }),
    ("trunc", truncated),
    ("untitle", |args| Ok(untitled(&text(args, 0)?).into())),
    ("upper", |args| Ok(text(args, 0)?.to_uppercase().into())),
];

/// RFC 4648, section 6.
const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(5) * 8);
    for chunk in bytes.chunks(5) {
        let bits = (0..5).fold(0u64, |bits, at| bits << 8 | u64::from(chunk.get(at).copied().unwrap_or_default()));
        let letters = (chunk.len() * 8).div_ceil(5);
        for at in 0..8 {
            let index = usize::try_from(bits >> (35 - 5 * at) & 31).unwrap_or_default();
            out.push(if at < letters { char::from(BASE32[index]) } else { '=' });
        }
    }
    out
}

/// What is wrong is said in place of the text, as sprig does.
fn base32_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0u32, 0);
    for (at, byte) in text.trim_end_matches('=').bytes().enumerate() {
        let Some(value) = BASE32.iter().position(|letter| *letter == byte).and_then(|value| u32::try_from(value).ok())
        else {
            return format!("illegal base32 data at input byte {at}");
        };
        bits = (bits << 5 | value) & 0xfff;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.extend(u8::try_from(bits >> count & 0xff));
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn each(args: &[Value], write: impl Fn(&Value) -> String) -> String {
    args.iter().filter(|value| !matches!(value, Value::Nil)).map(write).collect::<Vec<_>>().join(" ")
}

/// Go's `%q`, whose escapes YAML reads, too.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            letter if u32::from(letter) < 0x20 || letter == '\u{7f}' => {
                out.push_str(&format!("\\x{:02x}", u32::from(letter)));
            }
            letter if letter.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

/// The first `n` bytes, or the last `-n`, at the borders of letters.
fn truncated(args: &[Value]) -> Result<Value> {
    let (length, whole) = (number(args, 0)?, text(args, 1)?);
    let wanted = usize::try_from(length.unsigned_abs()).unwrap_or(usize::MAX);
    if wanted >= whole.len() {
        return Ok(whole.into());
    }
    Ok(if length >= 0 {
        whole[..whole.floor_char_boundary(wanted)].into()
    } else {
        whole[whole.ceil_char_boundary(whole.len() - wanted)..].into()
    })
}

fn trimmed_of(args: &[Value]) -> Result<String> {
    let letters: Vec<char> = text(args, 0)?.chars().collect();
    Ok(text(args, 1)?.trim_matches(&letters[..]).to_owned())
}

fn substring(args: &[Value]) -> Result<Value> {
    let (start, end, whole) = (number(args, 0)?, number(args, 1)?, text(args, 2)?);
    let at = |place: i64, default: usize| usize::try_from(place).map_or(default, |place| place.min(whole.len()));
    let (start, end) = (at(start, 0), at(end, whole.len()));
    whole.get(start..end).map_or_else(|| refuse("substr: not at the borders of letters"), |part| Ok(part.into()))
}

/// The first letter of each word made a small one.
fn untitled(text: &str) -> String {
    let mut is_start = true;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_start {
            out.extend(letter.to_lowercase());
        } else {
            out.push(letter);
        }
        is_start = letter.is_whitespace();
    }
    out
}
