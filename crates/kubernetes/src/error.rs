//! What an API server's refusals come to in words, and which of them mean something.

use kube::Error;

/// The reason alone, without the whole answer.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::Api(status) => status.message.clone(),
        Error::Service(cause) => format!("cannot be reached: {cause}"),
        other => other.to_string(),
    }
}

/// Somebody else wrote in the meantime, or made the object first.
pub(crate) fn is_conflict(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 409)
}

pub(crate) fn is_not_found(error: &Error) -> bool {
    matches!(error, Error::Api(status) if status.code == 404)
}

/// The server understood and will not: asking again changes nothing.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(error, Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}
