//! `grpc.health.v1.Health`, which Kubernetes' `grpc` probes and gRPC's own clients ask.
//!
//! Everything serves until the program is told to end; then nothing does, so that whoever watches goes elsewhere while calls
//! are still answered.

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::grpc::{self, Outgoing, Status};
use super::identity::Identity;
use super::server::Body;

#[cfg(test)]
mod tests;

const SERVICE: &str = "grpc.health.v1.Health";

/// `HealthCheckResponse.ServingStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Serving = 1,
    NotServing = 2,
    Unknown = 3,
}

impl Health {
    fn of(identity: &Identity, service: &str, leaving: bool) -> Self {
        match (is_own(identity, service), leaving) {
            (false, _) => Health::Unknown,
            (true, false) => Health::Serving,
            (true, true) => Health::NotServing,
        }
    }

    /// `HealthCheckResponse` with its prefix.
    fn framed(self) -> Bytes {
        grpc::framed(&[0x08, self as u8])
    }
}

/// The whole program (no name), this service, and what this program's service is called in a package: `shop.Reviews` of `reviews`.
fn is_own(identity: &Identity, service: &str) -> bool {
    let last = service.rsplit('.').next().unwrap_or(service);
    service.is_empty() || service == SERVICE || last.eq_ignore_ascii_case(&identity.service)
}

/// The method's name, if the path is one of this service's.
pub fn method(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.strip_prefix(SERVICE)?.strip_prefix('/')
}

/// The answer to `Check` or `Watch`.
pub fn serve(request: Request<Incoming>, identity: Identity, leaving: watch::Receiver<bool>) -> Response<Body> {
    grpc::respond(move |frames| async move {
        let (head, mut body) = request.into_parts();
        let message = match grpc::first_message(&mut body).await {
            Ok(message) => message.unwrap_or_default(),
            Err(message) => return Status::internal(message),
        };
        let Some(service) = asked(&message) else { return Status::internal("the request is not understood") };
        let now = Health::of(&identity, service, *leaving.borrow());
        match method(head.uri.path()) {
            Some("Check") => check(now, &frames).await,
            Some("Watch") => watch(|leaving| Health::of(&identity, service, leaving), leaving, &frames).await,
            _ => Status::unimplemented("the health service has Check and Watch"),
        }
    })
}

/// `HealthCheckRequest.service`, which is left out where it is empty.
fn asked(message: &[u8]) -> Option<&str> {
    if message.is_empty() { Some("") } else { grpc::string_field(message) }
}

async fn check(health: Health, frames: &Outgoing) -> Status {
    if health == Health::Unknown {
        return Status::not_found("no such service here");
    }
    // Nobody listens any more: then the status is lost, too.
    let _ = frames.send(Ok(hyper::body::Frame::data(health.framed()))).await;
    Status::ok()
}

/// Answers at once and at the change, and stays until the client goes.
async fn watch(health: impl Fn(bool) -> Health, mut leaving: watch::Receiver<bool>, frames: &Outgoing) -> Status {
    let mut told = None;
    loop {
        let now = health(*leaving.borrow_and_update());
        if told != Some(now) {
            let sent = frames.send(Ok(hyper::body::Frame::data(now.framed()))).await;
            if sent.is_err() {
                return Status::ok();
            }
            told = Some(now);
        }
        tokio::select! {
            changed = leaving.changed() => if changed.is_err() { return Status::ok() },
            () = frames.closed() => return Status::ok(),
        }
    }
}
