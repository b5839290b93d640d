//! Istio's debug requests over xDS (`istio.io/debug…`), by which istioctl asks who is connected and what they have.
//!
//! Owns what such a request is answered with, and to whom. A request is answered once; none of them is a subscription, so they
//! never reach the pusher. Secrets are redacted as on debug pages.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use meltemi_proto::Any;
use meltemi_proto::envoy::admin::v3::UpdateFailureState;
use meltemi_proto::envoy::config::core::v3::Node as ProtoNode;
use meltemi_proto::envoy::service::status::v3::client_config::GenericXdsConfig;
use meltemi_proto::envoy::service::status::v3::{ClientConfig, ConfigStatus};
use meltemi_proto::json::{any_from_value, struct_from_value};
use meltemi_push::{ClientStatus, Incoming, TypeStatus};
use meltemi_tls::SpiffeId;
use meltemi_xds::server::Response;
use meltemi_xds::types::{DEBUG, DEBUG_CONFIG_DUMP, DEBUG_SYNC};
use meltemi_xds::{Resource, Variant};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tonic::Status;

use crate::clearance::Clearance;
use crate::{State, http};

/// The debug requests of one stream.
pub(crate) struct Inquiries {
    state: Arc<State>,
    /// None: the caller has proven no identity and needs one.
    clearance: Option<Clearance>,
    variant: Variant,
    responses: mpsc::Sender<Response>,
    /// The nonce of the last answer, by type: what comes back with it is an acknowledgement.
    answered: BTreeMap<&'static str, String>,
}

/// What is asked.
struct Inquiry {
    type_url: &'static str,
    names: Vec<String>,
    nonce: String,
}

impl Inquiry {
    /// `None`: the request is of another type.
    fn of(request: &Incoming) -> Option<Result<Self, Status>> {
        let (type_url, names, nonce) = match request {
            Incoming::Delta(it) => (&it.type_url, &it.resource_names_subscribe, &it.response_nonce),
            Incoming::StateOfTheWorld(it) => (&it.type_url, &it.resource_names, &it.response_nonce),
        };
        let kind = type_url.strip_prefix(DEBUG)?;
        if !(kind.is_empty() || kind.starts_with('/')) {
            return None;
        }
        let known = [DEBUG, DEBUG_SYNC, DEBUG_CONFIG_DUMP].into_iter().find(|known| known == type_url);
        let known = known.ok_or_else(|| Status::invalid_argument(format!("{type_url:?} is not a debug request")));
        Some(known.map(|type_url| Self { type_url, names: names.clone(), nonce: nonce.clone() }))
    }

    fn one_name(&self) -> Result<&str, Status> {
        match self.names.as_slice() {
            [name] => Ok(name),
            names => {
                Err(Status::invalid_argument(format!("{} names; exactly one debug request is required", names.len())))
            }
        }
    }
}

impl Inquiries {
    pub(crate) fn new(
        state: Arc<State>,
        identity: Option<&SpiffeId>,
        variant: Variant,
        responses: mpsc::Sender<Response>,
    ) -> Self {
        let clearance = state.clearance(identity);
        Self { state, clearance, variant, responses, answered: BTreeMap::new() }
    }

    /// Answers a debug request; anything else is given back. An error is to end the stream.
    pub(crate) async fn intercept(&mut self, request: Incoming) -> Result<Option<Incoming>, Status> {
        let inquiry = match Inquiry::of(&request) {
            None => return Ok(Some(request)),
            Some(inquiry) => inquiry?,
        };
        // Clients of istioctl's kind put a text of their own there with the first request.
        if self.answered.get(inquiry.type_url).is_some_and(|nonce| *nonce == inquiry.nonce) {
            return Ok(None);
        }
        let clearance = self.clearance.clone().ok_or_else(|| Status::unauthenticated("authentication required"))?;
        let resources = self.resources(&inquiry, clearance).await?;
        let nonce = format!("debug-{}", self.answered.get(inquiry.type_url).map_or(0, |last| serial(last) + 1));
        self.answered.insert(inquiry.type_url, nonce.clone());
        let response = Response {
            variant: self.variant,
            type_url: inquiry.type_url.into(),
            version: nonce.clone(),
            nonce,
            identifier: self.state.options.identifier().into(),
            resources,
            removed: Vec::new(),
        };
        // The client is gone: so is its stream.
        let _ = self.responses.send(response).await;
        Ok(None)
    }

