//! Small things that both halves need: backoff, drain, sharing of equal values, names of policies, errors as text. No sockets, no configuration.

mod backoff;
mod causes;
mod compliance;
mod drain;
pub mod intern;

pub use backoff::Backoff;
pub use causes::causes;
pub use compliance::{Compliance, UnknownCompliance};
pub use drain::{Drain, DrainGuard, DrainWatch};
pub use intern::intern;
