//! The request that is asked about, from the command line.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use meltemi_explain::names;
use meltemi_explain::{Protocol, Request, Security};
use serde_json::{Map, Value};

use super::subject::Subject;
use super::world::World;

/// Stands for an address that is known outside of the mesh only (TEST-NET-1).
const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// Bytes of a file with a token that are read.
const MOST_OF_A_TOKEN: u64 = 64 * 1024;

#[derive(Debug, Clone, Args)]
pub struct RequestArguments {
    /// Where the request goes: http, https or tcp, host, port and path
    #[arg(value_name = "URL")]
    url: Option<String>,
    /// From which workload: a pod, deployment, service or gateway (name, name.namespace, kind/name), or labels such as app=web
    #[arg(long, value_name = "WORKLOAD")]
    pub from: Option<String>,
    /// The workload's namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// To this address, whatever the URL's host is
    #[arg(long, value_name = "IP:PORT")]
    address: Option<String>,
    /// The host header [default: the URL's host]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The path with its query [default: the URL's, or /]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// The method
    #[arg(short = 'X', long, default_value = "GET", value_name = "METHOD")]
    method: String,
    /// A header; repeatable
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client speaks TLS
    #[arg(long)]
    tls: bool,
    /// The client speaks TLS with a certificate of the mesh
    #[arg(long, conflicts_with = "tls")]
    mtls: bool,
    /// The server name that the client's TLS names [default: with --tls, the host]
    #[arg(long, value_name = "NAME")]
    sni: Option<String>,
    /// What the client's TLS offers [default: by --tls, --mtls and the protocol]
    #[arg(long, value_name = "PROTOCOL")]
    alpn: Option<String>,
    /// What the client speaks: http, http2 or tcp
    #[arg(long, value_parser = ["http", "http2", "tcp"], value_name = "PROTOCOL")]
    protocol: Option<String>,
    /// Whom the client's certificate names, with --mtls and --inbound: spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT, or
    /// NAMESPACE/ACCOUNT of the mesh's own trust domain
    #[arg(long, value_name = "IDENTITY", requires = "mtls")]
    principal: Option<String>,
    /// The client's address, for rules about addresses [default: the workload's, for what goes out of it]
    #[arg(long = "source-ip", value_name = "IP")]
    source_ip: Option<IpAddr>,
    /// A claim of a valid token that the request brings, such as iss=https://issuer.example or scope='read write', or in JSON
    /// groups='["a"]'; repeatable
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = parse_claim)]
    claims: Vec<(String, Value)>,
    /// A file with the token that the request brings (- is the standard input): its claims are taken as given, neither signature
    /// nor life is verified. --claim goes over them
    #[arg(long, value_name = "FILE")]
    jwt: Option<PathBuf>,
    /// The request comes in to the workload instead of going out from it
    #[arg(long)]
    inbound: bool,
}

/// A request with what had to be assumed.
pub struct Asked {
    pub request: Request,
    pub notes: Vec<String>,
}

struct Url<'a> {
    scheme: &'a str,
    /// With its port, where that is written.
    authority: &'a str,
    host: &'a str,
    port: Option<u16>,
    path: &'a str,
}

impl<'a> Url<'a> {
    fn parse(text: &'a str) -> anyhow::Result<Self> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        ensure!(["http", "https", "tcp", "grpc", "tls"].contains(&scheme), "{text}: http, https, grpc, tls or tcp");
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        ensure!(!authority.is_empty(), "{text}: no host");
        let bare = meltemi_explain::without_port(authority);
        let port =
            authority.get(bare.len() + 1..).map(str::parse).transpose().with_context(|| format!("{text}: port"))?;
        Ok(Self { scheme, authority, host: bare.trim_matches(['[', ']']), port, path })
    }

    fn port(&self) -> Option<u16> {
        let default = match self.scheme {
            "http" | "grpc" => Some(80),
            "https" | "tls" => Some(443),
            _ => None,
        };
        self.port.or(default)
    }
}

