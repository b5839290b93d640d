//! Message heads as matchers read them.

use std::borrow::Cow;

use meltemi_http::{RequestHead, ResponseHead};
use meltemi_plan::{HeaderKey, HeaderLookup};

pub struct RequestView<'a>(pub &'a RequestHead);

impl HeaderLookup for RequestView<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        let head = self.0;
        let present = |text: &'_ str| -> Option<()> { (!text.is_empty()).then_some(()) };
        match key {
            HeaderKey::Method => Some(Cow::Borrowed(head.method.as_str().as_bytes())),
            HeaderKey::Path => present(&head.path).map(|()| Cow::Borrowed(head.path.as_bytes())),
            HeaderKey::Authority => present(&head.authority).map(|()| Cow::Borrowed(head.authority.as_bytes())),
            HeaderKey::Scheme => Some(Cow::Borrowed(head.scheme.as_str().as_bytes())),
            HeaderKey::Protocol => head.upgrade.as_ref().map(|u| Cow::Borrowed(u.as_bytes())),
            HeaderKey::Status => None,
            HeaderKey::Name(name) if *name == http::header::HOST => {
                present(&head.authority).map(|()| Cow::Borrowed(head.authority.as_bytes()))
            }
            HeaderKey::Name(name) => head.headers.joined(name),
        }
    }
}

pub struct ResponseView<'a>(pub &'a ResponseHead);

impl HeaderLookup for ResponseView<'_> {
    fn value(&self, key: &HeaderKey) -> Option<Cow<'_, [u8]>> {
        match key {
            HeaderKey::Status => Some(Cow::Owned(self.0.status.as_str().as_bytes().to_vec())),
            HeaderKey::Name(name) => self.0.headers.joined(name),
            HeaderKey::Method | HeaderKey::Path | HeaderKey::Authority | HeaderKey::Scheme | HeaderKey::Protocol => None,
        }
    }
}
