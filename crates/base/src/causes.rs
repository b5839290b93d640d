//! Errors as text, with their causes.

use std::error::Error;

/// An error with those of its causes that it does not tell of itself.
///
/// Whether an error's text has its cause in it differs from library to library; nobody wants to read it twice.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
