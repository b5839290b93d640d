//! Small things that both halves need: backoff, drain, files that others write, sharing of equal values, names of policies,
//! errors as text. No sockets, no configuration.

mod backoff;
mod causes;
mod compliance;
mod drain;
mod files;
pub mod intern;

pub use backoff::Backoff;
pub use causes::causes;
pub use compliance::{Compliance, UnknownCompliance};
pub use drain::{Drain, DrainGuard, DrainWatch};
pub use files::{FileLooks, FollowedFiles, Look};
pub use intern::intern;