    async fn resources(&self, inquiry: &Inquiry, clearance: Clearance) -> Result<Vec<Resource>, Status> {
        match inquiry.type_url {
            DEBUG_SYNC => Ok(self.synchronization(&clearance)),
            DEBUG_CONFIG_DUMP => self.config_dump(inquiry.one_name()?, &clearance),
            _ => Ok(vec![self.page(inquiry.one_name()?, clearance).await?]),
        }
    }

    /// A `ClientConfig` for each proxy.
    fn synchronization(&self, clearance: &Clearance) -> Vec<Resource> {
        let mut clients = self.state.pusher.clients();
        clients.retain(|client| client.is_proxy() && clearance.covers(&client.peer.node));
        clients.sort_by(|a, b| a.peer.node.name.cmp(&b.peer.node.name));
        let cluster = &self.state.options.cluster_id;
        let resource =
            |client: &ClientStatus| resource(&client.peer.node.name, Any::pack(&client_config(client, cluster)));
        clients.iter().map(resource).collect()
    }

    /// The sections of Envoy's config dump; none where no such proxy is connected here.
    fn config_dump(&self, proxy: &str, clearance: &Clearance) -> Result<Vec<Resource>, Status> {
        let Some(types) = self.state.pusher.resources_of(proxy, |node| clearance.covers(node)) else {
            return Ok(Vec::new());
        };
        let dump = http::config_dump(&types);
        let sections = dump["configs"].as_array().map(Vec::as_slice).unwrap_or_default();
        let section = |section: &Value| match any_from_value(section) {
            Ok(any) => Ok(resource("", any)),
            Err(error) => Err(Status::internal(format!("config dump: {error}"))),
        };
        sections.iter().map(section).collect()
    }

    /// A debug page as its text.
    async fn page(&self, page: &str, clearance: Clearance) -> Result<Resource, Status> {
        let name = page.split('?').next().unwrap_or_default();
        if !clearance.covers_page(name) {
            let text = format!("the debug page {name:?} is not for callers of your namespace");
            return Err(Status::permission_denied(text));
        }
        let text = http::debug_page(&self.state, page, clearance).await;
        Ok(resource(page, Any { type_url: DEBUG.to_owned(), value: text.into() }))
    }
}

/// Of a nonce of ours.
fn serial(nonce: &str) -> u64 {
    nonce.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn resource(name: &str, body: Any) -> Resource {
    Resource { name: name.into(), version: "".into(), body: Arc::new(body) }
}

/// What one proxy has been sent and has accepted, by type. A proxy that names no cluster is of `cluster`.
fn client_config(client: &ClientStatus, cluster: &str) -> ClientConfig {
    let node = &client.peer.node;
    let text = |key: &str, otherwise| node.text(key).unwrap_or(otherwise).to_owned();
    let metadata = json!({
        "CLUSTER_ID": text("CLUSTER_ID", cluster),
        "NAMESPACE": text("NAMESPACE", &node.namespace),
        "ISTIO_VERSION": text("ISTIO_VERSION", ""),
    });
    let configs = client.types.iter().map(|(type_url, status)| GenericXdsConfig {
        type_url: type_url.to_string(),
        config_status: config_status(status).into(),
        last_updated: status.sent_at.map(Into::into),
        error_state: status.rejection.clone().map(|details| UpdateFailureState {
            last_update_attempt: status.sent_at.map(Into::into),
            details,
            ..Default::default()
        }),
        ..Default::default()
    });
    ClientConfig {
        node: Some(ProtoNode {
            id: node.name.to_string(),
            metadata: struct_from_value(&metadata),
            ..Default::default()
        }),
        generic_xds_configs: configs.collect(),
        ..Default::default()
    }
}

fn config_status(status: &TypeStatus) -> ConfigStatus {
    if status.rejection.is_some() {
        ConfigStatus::Error
    } else if status.sent_nonce.is_empty() {
        ConfigStatus::NotSent
    } else if status.sent_nonce == status.acked_nonce {
        ConfigStatus::Synced
    } else {
        ConfigStatus::Stale
    }
}
