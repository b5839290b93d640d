//! Small things that both halves need: backoff, drain, sharing of equal values, names of policies. No sockets, no configuration.

mod backoff;
mod compliance;
mod drain;
pub mod intern;

pub use backoff::Backoff;
pub use compliance::{Compliance, UnknownCompliance};
pub use drain::{Drain, DrainGuard, DrainWatch};
pub use intern::intern;
