//! A cluster as a source of configuration, of trust and of leadership: the only crate that talks to an API server.
//!
//! Owns the client, what is watched and how it is read, and everything that is written back. Decides nothing about the
//! mesh. A server that cannot be reached leaves in force what it said last.

pub mod apply;
mod authority;
mod client;
mod decode;
mod entries;
mod error;
mod follow;
mod informer;
mod lease;
pub mod nodes;
mod presence;
mod request;
mod review;
mod revision;
mod roots;
mod selector;
mod served;
mod status;
mod store;
mod sweep;
mod trim;
mod watched;
mod webhooks;
mod world;

pub use authority::{AuthoritySecrets, Leadership};
pub use client::connect;
pub use decode::Reader;
pub use entries::{EntryWriter, Replica};
pub use kube::Client;
pub use lease::Election;
pub use request::RequestSigner;
pub use review::{ApiReviews, SecretAccess};
pub use revision::Names;
pub use roots::{keep_revocations, keep_roots};
pub use status::StatusWriter;
pub use store::KubernetesStore;
pub use sweep::Sweeper;
pub use webhooks::keep_webhooks;

/// Who we are to the API server where it notes down who manages which field.
pub(crate) const MANAGER: &str = "meltemi-discovery";
