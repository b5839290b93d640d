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
    text(out, pairs.find(|(key, _)| *key == name).map(|(_, value)| value))
}

/// The whole query without its question mark.
pub(super) fn query_parameters(out: &mut Vec<u8>, scope: &Scope<'_>, decoded: bool) -> bool {
    let query = scope.request.and_then(|head| head.query()).unwrap_or_default();
    if decoded { bytes(out, Some(&percent_decoded(query))) } else { text(out, Some(query)) }
}

/// What is no escape stays as it is.
fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = match after {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
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
