//! Health, metrics and debug pages.
//!
//! Debug pages show the whole mesh, so they are for clients on this machine, by whichever of its addresses, and for those that
//! prove an identity which may see them (see [`Clearance`]). Secrets are never shown.

mod debug;
mod dump;
mod inventory;
mod metrics;
mod registry;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use meltemi_ca::AuthError;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tower::ServiceExt as _;

use crate::State;
use crate::clearance::Clearance;

pub(crate) use dump::config_dump;

pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    meltemi_pages::serve(listener, router(state), Ends::of, stop).await;
    Ok(())
}

fn router(state: Arc<State>) -> Router {
    let health = Router::new()
        .route("/ready", get(|| async { "" }))
        .route("/healthz/ready", get(|| async { "" }))
        .route("/version", get(version))
        .route("/metrics", get(prometheus))
        .route("/stats/prometheus", get(prometheus))
        .fallback(single_slashes)
        .with_state(state.clone());
    if !state.options.debug.on_http {
        return health;
    }
    let guard = axum::middleware::from_fn_with_state(state.clone(), guard);
    health.merge(debug::router(state).layer(guard))
}

/// The debug page of this name, with its query, as the clearance lets it be seen: `syncz`, `config_dump?proxyID=web-1.shop`.
pub(crate) async fn debug_page(state: &Arc<State>, page: &str, clearance: Clearance) -> Vec<u8> {
    let Ok(mut request) = Request::get(format!("/debug/{page}")).body(Body::empty()) else {
        return debug::NO_SUCH_PAGE.into();
    };
    request.extensions_mut().insert(clearance);
    let Ok(response) = debug::router(state.clone()).oneshot(request).await;
    // A page is whole in memory when it is answered with.
    to_bytes(response.into_body(), usize::MAX).await.map(Vec::from).unwrap_or_default()
}

/// Sends clients on that write slashes twice, as istioctl does (`//version`).
async fn single_slashes(uri: Uri) -> Response {
    let path = uri.path();
    if !path.contains("//") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let parts = path.split('/').filter(|part| !part.is_empty());
    let clean: String = parts.flat_map(|part| ["/", part]).collect();
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    // Of one's own alone: the path begins with one slash.
    (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, format!("/{}{query}", clean.trim_start_matches('/')))])
        .into_response()
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    own: Option<SocketAddr>,
}

impl Ends {
    fn of(stream: &TcpStream, peer: SocketAddr) -> Self {
        Self { peer, own: stream.local_addr().ok() }
    }

    /// The client is on this machine: a connection to an address of one's own comes from that address.
    fn is_local(self) -> bool {
        let peer = self.peer.ip().to_canonical();
        peer.is_loopback() || self.own.is_some_and(|own| own.ip().to_canonical() == peer)
    }
}

/// Lets local clients see every page, and others those that the identity they prove may see.
async fn guard(
    Shared(state): Shared<Arc<State>>,
    ConnectInfo(ends): ConnectInfo<Ends>,
    mut request: Request,
    next: Next,
) -> Response {
    let clearance = if ends.is_local() { Ok(Clearance::Everything) } else { prove(&state, request.headers()).await };
    let page = request.uri().path().trim_start_matches("/debug").trim_start_matches('/');
    match clearance {
        Ok(clearance) if clearance.covers_page(page) => {
            request.extensions_mut().insert(clearance);
            next.run(request).await
        }
        Ok(_) => (StatusCode::FORBIDDEN, "this debug page is not for callers of your namespace\n").into_response(),
        Err(refused) => {
            (StatusCode::UNAUTHORIZED, format!("debug pages need an identity: {refused}\n")).into_response()
        }
    }
}

/// What the bearer token of a request opens.
async fn prove(state: &State, headers: &HeaderMap) -> Result<Clearance, AuthError> {
    if let Some(open) = state.clearance(None) {
        return Ok(open);
    }
    let metadata = MetadataMap::from_headers(headers.clone());
    let caller = state.authenticator.authenticate(&metadata, None).await?;
    state.clearance(Some(&caller.id)).ok_or(AuthError::Missing)
}

