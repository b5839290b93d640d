//! What filters of both proxies ask: an issuer's keys, over HTTP/1.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;

pub struct Services {
    pub http: SocketAddr,
}

impl Services {
    pub fn start(keys: String) -> Self {
        let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.set_nonblocking(true).expect("a socket");
        let http = socket.local_addr().expect("bound");
        let keys: Arc<str> = keys.into();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async move { serve_http(TcpListener::from_std(socket).expect("a socket"), keys).await });
        });
        Self { http }
    }
}

async fn serve_http(socket: TcpListener, keys: Arc<str>) {
    while let Ok((stream, _)) = socket.accept().await {
        let keys = keys.clone();
        let answer = service_fn(move |request: Request<Incoming>| {
            let keys = keys.clone();
            async move { Ok::<_, Infallible>(over_http(&request, &keys)) }
        });
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
    }
}

fn over_http(request: &Request<Incoming>, keys: &str) -> Response<Full<Bytes>> {
    let body = if request.uri().path() == "/keys" { keys.to_owned() } else { String::new() };
    let status = if body.is_empty() { 404 } else { 200 };
    Response::builder().status(status).body(Full::new(body.into())).expect("a response")
}