/// Puts the request together.
pub fn build(arguments: &RequestArguments, world: &World, subject: &Subject) -> anyhow::Result<Asked> {
    let url = arguments.url.as_deref().map(Url::parse).transpose()?;
    let scheme = url.as_ref().map_or("http", |url| url.scheme);
    let security = match (arguments.mtls, arguments.tls || matches!(scheme, "https" | "tls")) {
        (true, _) => Security::Mtls,
        (false, true) => Security::Tls,
        (false, false) => Security::Plaintext,
    };
    ensure!(
        security != Security::Plaintext || arguments.sni.is_none() && arguments.alpn.is_none(),
        "--sni and --alpn are of TLS: --tls or --mtls"
    );
    let mut notes = Vec::new();
    let destination = destination(arguments, url.as_ref(), world, subject, &mut notes)?;
    let authority = url.as_ref().map(|url| url.authority.to_owned());
    let host = arguments.host.clone().or(authority).unwrap_or_else(|| destination.to_string());
    let sni = match (&arguments.sni, security) {
        (Some(sni), _) => sni.clone(),
        (None, Security::Tls) => meltemi_explain::without_port(&host).to_owned(),
        (None, _) => String::new(),
    };
    let path = url.as_ref().map(|url| url.path).filter(|path| !path.is_empty());
    let path = arguments.path.clone().or(path.map(str::to_owned)).unwrap_or_else(|| "/".to_owned());
    let own = subject.address.filter(|_| !arguments.inbound && !subject.is_gateway);
    let source = arguments.source_ip.or(own);
    let principal = arguments.principal.as_deref().map(|text| principal(text, world)).transpose()?;
    let mut claims = arguments.jwt.as_deref().map(claims_of_file).transpose()?.unwrap_or_default();
    claims.extend(arguments.claims.iter().cloned());
    ensure!(claims.is_empty() || claims.contains_key("iss"), "--claim: a token has an issuer: --claim iss=ISSUER");
    if !claims.is_empty() {
        notes.push("the token's claims are taken as given: whether it is valid was not asked".to_owned());
    }
    let request = Request {
        inbound: arguments.inbound,
        source: source.map(|address| SocketAddr::new(address, 40_000)),
        protocol: protocol(arguments.protocol.as_deref(), scheme),
        security,
        alpn: arguments.alpn.clone(),
        sni,
        method: arguments.method.clone(),
        host,
        path: if path.starts_with('/') { path } else { format!("/{path}") },
        principal: principal.unwrap_or_default(),
        claims,
        headers: arguments.headers.iter().map(|header| parse_header(header)).collect::<Result<_, _>>()?,
        ..Request::to(destination)
    };
    Ok(Asked { request, notes })
}

fn protocol(named: Option<&str>, scheme: &str) -> Protocol {
    match (named, scheme) {
        (Some("http2"), _) | (None, "grpc") => Protocol::Http2,
        (Some("tcp"), _) | (None, "tcp" | "tls") => Protocol::Tcp,
        _ => Protocol::Http1,
    }
}

/// A whole identity, or an account of the mesh.
fn principal(text: &str, world: &World) -> anyhow::Result<String> {
    if text.starts_with("spiffe://") {
        return Ok(text.to_owned());
    }
    match text.split_once('/') {
        Some((namespace, account)) if !account.contains('/') && !namespace.is_empty() && !account.is_empty() => {
            let domain = &world.mesh.snapshot.mesh.trust_domain;
            Ok(format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))
        }
        _ => bail!("--principal {text:?}: spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT, or NAMESPACE/ACCOUNT"),
    }
}

/// What a token says, unverified.
fn claims_of_file(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let named = || format!("--jwt {}", path.display());
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(MOST_OF_A_TOKEN).read_to_string(&mut text).with_context(named)?;
    } else {
        let file = std::fs::File::open(path).with_context(named)?;
        file.take(MOST_OF_A_TOKEN).read_to_string(&mut text).with_context(named)?;
    }
    claims_of_token(text.trim()).with_context(named)
}

/// The second part of a JSON Web Signature in its compact form (RFC 7515, 7.1). What is wrong is told without the token.
fn claims_of_token(token: &str) -> anyhow::Result<Map<String, Value>> {
    let [_, payload, _] = token.split('.').collect::<Vec<_>>()[..] else {
        bail!("it is no token: three parts with dots between them");
    };
    let Ok(json) = URL_SAFE_NO_PAD.decode(payload) else { bail!("the token's second part is not base64url") };
    let Ok(claims) = serde_json::from_slice(&json) else { bail!("the token's second part is no JSON object") };
    Ok(claims)
}

/// JSON where it looks like a list, an object, a number or a truth value, else text.
fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("NAME=VALUE")?;
    let value = match serde_json::from_str(value) {
        Ok(Value::String(_) | Value::Null) | Err(_) => Value::from(value),
        Ok(json) => json,
    };
    Ok((name.to_owned(), value))
}

