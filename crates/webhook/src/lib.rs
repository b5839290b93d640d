//! What an API server asks before it stores an object: injection of the proxy into pods, and validation.

pub mod admission;
pub mod inject;
pub mod server;
pub mod validate;
