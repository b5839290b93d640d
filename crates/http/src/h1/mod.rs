//! HTTP/1.0 and 1.1, both sides.
//!
//! Owns framing: where each message begins and ends is decided here and nowhere else, by the rules in [`Violation`]. Both
//! connections are state machines driven by polling, so that one task can run a downstream and an upstream connection together.
//! Must never guess: what two parsers could read in two ways is refused.

mod body;
mod chunk;
mod client;
mod encode;
mod lines;
mod parse;
mod rules;
mod server;
mod wire;

pub use client::Client;
pub use parse::Limits;
pub use rules::{Rule, Violation};
pub use server::{Next, Server};

#[cfg(test)]
mod tests;
