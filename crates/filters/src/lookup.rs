//! Message heads as the plan's matchers and formats read them, pseudo-headers included.

use std::borrow::Cow;

use meltemi_http::{HeaderName, Headers, RequestHead, ResponseHead};
use meltemi_plan::{HeaderKey, HeaderLookup};

/// A request head to match on. No copy unless a field is repeated.
#[derive(Clone, Copy, Debug)]
pub struct RequestFields<'a>(pub &'a RequestHead);

impl HeaderLookup for RequestFields<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        match key {
            HeaderKey::Name(name) if *name != ::http::header::HOST => joined(&self.0.headers, name),
            _ => self.first(key).map(Cow::Borrowed),
        }
    }
}

impl<'a> RequestFields<'a> {
    /// Of a repeated field the first value.
    pub fn first(self, key: &HeaderKey) -> Option<&'a [u8]> {
        match key {
            HeaderKey::Method => Some(self.0.method.as_str().as_bytes()),
            HeaderKey::Path => present(self.0.path.as_bytes()),
            HeaderKey::Authority => present(self.0.authority.as_bytes()),
            HeaderKey::Scheme => Some(self.0.scheme.as_str().as_bytes()),
            HeaderKey::Protocol => self.0.upgrade.as_ref().map(|upgrade| upgrade.as_bytes()),
            HeaderKey::Status => None,
            HeaderKey::Name(name) if *name == ::http::header::HOST => present(self.0.authority.as_bytes()),
            HeaderKey::Name(name) => self.0.headers.get(name).map(|value| value.as_bytes()),
        }
    }
}

/// A response head to match on.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFields<'a>(pub &'a ResponseHead);

impl HeaderLookup for ResponseFields<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        match key {
            HeaderKey::Status => Some(Cow::Borrowed(self.0.status.as_str().as_bytes())),
            HeaderKey::Name(name) => joined(&self.0.headers, name),
            HeaderKey::Method | HeaderKey::Path | HeaderKey::Authority | HeaderKey::Scheme | HeaderKey::Protocol => {
                None
            }
        }
    }
}

impl<'a> ResponseFields<'a> {
    /// Of a repeated field the first value.
    pub fn first(self, key: &HeaderKey) -> Option<&'a [u8]> {
        match key {
            HeaderKey::Status => Some(self.0.status.as_str().as_bytes()),
            key => Fields(&self.0.headers).first(key),
        }
    }
}

/// Plain fields, such as trailers.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a Headers);

impl HeaderLookup for Fields<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        match key {
            HeaderKey::Name(name) => joined(self.0, name),
            HeaderKey::Method
            | HeaderKey::Path
            | HeaderKey::Authority
            | HeaderKey::Scheme
            | HeaderKey::Protocol
            | HeaderKey::Status => None,
        }
    }
}

impl<'a> Fields<'a> {
    /// Of a repeated field the first value.
    pub fn first(self, key: &HeaderKey) -> Option<&'a [u8]> {
        match key {
            HeaderKey::Name(name) => self.0.get(name).map(|value| value.as_bytes()),
            HeaderKey::Method
            | HeaderKey::Path
            | HeaderKey::Authority
            | HeaderKey::Scheme
            | HeaderKey::Protocol
            | HeaderKey::Status => None,
        }
    }
}

/// Repeated fields as one value, joined by commas.
fn joined<'a>(headers: &'a Headers, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.iter().filter(|(n, _)| *n == name).map(|(_, value)| value.as_bytes());
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Cow::Borrowed(first)) };
    let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
    Some(Cow::Owned(all.join(&b","[..])))
}

fn present(value: &[u8]) -> Option<&[u8]> {
    (!value.is_empty()).then_some(value)
}
