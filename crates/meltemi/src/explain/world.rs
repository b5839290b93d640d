//! The mesh that is asked about: files, or a running control plane.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use meltemi_config::{decode, parse_documents};
use meltemi_explain::discovery::{self, Connected, InForce};
use meltemi_explain::mesh::{File, Mesh};
use serde_json::Value;

use crate::inspect::sources;

/// A control plane that takes longer is not there.
const PATIENCE: Duration = Duration::from_secs(10);
const MAX_PAGE: u64 = 1 << 30;

#[derive(Debug, Clone, Args)]
pub struct MeshArguments {
    /// Files or folders of Kubernetes and Istio documents; - is standard input
    #[arg(short = 'f', long, value_name = "PATH", num_args = 1..)]
    pub filename: Vec<PathBuf>,
    /// A file with mesh settings (MeshConfig) [default: the ConfigMap istio of istio-system, or Istio's defaults]
    #[arg(long = "meshConfig", visible_alias = "mesh-config", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// The debug port of a running control plane
    #[arg(long, value_name = "URL", conflicts_with = "filename")]
    pub discovery: Option<String>,
}

/// The mesh, and the control plane that runs it.
pub struct World {
    pub mesh: Mesh,
    pub running: Option<Running>,
}

/// A control plane, with the proxies that are connected to it.
pub struct Running {
    pub address: Address,
    pub connected: Vec<Connected>,
}

impl World {
    pub fn open(arguments: &MeshArguments) -> anyhow::Result<Self> {
        let config = arguments.mesh_config.as_ref().map(read_one).transpose()?;
        if let Some(url) = &arguments.discovery {
            let (address, in_force) = in_force(url)?;
            let connected = discovery::connected(&|page| address.page(page))?;
            let mut mesh = in_force.mesh(&[], config.as_ref())?;
            find_lines(&mut mesh);
            return Ok(Self { mesh, running: Some(Running { address, connected }) });
        }
        ensure!(!arguments.filename.is_empty(), "-f or --discovery: which mesh?");
        Ok(Self { mesh: Mesh::read(&read_all(&arguments.filename)?, config.as_ref())?, running: None })
    }

    /// Says which documents are not in force.
    pub fn warn(&self) {
        for problem in &self.mesh.refused {
            eprintln!("{problem}");
        }
        if !self.mesh.refused.is_empty() {
            eprintln!("warning: what is wrong is not in force, and left out here");
        }
    }
}

/// Finds the lines of what a control plane has read from files that are here too.
fn find_lines(mesh: &mut Mesh) {
    for file in mesh.origins.files() {
        if let Ok(text) = std::fs::read_to_string(&*file) {
            mesh.origins.attach(parse_documents(&file, &text));
        }
    }
}

/// What a control plane has in force.
pub fn in_force(url: &str) -> anyhow::Result<(Address, InForce)> {
    let address = Address::parse(url)?;
    let in_force = discovery::in_force(&|page| address.page(page))?;
    Ok((address, in_force))
}

/// The name and text of every file.
pub fn read_all(paths: &[PathBuf]) -> anyhow::Result<Vec<File>> {
    let mut files = Vec::new();
    for path in paths {
        for (name, bytes) in sources(path, 0)? {
            let text = decode(&name, bytes).map_err(|problem| anyhow::anyhow!("{problem}"))?;
            files.push((name, text));
        }
    }
    Ok(files)
}

pub fn read_one(path: &PathBuf) -> anyhow::Result<File> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
    Ok((name, text))
}

/// Host and port of a plain HTTP server.
pub struct Address(String);

impl Address {
    /// `http://127.0.0.1:8080`, or without the scheme.
    fn parse(url: &str) -> anyhow::Result<Self> {
        ensure!(!url.starts_with("https://"), "--discovery {url}: the debug port speaks plain HTTP");
        let rest = url.strip_prefix("http://").unwrap_or(url);
        let host = rest.split('/').next().unwrap_or_default();
        ensure!(!host.is_empty(), "--discovery {url:?}: a URL such as http://127.0.0.1:8080");
        let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        Ok(Self(if port { host.to_owned() } else { format!("{host}:80") }))
    }

    /// Gets a page of JSON.
    pub fn page(&self, path: &str) -> Result<Value, String> {
        let text = self.get(path).map_err(|error| format!("http://{}: {error:#}", self.0))?;
        serde_json::from_str(&text).map_err(|error| format!("http://{}: not JSON: {error}", self.0))
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends with the connection and is not chunked.
        write!(stream, "GET {path} HTTP/1.0\r\nhost: {}\r\naccept: application/json\r\n\r\n", self.0)?;
        let mut answer = Vec::new();
        stream.take(MAX_PAGE).read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").context("not an HTTP answer")?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let body = String::from_utf8_lossy(&answer[end + 4..]).into_owned();
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        if status != "200" {
            bail!("answered {status}: {}", body.lines().next().unwrap_or_default());
        }
        Ok(body)
    }
}
