//! The rules that send a workload's traffic through its proxy.
//!
//! [`Capture`] says what to capture, [`Capture::rules`] gives the rules as values ([`Ruleset`]). An [`Installation`] is a
//! capture with the way it is put in force: by `iptables` or `nft`, with the routes that TPROXY needs. [`ambient`] has the
//! rules for a proxy that a node's pods share. Chains, order and words are Istio's, so that its tools and documentation
//! hold for ours.
//!
//! Never: a shell, a rule built from unchecked text (each port, range and interface is parsed first).
//! Cost: one `iptables-save` and one `iptables-restore` for each address family, or one `nft`.

pub mod ambient;
mod apply;
mod capture;
mod cleanup;
mod installation;
mod namespace;
mod nftables;
mod routes;
mod ruleset;

pub use apply::{ApplyError, Program, Rules, install, ipv6_in_use};
pub use capture::{Bypass, Capture, CaptureError, Dns, Interception, List};
pub use installation::{Backend, InstallError, Installation};
pub use namespace::{NamespaceError, within};
pub use routes::RouteError;
pub use ruleset::{Family, Placement, Rule, Ruleset};
