//! ListenerSet: listeners that are added to a Gateway of someone else.

use super::{Listener, ParentReference};
use crate::wire::message;

message! {
    /// `gateway.networking.k8s.io` ListenerSet.
    struct ListenerSet {
        /// The Gateway; no section and no port.
        parent_ref: ParentReference,
        listeners: Vec<Listener>,
    }
}
