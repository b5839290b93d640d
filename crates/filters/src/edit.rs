//! Changes of single headers that somebody else than the configuration asks for: what a service answered.

use meltemi_http::{HeaderValue, RequestHead, ResponseHead};
use meltemi_plan::HeaderKey;
use meltemi_plan::header::AppendAction;

use crate::headers;

/// What a filter wants done to the response, whoever answers.
pub(crate) type ResponseEdits = Vec<Edit>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub key: HeaderKey,
    pub value: HeaderValue,
    pub action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    As(AppendAction),
    /// Added to the value of a header that there is.
    JoinExisting,
}

impl Edit {
    pub fn on_request(&self, head: &mut RequestHead) {
        match (self.action, &self.key) {
            (Action::As(action), key) => headers::set_on_request(key, self.value.clone(), action, head),
            (Action::JoinExisting, HeaderKey::Name(name)) => {
                let Some(before) = head.headers.joined(name) else { return };
                let joined = [&before[..], b",", self.value.as_bytes()].concat();
                if let Ok(value) = HeaderValue::from_bytes(&joined) {
                    head.headers.insert(name.clone(), value);
                }
            }
            (Action::JoinExisting, _) => {}
        }
    }

    pub fn on_response(&self, head: &mut ResponseHead) {
        let HeaderKey::Name(name) = &self.key else { return };
        if let Action::As(action) = self.action {
            headers::set(&mut head.headers, name, self.value.clone(), action);
        }
    }
}
