//! Small things that both halves need: backoff and drain. No sockets, no configuration.

mod backoff;
mod drain;

pub use backoff::Backoff;
pub use drain::{Drain, DrainGuard, DrainWatch};
