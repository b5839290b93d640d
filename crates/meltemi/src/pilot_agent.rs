//! `meltemi wait` and `meltemi request`: pilot-agent's commands, which injected pods run as lifecycle hooks.
//!
//! Nothing but HTTP/1.1 to a port of this pod, with a bound on time and size.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use http::Uri;

/// Of an answer that is printed.
const MAX_ANSWER: u64 = 64 << 20;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi wait                          # until the proxy of this pod is ready
  meltemi wait --timeoutSeconds 10 --url http://localhost:15020/healthz/ready

Exit codes: 0 it is ready; 1 it is not, in time; 2 wrong usage")]
pub struct Wait {
    /// What answers with 200 once the proxy is ready
    #[arg(long, default_value = "http://localhost:15021/healthz/ready", value_name = "URL", value_parser = plain_http)]
    url: Uri,
    /// The longest to wait
    #[arg(long = "timeoutSeconds", default_value_t = 60, value_name = "SECONDS")]
    timeout_seconds: u64,
    /// The longest that one answer may take
    #[arg(long = "requestTimeoutMillis", default_value_t = 500, value_name = "MILLISECONDS")]
    request_timeout_millis: u64,
    /// Between two attempts
    #[arg(long = "periodMillis", default_value_t = 500, value_name = "MILLISECONDS")]
    period_millis: u64,
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi request GET stats                          # of the proxy's admin port
  meltemi request --debug-port=15020 POST drain      # of the agent

Exit codes: 0 done; 1 it failed, or was answered with a status of 300 or more; 2 wrong usage")]
pub struct Request {
    /// Port of this pod that is asked
    #[arg(long = "debug-port", default_value_t = 15000, value_name = "PORT")]
    debug_port: u16,
    /// Method of the request, such as GET or POST
    #[arg(value_name = "METHOD")]
    method: http::Method,
    /// Path that is asked for, with its query; it may begin with a slash
    #[arg(value_name = "PATH")]
    path: String,
    /// Body of the request
    #[arg(value_name = "BODY", default_value = "", hide_default_value = true)]
    body: String,
}

/// A URL that can be asked: with a host, and without TLS.
fn plain_http(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    match (url.scheme_str(), url.host()) {
        (Some("http"), Some(_)) => Ok(url),
        _ => Err("a URL such as http://localhost:15021/healthz/ready is expected; only http is asked".to_owned()),
    }
}

pub fn wait(arguments: &Wait) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(arguments.timeout_seconds);
    let timeout = Duration::from_millis(arguments.request_timeout_millis.max(1));
    loop {
        let problem = match ask("GET", &arguments.url, "", timeout) {
            Ok((200, _)) => return Ok(()),
            Ok((status, _)) => format!("{} answered with {status}", arguments.url),
            Err(error) => format!("{error:#}"),
        };
        let pause = Duration::from_millis(arguments.period_millis);
        if Instant::now() + pause >= end {
            bail!("the proxy is not ready after {} s: {problem}", arguments.timeout_seconds);
        }
        std::thread::sleep(pause);
    }
}

pub fn request(arguments: &Request) -> Result<()> {
    let path = arguments.path.trim_start_matches('/');
    let url: Uri = format!("http://localhost:{}/{path}", arguments.debug_port).parse().context("PATH")?;
    let (status, answer) = ask(arguments.method.as_str(), &url, &arguments.body, REQUEST_TIMEOUT)?;
    std::io::stdout().lock().write_all(&answer)?;
    ensure!(status < 300, "{url} answered with {status}");
    Ok(())
}

/// Status and body of what is answered.
fn ask(method: &str, url: &Uri, body: &str, timeout: Duration) -> Result<(u16, Vec<u8>)> {
    let host = url.host().context("a URL without a host")?.trim_matches(['[', ']']);
    let addresses = (host, url.port_u16().unwrap_or(80)).to_socket_addrs().with_context(|| format!("{url}"))?;
    let mut stream = connect(addresses, timeout).with_context(|| format!("{url}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let (target, length) = (url.path_and_query().map_or("/", |target| target.as_str()), body.len());
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let head = format!(
        "{method} {target} HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).with_context(|| format!("{url}"))?;
    parse(&answer).with_context(|| format!("{url}: the answer is not HTTP/1.1"))
}

/// Tries one address after the other.
fn connect(addresses: impl Iterator<Item = std::net::SocketAddr>, timeout: Duration) -> Result<TcpStream> {
    let mut problem = anyhow::anyhow!("no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = error.into(),
        }
    }
    Err(problem)
}

fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[end + 4..];
    let is_chunked = head.lines().any(|line| line.eq_ignore_ascii_case("transfer-encoding: chunked"));
    Some((status, if is_chunked { unchunked(body)? } else { body.to_vec() }))
}

fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests;
