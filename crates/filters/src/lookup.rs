//! Message heads as the plan's matchers and formats read them, pseudo-headers included.

use std::borrow::Cow;

use meltemi_http::{Headers, RequestHead, ResponseHead};
use meltemi_plan::{HeaderKey, HeaderLookup};

/// A request head to match on. No copy unless a field is repeated.
#[derive(Clone, Copy, Debug)]
pub struct RequestFields<'a>(pub &'a RequestHead);

impl HeaderLookup for RequestFields<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        let head = self.0;
        match key {
            HeaderKey::Method => Some(Cow::Borrowed(head.method.as_str().as_bytes())),
            HeaderKey::Path => present(head.path.as_bytes()),
            HeaderKey::Authority => present(head.authority.as_bytes()),
            HeaderKey::Scheme => Some(Cow::Borrowed(head.scheme.as_str().as_bytes())),
            HeaderKey::Protocol => head.upgrade.as_ref().map(|u| Cow::Borrowed(u.as_bytes())),
            HeaderKey::Status => None,
            HeaderKey::Name(name) if *name == meltemi_http::HeaderName::from_static("host") => {
                present(head.authority.as_bytes())
            }
            HeaderKey::Name(name) => head.headers.joined(name),
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
            HeaderKey::Name(name) => self.0.headers.joined(name),
            HeaderKey::Method | HeaderKey::Path | HeaderKey::Authority | HeaderKey::Scheme | HeaderKey::Protocol => None,
        }
    }
}

/// Plain fields, such as trailers.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a Headers);

impl HeaderLookup for Fields<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        match key {
            HeaderKey::Name(name) => self.0.joined(name),
            HeaderKey::Method
            | HeaderKey::Path
            | HeaderKey::Authority
            | HeaderKey::Scheme
            | HeaderKey::Protocol
            | HeaderKey::Status => None,
        }
    }
}

fn present(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    (!value.is_empty()).then_some(Cow::Borrowed(value))
}
