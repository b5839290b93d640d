//! A folder of YAML and JSON files, watched.
//!
//! Owns: the thread that watches and reads. A file that breaks keeps its last good objects in force until it is
//! repaired or removed. An event costs a `stat` and a parse for each file that it names; where it cannot be told which those
//! are, a `stat` for each file of the folder.

mod compose;
mod folder;
mod load;
mod notice;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use meltemi_config::Problem;
use notify::{RecursiveMode, Watcher};
use tokio::sync::watch;

use self::load::Loader;
use self::notice::{Look, Notices};
use crate::set::ConfigSet;
use crate::watch::{Changes, ConfigStore};

/// Limits and rhythm of a file store.
#[derive(Debug, Clone)]
pub struct FileStoreOptions {
    /// How long a folder must be quiet before it is read.
    pub debounce: Duration,
    /// How often the folder is looked through when no event tells of a change (network file systems, linked folders).
    pub poll: Duration,
    /// Larger files are refused.
    pub max_file_bytes: u64,
    /// Files beyond this number are refused.
    pub max_files: usize,
}

impl Default for FileStoreOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(50),
            poll: Duration::from_secs(5),
            max_file_bytes: 64 << 20,
            max_files: 100_000,
        }
    }
}

/// Why a folder cannot be a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{0}: no such file or folder")]
    Missing(PathBuf),
    /// Says its cause itself, so that a chain of causes has it once; so does the next.
    #[error("{path}: {cause}")]
    Unreadable { path: PathBuf, cause: std::io::Error },
    #[error("cannot start the thread that watches {path}: {cause}")]
    Thread { path: PathBuf, cause: std::io::Error },
}

/// A store of files. Stops watching when dropped.
#[derive(Debug)]
pub struct FileStore {
    current: watch::Receiver<Arc<ConfigSet>>,
    problems: watch::Receiver<Arc<[Problem]>>,
    _stop: Stop,
}

/// Ends the thread when dropped.
#[derive(Debug)]
struct Stop {
    stopped: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // If the channel is full, the thread is about to wake anyway.
        let _ = self.wake.try_send(());
    }
}

impl FileStore {
    /// Reads a folder, or a single file, and goes on watching it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, FileStoreOptions::default())
    }

    /// As `open`, with other limits.
    pub fn open_with(path: &Path, options: FileStoreOptions) -> Result<Self, StoreError> {
        match std::fs::metadata(path) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(StoreError::Missing(path.to_owned())),
            Err(cause) => return Err(StoreError::Unreadable { path: path.to_owned(), cause }),
        }
        // Watching starts before the first reading, so that no change falls between them.
        let (sender, receiver) = sync_channel(1);
        let notices = Arc::new(Notices::default());
        let watcher = start_watcher(path, sender.clone(), notices.clone());
        let mut loader = Loader::new(path, options.clone());
        loader.reload();
        let current = watch::Sender::new(loader.set().clone());
        let problems = watch::Sender::new(loader.problems().clone());
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Stop { stopped: stopped.clone(), wake: sender };
        let store = Self { current: current.subscribe(), problems: problems.subscribe(), _stop: stop };
        let follow = Follow { loader, current, problems, signals: receiver, notices, stopped, options };
        std::thread::Builder::new()
            .name("config-files".into())
            .spawn(move || {
                let _watcher = watcher;
                follow.run();
            })
            .map_err(|cause| StoreError::Thread { path: path.to_owned(), cause })?;
        Ok(store)
    }

    /// What is wrong with the files at present, ordered by file and line.
    pub fn problems(&self) -> Arc<[Problem]> {
        self.problems.borrow().clone()
    }

    /// Follows `problems`.
    pub fn watch_problems(&self) -> watch::Receiver<Arc<[Problem]>> {
        self.problems.clone()
    }
}

impl ConfigStore for FileStore {
    fn snapshot(&self) -> Arc<ConfigSet> {
        self.current.borrow().clone()
    }

    fn changes(&self) -> Changes {
        Changes::new(self.current.clone())
    }
}

/// Watches the folder (of a file: the folder it is in, since editors replace files).
fn start_watcher(path: &Path, signals: SyncSender<()>, notices: Arc<Notices>) -> Option<notify::RecommendedWatcher> {
    let target = if path.is_dir() {
        path
    } else {
        path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
    };
    let mode = if path.is_dir() { RecursiveMode::Recursive } else { RecursiveMode::NonRecursive };
    let handler = move |event: notify::Result<notify::Event>| {
        if event.as_ref().is_ok_and(|e| e.kind.is_access()) {
            return;
        }
        notices.add(event);
        // One pending signal is enough; the reader takes all notices.
        let _ = signals.try_send(());
    };
    let watcher = notify::recommended_watcher(handler).and_then(|mut w| w.watch(target, mode).map(|()| w));
    watcher
        .inspect_err(
            |error| tracing::warn!(path = %target.display(), %error, "cannot watch; looking again from time to time"),
        )
        .ok()
}

/// The thread's state.
struct Follow {
    loader: Loader,
    current: watch::Sender<Arc<ConfigSet>>,
    problems: watch::Sender<Arc<[Problem]>>,
    signals: Receiver<()>,
    notices: Arc<Notices>,
    stopped: Arc<AtomicBool>,
    options: FileStoreOptions,
}

impl Follow {
    fn run(mut self) {
        let mut polled = Instant::now();
        loop {
            let until_poll = self.options.poll.saturating_sub(polled.elapsed());
            let mut look = match self.signals.recv_timeout(until_poll) {
                Ok(()) => {
                    self.settle();
                    self.notices.take(self.loader.root())
                }
                Err(RecvTimeoutError::Timeout) => Look::Everywhere,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if self.stopped.load(Ordering::Relaxed) {
                return;
            }
            // Events that never rest must not put off for ever what no event tells of.
            if polled.elapsed() >= self.options.poll {
                look = Look::Everywhere;
            }
            if look == Look::Everywhere {
                polled = Instant::now();
            }
            if self.loader.look(&look) {
                self.publish();
            }
        }
    }

    /// Waits until no event came for the debounce time, ten times that at most.
    fn settle(&self) {
        let deadline = Instant::now() + self.options.debounce * 10;
        while !self.stopped.load(Ordering::Relaxed)
            && Instant::now() < deadline
            && self.signals.recv_timeout(self.options.debounce).is_ok()
        {}
    }

    fn publish(&self) {
        let (set, problems) = (self.loader.set(), self.loader.problems());
        self.problems.send_if_modified(|old| {
            let changed = **old != **problems;
            if changed {
                *old = problems.clone();
            }
            changed
        });
        self.current.send_if_modified(|old| {
            let changed = !Arc::ptr_eq(old, set);
            if changed {
                *old = set.clone();
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests;
