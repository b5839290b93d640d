//! From a new snapshot to the proxies that it concerns.
//!
//! Owns when and to whom resources are sent: merging of changes in time ([`debounce`]), who is connected and what each
//! watches, the order of types, one outstanding push a proxy, and withdrawal after what referred to the withdrawn is gone.
//! Never decides what a resource looks like: a [`Source`] does.
//!
//! Cost follows the change. A change of endpoints visits only the connections that watch them, found by host name in an index,
//! and generates only those assignments. Every other change visits each connection once and generates what the source says may
//! differ; what did not differ after all is recognised by its version and not sent. A proxy that reads slowly holds one merged
//! change and nothing else.

pub mod debounce;

mod connection;
mod index;
mod pusher;
mod stats;

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_model::{Change, Node, Snapshot};
use meltemi_xds::Resource;

pub use connection::{ClientStatus, Incoming, Peer, ServeError, TypeStatus};
pub use pusher::{Pusher, PusherOptions};
pub use stats::Stats;

/// What makes resources of snapshots.
pub trait Source: Send + Sync + 'static {
    /// The resources of a type that a node has: all of a wildcard subscription (`None`), or the named ones that exist.
    fn generate(&self, snapshot: &Snapshot, node: &Node, type_url: &str, names: Option<&[Arc<str>]>) -> Vec<Resource>;

    /// Which connections a change concerns.
    fn reach(&self, snapshot: &Snapshot, change: &Change) -> Reach;

    /// Which resources of a type a change may have altered for a node. May say too much, never too little.
    fn affected(&self, snapshot: &Snapshot, change: &Change, node: &Node, type_url: &str) -> Affected;

    /// The names that resources of these hosts have for a node with a wildcard subscription, so that no others are generated;
    /// `None` where that cannot be told from the hosts.
    fn names_of(
        &self,
        snapshot: &Snapshot,
        node: &Node,
        type_url: &str,
        hosts: &BTreeSet<Arc<str>>,
    ) -> Option<BTreeSet<Arc<str>>> {
        let _ = (snapshot, node, type_url, hosts);
        None
    }
}

/// Which connections a change concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    Everyone,
    /// Those that watch endpoints of these hosts, and nodes at these addresses.
    Some {
        hosts: BTreeSet<Arc<str>>,
        addresses: BTreeSet<Arc<str>>,
    },
}

/// What a change may have altered of one type for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affected {
    Nothing,
    Everything,
    /// Resources named after these hosts or patterns of hosts (`*.example.com`).
    Hosts(BTreeSet<Arc<str>>),
    Names(BTreeSet<Arc<str>>),
}