fn parse_header(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) = text.split_once(':').with_context(|| format!("-H {text:?}: NAME: VALUE"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn destination(
    arguments: &RequestArguments,
    url: Option<&Url<'_>>,
    world: &World,
    subject: &Subject,
    notes: &mut Vec<String>,
) -> anyhow::Result<SocketAddr> {
    let port = url.and_then(Url::port);
    if let Some(text) = &arguments.address {
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let address: IpAddr = text.parse().with_context(|| format!("--address {text}: IP:PORT"))?;
        let port = port.with_context(|| format!("--address {text}: which port? IP:PORT"))?;
        return Ok(SocketAddr::new(address, port));
    }
    let Some(url) = url else { bail!("where to? A URL, or --address IP:PORT") };
    let port = port.with_context(|| format!("{}: which port?", url.authority))?;
    if arguments.inbound || subject.is_gateway {
        return Ok(at_workload(port, world, subject, notes));
    }
    if let Ok(address) = url.host.parse() {
        return Ok(SocketAddr::new(address, port));
    }
    let Some(service) = names::find(&world.mesh.services, url.host, &subject.namespace) else {
        notes.push(format!("no service has the name {}: {ELSEWHERE} stands for its address", url.host));
        return Ok(SocketAddr::new(ELSEWHERE, port));
    };
    if !service.ports.is_empty() && service.ports.iter().all(|(own, _)| *own != port) {
        let ports: Vec<String> = service.ports.iter().map(|(own, _)| own.to_string()).collect();
        notes.push(format!("{} has no port {port}; it has {}", service.hostname, ports.join(", ")));
    }
    let address = service.address.or_else(|| world.mesh.address_of_headless(service)).unwrap_or_else(|| {
        notes.push(format!("{} has no address of its own: {ELSEWHERE} stands for it", service.hostname));
        ELSEWHERE
    });
    Ok(SocketAddr::new(address, port))
}

/// What comes to a workload comes to its own port: the one to which a Service leads that has the port.
fn at_workload(port: u16, world: &World, subject: &Subject, notes: &mut Vec<String>) -> SocketAddr {
    let address = subject.address.unwrap_or(ELSEWHERE);
    let target = world.mesh.target_port(address, port).filter(|target| *target != port);
    if let Some(target) = target {
        notes.push(format!("port {port} of its Service is port {target} of the workload"));
    }
    SocketAddr::new(address, target.unwrap_or(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_text_unless_they_are_json() {
        for (text, expected) in [
            ("iss=a=b", ("iss", Value::from("a=b"))),
            ("groups=[\"a\"]", ("groups", serde_json::json!(["a"]))),
            ("admin=true", ("admin", true.into())),
            ("scope=read write", ("scope", "read write".into())),
            ("x=null", ("x", "null".into())),
        ] {
            let (name, value) = parse_claim(text).unwrap();
            assert_eq!((name.as_str(), value), expected, "{text}");
        }
        assert!(parse_claim("iss").is_err() && parse_claim("=x").is_err());
    }

    #[test]
    fn a_token_says_its_claims_and_is_not_shown_when_it_is_wrong() {
        let token = |payload: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload));
        let claims = claims_of_token(&token(r#"{"iss":"i","groups":["a"]}"#)).unwrap();
        assert_eq!(Value::Object(claims), serde_json::json!({"iss": "i", "groups": ["a"]}));
        for (wrong, expected) in [
            ("secret".to_owned(), "three parts"),
            ("a.secret!.c".to_owned(), "not base64url"),
            (token("secret"), "no JSON object"),
            (token("[1]"), "no JSON object"),
        ] {
            let error = format!("{:#}", claims_of_token(&wrong).unwrap_err());
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn urls_have_their_parts() {
        for (text, expected) in [
            ("http://a/b?c", ("http", "a", "a", Some(80), "/b?c")),
            ("a.b:8080", ("http", "a.b:8080", "a.b", Some(8080), "")),
            ("https://[::1]:1/x", ("https", "[::1]:1", "::1", Some(1), "/x")),
            ("tcp://a", ("tcp", "a", "a", None, "")),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.scheme, url.authority, url.host, url.port(), url.path), expected, "{text}");
        }
        assert!(Url::parse("ftp://a").is_err());
        assert!(Url::parse("http:///x").is_err());
    }
}
