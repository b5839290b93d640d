//! What the plugin asks the daemon: who is this pod?
//!
//! Owns: the protocol on the Unix socket, a line of JSON each way. The socket is root's alone, so the plugin needs no
//! credentials, and the daemon says nothing but what matters to capture. Cost: one connection and one call to the API
//! server for each pod that starts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use meltemi_kubernetes::nodes::Pod;

use crate::cluster::Cluster;
use crate::invocation::PodName;

#[cfg(test)]
mod tests;

/// The socket's name in the daemon's folder.
const SOCKET: &str = "pods.sock";

/// A question is two names and an id, each of which Kubernetes bounds.
const MAX_QUESTION: u64 = 4096;
/// A pod's annotations are at most 256 KiB, its containers' names and arguments far less than the rest.
const MAX_ANSWER: u64 = 4 << 20;
/// Questions that are answered at a time.
const MAX_CONNECTIONS: usize = 64;
/// How long one question may take, on either side.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize, Deserialize)]
struct Question {
    namespace: String,
    name: String,
    #[serde(default)]
    uid: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Pod(Box<Pod>),
    /// No such pod, or not yet.
    Absent,
    Error(String),
}

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error("asking the node's daemon at {}: {source}", path.display())]
    Connection { path: PathBuf, source: std::io::Error },
    #[error("the node's daemon cannot tell: {0}")]
    Refused(String),
}

/// Where the plugin learns of pods.
pub trait PodSource {
    /// The pod, or none where there is no such one.
    fn pod(&self, name: &PodName) -> Result<Option<Pod>, QueryError>;
}

/// The daemon, from the plugin's side.
pub struct Daemon {
    socket: PathBuf,
}

/// Where a daemon with this folder listens.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join(SOCKET)
}

impl Daemon {
    pub fn at(folder: &Path) -> Self {
        Daemon { socket: socket(folder) }
    }

    fn ask(&self, question: &Question) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&line(question)?)?;
        let mut text = String::new();
        BufReader::new(stream.take(MAX_ANSWER)).read_line(&mut text)?;
        Ok(serde_json::from_str(&text)?)
    }
}

fn line(value: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl PodSource for Daemon {
    fn pod(&self, name: &PodName) -> Result<Option<Pod>, QueryError> {
        let PodName { namespace, name, uid } = name.clone();
        let answer = self.ask(&Question { namespace, name, uid });
        match answer.map_err(|source| QueryError::Connection { path: self.socket.clone(), source })? {
            Answer::Pod(pod) => Ok(Some(*pod)),
            Answer::Absent => Ok(None),
            Answer::Error(message) => Err(QueryError::Refused(message)),
        }
    }
}

/// Opens the daemon's socket, in place of what an earlier daemon left.
pub fn listen(folder: &Path) -> std::io::Result<UnixListener> {
    std::fs::create_dir_all(folder)?;
    let path = socket(folder);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers questions for ever.
pub async fn answer<C: Cluster>(listener: UnixListener, cluster: Arc<C>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a question of the plugin's");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let served = tokio::time::timeout(PATIENCE, answer_one(stream, &*cluster)).await;
            if let Ok(Err(error)) = served {
                tracing::debug!(%error, "a question of the plugin's");
            }
            drop(place);
        });
    }
}

async fn answer_one<C: Cluster>(mut stream: tokio::net::UnixStream, cluster: &C) -> std::io::Result<()> {
    let (read, mut write) = stream.split();
    let mut text = String::new();
    tokio::io::BufReader::new(read.take(MAX_QUESTION)).read_line(&mut text).await?;
    let answer = match serde_json::from_str::<Question>(&text) {
        Ok(question) => look_up(&question, cluster).await,
        Err(error) => Answer::Error(format!("the question cannot be read: {error}")),
    };
    write.write_all(&line(&answer)?).await
}

async fn look_up<C: Cluster>(question: &Question, cluster: &C) -> Answer {
    match cluster.pod(&question.namespace, &question.name).await {
        // Of the same name, but another: the one that is asked for is yet to be seen.
        Ok(Some(pod)) if !question.uid.is_empty() && question.uid != pod.uid && !is_mirrored(&pod, &question.uid) => {
            Answer::Absent
        }
        Ok(Some(pod)) => Answer::Pod(Box::new(pod)),
        Ok(None) => Answer::Absent,
        Err(error) => Answer::Error(error.to_string()),
    }
}

/// The kubelet knows a static pod by a hash, which stands in an annotation of its mirror in the API server.
fn is_mirrored(pod: &Pod, uid: &str) -> bool {
    ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"]
        .iter()
        .any(|annotation| pod.annotations.get(*annotation).is_some_and(|hash| hash == uid))
}
