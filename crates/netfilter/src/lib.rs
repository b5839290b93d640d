//! The rules that send a workload's traffic through its proxy.
//!
//! [`Capture`] says what to capture, [`Capture::rules`] gives the rules as values ([`Ruleset`]), and only [`apply`] and
//! [`cleanup`] touch the kernel, by running `iptables-save` and `iptables-restore`. Chains, order and words are those of
//! Istio's sidecar, so that its tools and documentation hold for ours.
//!
//! Never: a shell, a rule built from unchecked text (each port, range and interface is parsed first).
//! Cost: one `iptables-save` and one `iptables-restore` for each address family.

mod apply;
mod capture;
mod cleanup;
mod ruleset;

pub use apply::{ApplyError, Program, apply, cleanup, install, ipv6_in_use};
pub use capture::{Bypass, Capture, CaptureError, Dns, Interception, List};
pub use ruleset::{Family, Placement, Rule, Ruleset};
