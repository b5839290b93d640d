//! What is wrong with an object, in the reasons and words of istiod's conditions.

/// A condition's `reason` and `message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub reason: &'static str,
    pub message: String,
}

impl Problem {
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// Of two problems the first counts, with the words of both.
pub fn joined(first: Option<Problem>, second: Option<Problem>) -> Option<Problem> {
    match (first, second) {
        (Some(mut first), Some(second)) => {
            first.message.push_str("; ");
            first.message.push_str(&second.message);
            Some(first)
        }
        (first, second) => first.or(second),
    }
}

pub mod reason {
    pub const BACKEND_NOT_FOUND: &str = "BackendNotFound";
    pub const INVALID_CA_KIND: &str = "InvalidCACertificateKind";
    pub const INVALID_CA_REF: &str = "InvalidCACertificateRef";
    pub const INVALID_CERTIFICATE_REF: &str = "InvalidCertificateRef";
    pub const INVALID_CLIENT_CERTIFICATE_REF: &str = "InvalidClientCertificateRef";
    pub const INVALID_CONFIGURATION: &str = "InvalidConfiguration";
    pub const INVALID_DESTINATION: &str = "InvalidDestination";
    pub const INVALID_FILTER: &str = "InvalidFilter";
    pub const INVALID_KIND: &str = "InvalidKind";
    pub const NO_MATCHING_LISTENER_HOSTNAME: &str = "NoMatchingListenerHostname";
    pub const NO_MATCHING_PARENT: &str = "NoMatchingParent";
    pub const NOT_ALLOWED_BY_LISTENERS: &str = "NotAllowedByListeners";
    pub const REF_NOT_PERMITTED: &str = "RefNotPermitted";
    pub const UNSUPPORTED_ADDRESS: &str = "UnsupportedAddress";
}
