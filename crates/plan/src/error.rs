//! Why a resource is refused: the path of the field, and the reason.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError {
    /// From the resource's root, as `virtual_hosts[2].routes[0].match.safe_regex`. Empty for the resource itself.
    pub path: String,
    pub reason: String,
}

impl PlanError {
    pub fn new(reason: impl Into<String>) -> Self {
        Self { path: String::new(), reason: reason.into() }
    }

    /// The same error seen from one level further up.
    pub fn under(mut self, segment: &str) -> Self {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{segment}{separator}{}", self.path);
        self
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.path, self.reason) }
    }
}

impl std::error::Error for PlanError {}

pub type Result<T> = std::result::Result<T, PlanError>;

/// Shorthand for an error at this level.
pub(crate) fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(PlanError::new(reason))
}

/// Says where in its parent a result comes from.
pub trait At<T> {
    fn at(self, field: &str) -> Result<T>;
    fn at_index(self, field: &str, index: usize) -> Result<T>;
}

impl<T, E: Into<PlanError>> At<T> for std::result::Result<T, E> {
    fn at(self, field: &str) -> Result<T> {
        self.map_err(|error| error.into().under(field))
    }

    fn at_index(self, field: &str, index: usize) -> Result<T> {
        self.map_err(|error| error.into().under(&format!("{field}[{index}]")))
    }
}

macro_rules! from_display {
    ($($error:ty),* $(,)?) => {$(
        impl From<$error> for PlanError {
            fn from(error: $error) -> Self {
                Self::new(error.to_string())
            }
        }
    )*};
}

from_display!(
    meltemi_matchers::RegexError,
    meltemi_matchers::DomainError,
    meltemi_matchers::TemplateError,
    meltemi_proto::DecodeError,
    meltemi_proto::json::JsonError,
    http::header::InvalidHeaderName,
    http::header::InvalidHeaderValue,
);
