//! External authorization: what a service is asked, and what its answer means. The same for requests and connections.

mod attributes;
mod verdict;

use meltemi_plan::ext_authz::{GrpcTarget, NetworkExtAuthz};
use meltemi_proto::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};

pub(crate) use attributes::{Peers, Told, json_map, peers, request};
pub(crate) use verdict::{Changes, Refusal, Verdict, removable};

use crate::call::{Caller, Rpc};
use crate::info::StreamInfo;

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Asks a gRPC service.
pub(crate) async fn check(target: &GrpcTarget, attributes: AttributeContext, caller: &dyn Caller) -> Verdict {
    let rpc = Rpc::of(target, PATH);
    let message = meltemi_proto::encode(&CheckRequest { attributes: Some(attributes) });
    let answer = match rpc.call(caller, &message).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::debug!(cluster = %target.cluster, %error, "no authorization");
            return Verdict::Error(None);
        }
    };
    meltemi_proto::decode::<CheckResponse>(&answer).map_or(Verdict::Error(None), Verdict::of)
}

/// Asks whether a connection may go on.
pub(crate) async fn admission(config: &NetworkExtAuthz, info: &StreamInfo, caller: &dyn Caller) -> Verdict {
    let how = Peers { certificate: config.include_peer_certificate, tls_session: config.include_tls_session };
    let attributes = peers(how, &config.metadata_namespaces, None, info);
    check(&config.service, attributes, caller).await
}
