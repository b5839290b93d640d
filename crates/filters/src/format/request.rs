//! Operators over parts of the request that may have been rewritten, and over its query.

use meltemi_http::name;
use meltemi_plan::format::{HostChoice, PathChoice, ServerName};

use super::Scope;
use super::operators::{bytes, text};

pub(super) fn path(out: &mut Vec<u8>, scope: &Scope<'_>, with_query: bool, choice: PathChoice) -> bool {
    let Some(head) = scope.request else { return false };
    let original = || head.headers.get_str(&name::X_ENVOY_ORIGINAL_PATH);
    let path = match choice {
        PathChoice::Current => Some(head.path.as_str()),
        PathChoice::Original => original(),
        PathChoice::OriginalOrCurrent => original().or(Some(head.path.as_str())),
    };
    let path = path.map(|p| if with_query { p } else { p.split(['?', '#']).next().unwrap_or(p) });
    text(out, path)
}

pub(super) fn query_parameter(out: &mut Vec<u8>, scope: &Scope<'_>, name: &str) -> bool {
    let query = scope.request.and_then(|head| head.query()).unwrap_or_default();
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| percent_decoded(value));
    bytes(out, value.as_deref());
    // One without a value is there, too.
    value.is_some()
}

/// The whole query without its question mark.
pub(super) fn query_parameters(out: &mut Vec<u8>, scope: &Scope<'_>, decoded: bool) -> bool {
    let query = scope.request.and_then(|head| head.query()).unwrap_or_default();
    if decoded { bytes(out, Some(&visibly_decoded(query))) } else { text(out, Some(query)) }
}

/// As Envoy has it: an escape stays where it is not of a visible character, and what is no escape loses its percent sign.
fn visibly_decoded(text: &str) -> Vec<u8> {
    decoded(text, |escaped| match escaped {
        Some(byte @ b'!'..=b'~') => Some(byte),
        Some(_) => Some(b'%'),
        None => None,
    })
}

/// What is no escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    decoded(text, |escaped| escaped.or(Some(b'%')))
}

/// `choose` says what is printed for a percent sign and the byte that it escapes, if it does; an escape is passed over when it was
/// decoded.
fn decoded(text: &str, choose: impl Fn(Option<u8>) -> Option<u8>) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            out.push(*first);
            continue;
        }
        let escaped = match after {
            [high, low, ..] => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        let chosen = choose(escaped);
        if escaped.is_some() && chosen == escaped {
            rest = &after[2..];
        }
        out.extend(chosen);
    }
    out
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

pub(super) fn server_name(out: &mut Vec<u8>, scope: &Scope<'_>, choice: ServerName) -> bool {
    let sni = scope.info.connection.requested_server_name.as_deref();
    match choice {
        ServerName::Sni => text(out, sni),
        ServerName::SniOrHost(host_choice) => text(out, sni) || host(out, scope, host_choice),
        ServerName::Host(host_choice) => host(out, scope, host_choice),
    }
}

fn host(out: &mut Vec<u8>, scope: &Scope<'_>, choice: HostChoice) -> bool {
    let Some(head) = scope.request else { return false };
    let original = || head.headers.get_str(&name::X_ENVOY_ORIGINAL_HOST);
    let host = match choice {
        HostChoice::Current => Some(head.authority.as_str()),
        HostChoice::Original => original(),
        HostChoice::OriginalOrCurrent => original().or(Some(head.authority.as_str())),
    };
    text(out, host)
}
