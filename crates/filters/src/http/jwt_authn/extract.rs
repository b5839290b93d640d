//! Where tokens stand in a request.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::header;
use meltemi_http::{HeaderName, RequestHead};
use meltemi_plan::jwt::{JwtProvider, TokenLocation};
use meltemi_plan::route::find;

use crate::query::{decoded, without};

/// Issuers whose tokens may stand at a place; an empty one stands for all.
type Issuers = Arc<[Arc<str>]>;

/// Places, in the order in which they are searched, and headers that only we may set.
pub(super) struct Extractor {
    places: Vec<(TokenLocation, Issuers)>,
    own_headers: Vec<HeaderName>,
}

/// A token and where it stood.
pub(super) struct Found {
    pub token: String,
    pub place: TokenLocation,
    issuers: Issuers,
}

impl Found {
    pub fn admits(&self, issuer: &str) -> bool {
        self.issuers.iter().any(|known| known.is_empty() || &**known == issuer)
    }

    /// Takes the token out of the request; a cookie stays, as Envoy leaves it.
    pub fn remove(&self, head: &mut RequestHead) {
        match &self.place {
            TokenLocation::Header { name, .. } => drop(head.headers.remove(name)),
            TokenLocation::Param(name) => {
                if let Some(path) = without(&head.path, name) {
                    head.path = path;
                }
            }
            TokenLocation::Cookie(_) => {}
        }
    }
}

impl Extractor {
    pub fn new<'a>(providers: impl Iterator<Item = &'a JwtProvider>) -> Self {
        let mut places: BTreeMap<_, (TokenLocation, Vec<Arc<str>>)> = BTreeMap::new();
        let mut own_headers = Vec::new();
        for provider in providers {
            for place in &provider.locations {
                let (_, issuers) = places.entry(order(place)).or_insert_with(|| (place.clone(), Vec::new()));
                issuers.push(provider.issuer.clone());
            }
            own_headers.extend(provider.forward_payload_header.clone());
            own_headers.extend(provider.claim_to_headers.iter().map(|claim| claim.header.clone()));
        }
        let places = places.into_values().map(|(place, issuers)| (place, issuers.into())).collect();
        Self { places, own_headers }
    }

    /// Nobody else may say what a token would.
    pub fn sanitize(&self, head: &mut RequestHead) {
        for name in &self.own_headers {
            head.headers.remove(name);
        }
    }

    /// Bytes that no token has make one that is refused, not one that is overlooked.
    pub fn extract(&self, head: &RequestHead) -> Vec<Found> {
        let mut found = Vec::new();
        for (place, issuers) in &self.places {
            let mut add = |token: String| found.push(Found { token, place: place.clone(), issuers: issuers.clone() });
            match place {
                // It stands once in a request, so that a second one is taken for a part of the first.
                TokenLocation::Header { name, value_prefix } if *name == header::AUTHORIZATION => {
                    let value = head.headers.joined(name);
                    let value = value.as_deref().map(String::from_utf8_lossy);
                    if let Some(token) = value.as_deref().and_then(|value| in_header(value, value_prefix)) {
                        add(token.to_owned());
                    }
                }
                TokenLocation::Header { name, value_prefix } => {
                    for value in head.headers.get_all(name) {
                        let value = String::from_utf8_lossy(value.as_bytes());
                        in_header(&value, value_prefix).into_iter().for_each(|token| add(token.to_owned()));
                    }
                }
                TokenLocation::Param(name) => {
                    let own = find::query_parameters(&head.path).filter(|(key, _)| decoded(key) == **name);
                    own.for_each(|(_, value)| add(decoded(value).into_owned()));
                }
                TokenLocation::Cookie(name) => {
                    let header = head.headers.joined(&header::COOKIE).unwrap_or_default();
                    find::cookies(&header, name).for_each(|token| add(String::from_utf8_lossy(token).into_owned()));
                }
            }
        }
        found
    }
}

/// Headers, parameters, cookies; each by name.
fn order(place: &TokenLocation) -> (u8, String) {
    match place {
        TokenLocation::Header { name, value_prefix } => (0, format!("{name}{value_prefix}")),
        TokenLocation::Param(name) => (1, name.to_string()),
        TokenLocation::Cookie(name) => (2, name.to_string()),
    }
}

/// What follows the prefix, wherever that is, from the first character that a token may have.
fn in_header<'a>(value: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix.is_empty() {
        return Some(value);
    }
    let rest = &value[value.find(prefix)? + prefix.len()..];
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    Some(rest.find(of_token).map_or(value, |at| &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_a_header_follows_its_prefix() {
        for (value, prefix, expected) in [
            ("Bearer a.b.c", "Bearer ", Some("a.b.c")),
            ("x Bearer  a.b.c", "Bearer ", Some("a.b.c")),
            ("bearer a.b.c", "Bearer ", None),
            ("Bearer !!", "Bearer ", Some("Bearer !!")),
            ("a.b.c", "", Some("a.b.c")),
        ] {
            assert_eq!(in_header(value, prefix), expected, "{value}");
        }
    }
}
