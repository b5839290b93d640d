//! `meltemi echo`: the application of the samples, tests and benches.
//!
//! One program that plays any service: it says who served, what it was asked, over what protocol and security, and calls
//! further services when told to. Speaks HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket on its HTTP ports, and
//! lines of text on its TCP ports.
//!
//! Told to end by SIGTERM it serves on for a while, since those who call it hear of its end later than it does, and asks them to
//! go elsewhere. SIGINT ends it at once.
//!
//! Never buffers more than [`server::MAX_BODY`] of a request; everything longer is streamed.

mod client;
mod grpc;
mod health;
mod identity;
mod server;
mod sha1;
mod tcp;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use identity::Identity;

/// Pause after a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const BACKLOG_PERMITS: usize = 16_384;

#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = "\
Paths:
  /               a report as JSON, after the calls given by --call
  /call?url=URL   calls URL (repeatable) and reports what it said; http, h2, grpc and tcp URLs
  /status/503     answers with this status
  /delay/100ms    answers after this time
  /bytes/1024     answers with a body of so many bytes
  /echo           sends the request's body back
  /ws             echoes WebSocket messages (any path, if upgraded)
The same as parameters of any path: ?status=503&delay=100ms&bytes=1024&call=http://catalog:8080/

Examples:
  meltemi echo --http 8080 --tcp 9000
  meltemi echo --http 8080 --call http://catalog:8080/ --call tcp://ledger:9000
  curl -s 'localhost:8080/call?url=grpc://reviews:7070/Echo'")]
pub struct Arguments {
    /// Ports for HTTP/1.1, HTTP/2, gRPC and WebSocket
    #[arg(long = "http", visible_alias = "grpc", value_name = "PORT", env = "ECHO_HTTP", value_delimiter = ',')]
    http: Vec<u16>,
    /// Ports for plain TCP: each line comes back with the name of who served it
    #[arg(long = "tcp", value_name = "PORT", env = "ECHO_TCP", value_delimiter = ',')]
    tcp: Vec<u16>,
    /// What to call before answering on `/`; repeatable
    #[arg(long = "call", value_name = "URL", env = "ECHO_CALL", value_delimiter = ',')]
    calls: Vec<String>,
    /// Address to listen on
    #[arg(long, default_value = "0.0.0.0", env = "ECHO_ADDRESS")]
    address: std::net::IpAddr,
    /// Name of the service that this is
    #[arg(long, default_value = "echo", env = "ECHO_SERVICE")]
    service: String,
    /// Its version
    #[arg(long = "service-version", default_value = "v1", env = "ECHO_VERSION")]
    version: String,
    /// Threads that serve
    #[arg(long, default_value_t = 1, env = "ECHO_THREADS")]
    threads: usize,
    /// How long to go on serving after SIGTERM (`500ms`, `2s`); 0 ends at once, as a second signal does
    #[arg(long, default_value = "2s", env = "ECHO_LINGER", value_name = "TIME", value_parser = linger)]
    linger: Duration,
}

fn linger(text: &str) -> Result<Duration, String> {
    server::duration(text).ok_or_else(|| "not a time such as 500ms or 2s".to_owned())
}

pub fn run(mut arguments: Arguments) -> anyhow::Result<()> {
    if arguments.http.is_empty() && arguments.tcp.is_empty() {
        arguments.http.push(8080);
    }
    let mut builder = if arguments.threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(arguments.threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()?.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    let identity = Arc::new(Identity::new(&arguments.service, &arguments.version));
    let (leave, leaving) = watch::channel(false);
    let app = Arc::new(server::App { identity: Arc::clone(&identity), calls: arguments.calls.clone(), leaving });
    let permits = Arc::new(tokio::sync::Semaphore::new(BACKLOG_PERMITS));
    let mut listening = Vec::new();
    for port in &arguments.http {
        let listener = listen(&arguments, *port).await?;
        listening.push(format!("http://{}", listener.local_addr()?));
        let app = Arc::clone(&app);
        tokio::spawn(accept(listener, Arc::clone(&permits), move |stream| {
            server::connection(Arc::clone(&app), stream)
        }));
    }
    for port in &arguments.tcp {
        let listener = listen(&arguments, *port).await?;
        listening.push(format!("tcp://{}", listener.local_addr()?));
        let identity = Arc::clone(&identity);
        let connection = move |stream| tcp::connection(Arc::clone(&identity), stream);
        tokio::spawn(accept(listener, Arc::clone(&permits), connection));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    println!("{} {} serves {}", identity.service, identity.version, listening.join(" "));
    tokio::select! {
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => {}
    }
    leave.send_replace(true);
    tokio::select! {
        () = tokio::time::sleep(arguments.linger) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn listen(arguments: &Arguments, port: u16) -> anyhow::Result<TcpListener> {
    let address = std::net::SocketAddr::from((arguments.address, port));
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn accept<F>(
    listener: TcpListener,
    permits: Arc<tokio::sync::Semaphore>,
    serve: impl Fn(tokio::net::TcpStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                let connection = serve(stream);
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}
