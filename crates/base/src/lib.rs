//! Small things that both halves need: backoff, drain and sharing of equal values. No sockets, no configuration.

mod backoff;
mod drain;
pub mod intern;

pub use backoff::Backoff;
pub use drain::{Drain, DrainGuard, DrainWatch};
pub use intern::intern;
