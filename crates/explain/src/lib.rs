//! What a mesh will do with a request, and why, from its configuration alone.
//!
//! The two halves of the contract meet here by design: the control plane's translation on one side, the data plane's plan on
//! the other. Owns no model of routing: what is answered is read off the resources that a proxy is sent, by the look-ups that
//! the proxy makes. Never serves traffic; a question costs a translation for one node.
//!
//! Policies are asked of by the proxy's own engine. Not told: what an external authorizer would answer, whether a token is valid, what
//! chance decides (weights and fractions are told as shares), what health
//! checks and outlier detection find out while a mesh runs. A path that is not in its normal form is matched as it stands.

pub mod case;
pub mod diff;
pub mod discovery;
mod fill;
pub mod mesh;
pub mod names;
pub mod origin;
pub mod policy;
pub mod proxies;
pub mod report;
pub mod request;
pub mod sent;
pub mod trial;
pub mod validation;
pub mod walk;

pub use meltemi_model::Labels;
pub use meltemi_plan::route::find::without_port;
pub use mesh::Mesh;
pub use report::{Question, Report, explain};
pub use request::{Protocol, Request, Security};
pub use sent::Sent;
pub use walk::{Failure, Outcome, walk};
