//! JSON Web Tokens (RFC 7519) and the keys that verify them (RFC 7517).
//!
//! Owns the parsing of both, strict and bounded, and the check of a signature. Stricter than Envoy where it takes a token for
//! what it is not: base64url has no padding, an algorithm belongs to one type and curve of key, RSA keys have 2048 bits or
//! more. Neither tokens nor secret keys are ever logged. Verification costs what the algorithm costs (ES256 some 60 µs);
//! parsing is small beside it.

mod algorithm;
mod json;
mod keys;
mod status;
#[cfg(test)]
pub(crate) mod tests;
mod token;

pub use keys::KeySet;
pub use status::Status;
pub use token::Token;
