//! Generated prost types of Envoy v3, xDS, OTLP and Istio's few service messages.
//!
//! Owns encoding and decoding: other crates call [`decode`] and [`encode`] here for the messages they need, because each
//! further crate that instantiates prost's codecs costs some 20 CPU-seconds in release. Maps are ordered and byte fields are
//! [`bytes::Bytes`], so equal messages have equal bytes. Regenerate with `cargo xtask-gen`; never edit `gen/`.

mod any;
mod codec;
pub mod otlp;
pub mod session;
pub mod splice;
#[allow(clippy::all, clippy::unwrap_used, rustdoc::all, unused_qualifications, dead_code, rust_2018_idioms)]
#[rustfmt::skip]
mod r#gen;
pub mod json;

pub use any::{Any, type_url};
pub use codec::*;
pub use r#gen::*;
pub use prost;
pub use prost_types;
