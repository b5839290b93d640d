//! Tokens of the workload (SPIFFE JWT-SVID): whoever gives its certificate gives these, too, and is asked each time by the messages of
//! the Workload API. Nothing is kept here. Beside certificates in files there are neither tokens nor keys: whoever wrote them does not
//! sign tokens, and the answer is `Unimplemented`, by which SPIFFE's clients know that a server does not have this profile.

use super::external::connect;
use super::workload::HEADER;
use super::{IdentityKeeper, WorkloadSecret};
use crate::environment::CertificateSource;
use meltemi_proto::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use meltemi_proto::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// A token, or the keys of as many trust domains as discovery gives.
const MAX_RESPONSE_BYTES: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is asked.
enum Giver {
    ControlPlane,
    Socket(PathBuf),
}

/// Asks for the workload.
pub struct Tokens(Arc<IdentityKeeper>);

impl Tokens {
    pub fn new(keeper: Arc<IdentityKeeper>) -> Self {
        Self(keeper)
    }

    fn giver(&self) -> Result<Giver, Status> {
        match &self.0.source {
            CertificateSource::Authority => Ok(Giver::ControlPlane),
            CertificateSource::WorkloadApi(socket) | CertificateSource::Socket(socket) => {
                Ok(Giver::Socket(socket.clone()))
            }
            CertificateSource::Files(_) => {
                Err(Status::unimplemented("JWT-SVIDs are not served: the certificate is from files"))
            }
        }
    }

    /// A client, and the request as whoever is asked wants it.
    async fn ask<T>(&self, message: T) -> Result<(SpiffeWorkloadApiClient<Channel>, Request<T>), Status> {
        let unavailable = |reason: String| Status::unavailable(reason);
        let mut request = Request::new(message);
        request.metadata_mut().insert(HEADER, MetadataValue::from_static("true"));
        let (channel, request) = match self.giver()? {
            Giver::ControlPlane => {
                let control_plane = &self.0.control_plane;
                let secret: Option<Arc<WorkloadSecret>> = self.0.current.borrow().clone();
                let channel = control_plane.authority_channel(secret.as_deref()).await;
                let request = control_plane.authorize(request).map_err(|e| unavailable(e.to_string()))?;
                (channel.map_err(|e| unavailable(e.to_string()))?, request)
            }
            Giver::Socket(socket) => (connect(&socket).await.map_err(|e| unavailable(e.to_string()))?, request),
        };
        Ok((SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES), request))
    }

    pub async fn fetch(&self, message: JwtsvidRequest) -> Result<JwtsvidResponse, Status> {
        let asking = async {
            let (mut client, request) = self.ask(message).await?;
            Ok(client.fetch_jwtsvid(request).await?.into_inner())
        };
        within(asking).await
    }

    pub async fn validate(&self, message: ValidateJwtsvidRequest) -> Result<ValidateJwtsvidResponse, Status> {
        let asking = async {
            let (mut client, request) = self.ask(message).await?;
            Ok(client.validate_jwtsvid(request).await?.into_inner())
        };
        within(asking).await
    }

    pub async fn bundles(&self) -> Result<Streaming<JwtBundlesResponse>, Status> {
        let asking = async {
            let (mut client, request) = self.ask(JwtBundlesRequest {}).await?;
            Ok(client.fetch_jwt_bundles(request).await?.into_inner())
        };
        within(asking).await
    }
}

async fn within<T>(asking: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let late = |_| Err(Status::unavailable(format!("no answer within {PATIENCE:?}")));
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(late)
}
