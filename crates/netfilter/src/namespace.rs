//! Work in another network namespace.
//!
//! Owns: the thread that enters it. The namespace is the thread's alone and ends with it: the process stays where it is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum NamespaceError {
    #[error("network namespace {}: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("entering network namespace {}: {source}", path.display())]
    Enter { path: PathBuf, source: io::Error },
    #[error("a thread for network namespace {}: {source}", path.display())]
    Thread { path: PathBuf, source: io::Error },
}

/// Runs `work` in the network namespace that `path` names (`/var/run/netns/x`, `/proc/1/ns/net`), as do the programs that
/// it starts. Needs CAP_SYS_ADMIN.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    let file = File::open(path).map_err(|source| NamespaceError::Open { path: path.to_owned(), source })?;
    let thread = |source| NamespaceError::Thread { path: path.to_owned(), source };
    std::thread::scope(|scope| {
        let inside = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, || setns(&file, CloneFlags::CLONE_NEWNET).map(|()| work()).map_err(io::Error::from));
        match inside.map_err(thread)?.join() {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(NamespaceError::Enter { path: path.to_owned(), source }),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
