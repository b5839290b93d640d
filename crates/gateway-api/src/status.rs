//! The status of objects, as values in the form of their documents.
//!
//! There is no clock here: who writes a condition sets its `lastTransitionTime`.

use crate::error::Problem;
use crate::reference::GroupKind;
use meltemi_config::Str;
use meltemi_config::gateway_api::ParentReference;
use serde::Serialize;

/// One row of `conditions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `True` or `False`.
    pub status: &'static str,
    pub reason: String,
    pub message: String,
    /// Of the object; 0 where it has none.
    #[serde(rename = "observedGeneration", skip_serializing_if = "is_zero")]
    pub generation: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A condition before it is known whether something is wrong.
#[derive(Clone, Debug)]
pub struct Draft {
    pub reason: &'static str,
    pub message: String,
    /// What holds where nothing is wrong.
    pub good: bool,
    pub problem: Option<Problem>,
}

impl Draft {
    pub fn new(reason: &'static str, message: &str) -> Self {
        Self { reason, message: message.to_owned(), good: true, problem: None }
    }

    pub fn finish(self, kind: &'static str, generation: i64) -> Condition {
        let text = |holds: bool| if holds { "True" } else { "False" };
        let (status, reason, message) = match self.problem {
            Some(problem) => (text(!self.good), problem.reason, problem.message),
            None => (text(self.good), self.reason, self.message),
        };
        Condition { kind, status, reason: reason.to_owned(), message, generation }
    }
}

/// One of `status.listeners`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    pub name: Str,
    pub attached_routes: u32,
    pub supported_kinds: Vec<RouteKind>,
    pub conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteKind {
    pub group: &'static str,
    pub kind: &'static str,
}

impl From<GroupKind<'static>> for RouteKind {
    fn from(kind: GroupKind<'static>) -> Self {
        Self { group: kind.group, kind: kind.kind }
    }
}

/// An address of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    #[serde(rename = "type")]
    pub kind: Str,
    pub value: Str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassStatus {
    pub conditions: Vec<Condition>,
    pub supported_features: Vec<SupportedFeature>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SupportedFeature {
    pub name: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_listener_sets: Option<u32>,
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListenerSetStatus {
    pub conditions: Vec<Condition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteStatus {
    pub parents: Vec<RouteParentStatus>,
}

/// What came of one reference to a parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentStatus {
    pub conditions: Vec<Condition>,
    pub controller_name: &'static str,
    pub parent_ref: ParentReference,
}

/// Of a policy: one entry for each target, and for each Gateway that it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    pub ancestors: Vec<AncestorStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    pub ancestor_ref: ParentReference,
    pub conditions: Vec<Condition>,
    pub controller_name: &'static str,
}

/// Of an XBackend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendStatus {
    pub parents: Vec<RouteParentStatus>,
}

/// Of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressStatus {
    pub load_balancer: LoadBalancerAddresses,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadBalancerAddresses {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<LoadBalancerAddress>,
}

/// One of both.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LoadBalancerAddress {
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hostname: Str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub ip: Str,
}

/// The `status` of an object, as its document has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Status {
    GatewayClass(ClassStatus),
    Gateway(GatewayStatus),
    ListenerSet(ListenerSetStatus),
    Route(RouteStatus),
    Policy(PolicyStatus),
    Backend(BackendStatus),
    Ingress(IngressStatus),
}