/// As `istioctl version` reads it.
async fn version() -> Json<serde_json::Value> {
    let version = env!("CARGO_PKG_VERSION");
    let build = serde_json::json!({"version": version, "revision": "", "status": "Clean", "tag": version});
    let mut answer = build.clone();
    answer["product"] = "meltemi".into();
    answer["clientVersion"] = build;
    Json(answer)
}

async fn prometheus(Shared(state): Shared<Arc<State>>) -> Response {
    let text = metrics::text(&state);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use meltemi_ca::{Authority, AuthorityOptions, TokenIssuer};
    use meltemi_store::{ConfigSet, MemoryStore};

    use super::*;
    use crate::{Discovery, Options, Tokens};

    #[test]
    fn a_client_is_local_by_loopback_or_by_an_address_of_this_machine() {
        for (peer, own, expected) in [
            ("127.0.0.1:1", "127.0.0.1:8080", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:8080", true),
            ("10.244.0.1:1", "10.244.0.1:8080", true),
            ("[::ffff:10.244.0.1]:1", "10.244.0.1:8080", true),
            ("10.244.0.7:1", "10.244.0.1:8080", false),
        ] {
            let ends = Ends { peer: peer.parse().unwrap(), own: Some(own.parse().unwrap()) };
            assert_eq!(ends.is_local(), expected, "{peer} to {own}");
        }
        assert!(!Ends { peer: "10.244.0.1:1".parse().unwrap(), own: None }.is_local());
    }

    #[tokio::test]
    async fn doubled_slashes_lead_to_single_ones_here() {
        for (given, expected) in [
            ("//version", Some("/version")),
            ("///debug//syncz?pretty", Some("/debug/syncz?pretty")),
            ("//", Some("/")),
            ("/nowhere", None),
        ] {
            let answer = single_slashes(Uri::builder().path_and_query(given).build().unwrap()).await;
            let location = answer.headers().get(header::LOCATION).map(|value| value.to_str().unwrap());
            assert_eq!(location, expected, "{given}");
            assert_eq!(answer.status() == StatusCode::NOT_FOUND, expected.is_none());
        }
    }

    #[tokio::test]
    async fn others_show_a_token_and_see_what_it_opens() {
        let (tokens, state) = state().await;
        let token = |namespace| tokens.issue(namespace, "default", Duration::from_secs(60)).unwrap();
        let (system, shop) = (token("istio-system"), token("shop"));
        for (token, page, expected) in [
            (None, "/debug/syncz", StatusCode::UNAUTHORIZED),
            (Some("forged"), "/debug/syncz", StatusCode::UNAUTHORIZED),
            (Some(&*system), "/debug/syncz", StatusCode::OK),
            (Some(&*system), "/debug", StatusCode::OK),
            (Some(&*system), "/debug/nothingz", StatusCode::NOT_FOUND),
            (Some(&*shop), "/debug/syncz", StatusCode::FORBIDDEN),
            (Some(&*shop), "/debug/edsz?proxyID=web.shop", StatusCode::NOT_FOUND),
            (Some(&*shop), "/debug/edsz", StatusCode::BAD_REQUEST),
            (None, "/version", StatusCode::OK),
        ] {
            let mut request = Request::get(page);
            if let Some(token) = token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            let mut request = request.body(Body::empty()).unwrap();
            let peer = "10.244.0.7:1".parse().unwrap();
            request.extensions_mut().insert(ConnectInfo(Ends { peer, own: "10.244.0.1:8080".parse().ok() }));
            let answer = router(state.clone()).oneshot(request).await.unwrap();
            assert_eq!(answer.status(), expected, "{page}");
        }
    }

    /// A control plane that takes tokens of an issuer.
    async fn state() -> (TokenIssuer, Arc<State>) {
        let authority = Authority::self_signed(AuthorityOptions::new("cluster.local".parse().unwrap())).unwrap();
        let tokens = TokenIssuer::generate("test").unwrap();
        let options =
            Options { tokens: Some(Tokens::of_key(tokens.public_pem(), "test")), ..Options::new(Arc::new(authority)) };
        let store = Arc::new(MemoryStore::new(ConfigSet::default()));
        (tokens, Discovery::bind(options, store).await.unwrap().state)
    }
}
