//! The formats of strings that API servers know. Others mean nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use jiff::civil::Date;

use crate::cel;

const KNOWN: &[&str] = &[
    "byte",
    "cidr",
    "date",
    "date-time",
    "datetime",
    "duration",
    "hostname",
    "ipv4",
    "ipv6",
    "mac",
    "uri",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
];

pub(super) fn is_known(format: &str) -> bool {
    KNOWN.contains(&format)
}

/// True if the text has the format, or the format means nothing.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format {
        "byte" => is_base64(text),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "duration" => cel::duration(text).is_ok(),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "mac" => is_hardware_address(text),
        "uri" => cel::Url::parse(text).is_some(),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        _ => true,
    }
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 255 && text.split('.').all(label)
}

/// The standard alphabet with its padding. Nothing at all is not base64.
fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    let alphabet = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    !body.is_empty() && text.len().is_multiple_of(4) && padding <= 2 && body.bytes().all(alphabet)
}

/// Six, eight or twenty bytes in hexadecimal.
fn is_hardware_address(text: &str) -> bool {
    let separator = if text.contains('-') { '-' } else { ':' };
    let bytes: Vec<_> = text.split(separator).collect();
    let hex = |part: &&str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
    matches!(bytes.len(), 6 | 8 | 20) && bytes.iter().all(hex)
}

/// Of a version, if one is given. Dashes may be left out.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let bare: String = text.split('-').collect();
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    let shape = lengths == [8, 4, 4, 4, 12] || lengths == [32];
    let fits = |version: char| bare.chars().nth(12) == Some(version);
    shape && bare.chars().all(|c| c.is_ascii_hexdigit()) && version.is_none_or(fits)
}
