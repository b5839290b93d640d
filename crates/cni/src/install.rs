//! The plugin's program and its configuration on a node: put there, kept there, taken away.
//!
//! Owns: the files of the CNI folders. Every file is written beside its place and moved there, so that a runtime never
//! reads half of one. Cost: at rest a watch; after a change one look at both folders, at most once a second.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};

use crate::conflist::{self, Files, PLUGIN, Plan, Wanted};

#[cfg(test)]
pub(crate) mod tests;

/// Larger files are no configurations.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Files beyond this number are not looked at.
const MAX_FILES: usize = 1000;
/// Between two looks, however many changes there are.
const PAUSE: Duration = Duration::from_secs(1);
/// How often is looked without a change, for file systems that tell of none.
const POLL: Duration = Duration::from_secs(30);
/// So many repairs, each within [`RECENT`] of the last, are a fight with another program.
const FIGHT: u32 = 5;
const RECENT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Settings {
    /// Where configurations are, usually `/etc/cni/net.d` of the node.
    pub configurations: PathBuf,
    /// Where plugins are, usually `/opt/cni/bin` of the node.
    pub programs: PathBuf,
    /// What is copied there as the plugin.
    pub program: PathBuf,
    pub wanted: Wanted,
    /// Lets the group read a file that is new.
    pub group_read: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct FileError {
    path: PathBuf,
    source: io::Error,
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, FileError> {
    result.map_err(|source| FileError { path: path.to_owned(), source })
}

/// What came of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The runtime uses the plugin, by this file; whether anything had to be changed for it.
    Ready { file: PathBuf, changed: bool },
    /// Not yet; why.
    Waiting(String),
}

/// Writes a file beside its place and moves it there.
fn replace(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!("{name}.tmp.{}", std::process::id()));
    let written = File::create(&beside).and_then(|mut file| {
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        fill(&mut file)?;
        file.sync_all()
    });
    let moved = written.and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        // What is left of a failed attempt is of no use; the failure itself is told.
        let _ = fs::remove_file(&beside);
    }
    moved
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether two files hold the same bytes.
fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        let (Some(left), Some(right)) = (left.get(..length), right.get_mut(..length)) else { return Ok(false) };
        other.read_exact(right)?;
        if left != &*right {
            return Ok(false);
        }
    }
}

impl Settings {
    fn plugin_program(&self) -> PathBuf {
        self.programs.join(PLUGIN)
    }

    fn files(&self) -> Result<Files, FileError> {
        let folder = &self.configurations;
        let mut files = Files::new();
        for entry in at(folder, fs::read_dir(folder))?.take(MAX_FILES) {
            let path = at(folder, entry)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // What cannot be read, or went meanwhile, the runtime passes over, too.
            let Ok(file) = File::open(&path) else { continue };
            let mut text = String::new();
            if file.take(MAX_FILE_BYTES).read_to_string(&mut text).is_ok() {
                files.insert(name.to_owned(), text);
            }
        }
        Ok(files)
    }

    /// What is to be done about the configuration, and nothing done.
    pub fn plan(&self) -> Result<Plan, FileError> {
        Ok(conflist::plan(&self.files()?, &self.wanted))
    }

    /// Puts in place what is not.
    pub fn install(&self) -> Result<State, FileError> {
        let copied = self.copy_program()?;
        match self.plan()? {
            Plan::Keep(name) => Ok(State::Ready { file: self.configurations.join(name), changed: copied }),
            Plan::Wait(reason) => Ok(State::Waiting(reason)),
            Plan::Write { name, text, replaces } => {
                let path = self.configurations.join(&name);
                let before = replaces.as_ref().map_or_else(|| path.clone(), |name| self.configurations.join(name));
                at(&path, replace(&path, self.mode(&before), |file| file.write_all(text.as_bytes())))?;
                if replaces.is_some() {
                    at(&before, remove(&before))?;
                }
                Ok(State::Ready { file: path, changed: true })
            }
        }
    }

    /// That of the file that is replaced, which others must be able to read as before.
    fn mode(&self, before: &Path) -> u32 {
        let new = if self.group_read { 0o640 } else { 0o600 };
        fs::metadata(before).map_or(new, |metadata| metadata.permissions().mode() & 0o777)
    }

    fn copy_program(&self) -> Result<bool, FileError> {
        let place = self.plugin_program();
        if same(&self.program, &place).unwrap_or(false) {
            return Ok(false);
        }
        self.remove_halves()?;
        let mut source = at(&self.program, File::open(&self.program))?;
        at(&place, replace(&place, 0o755, |file| io::copy(&mut source, file).map(drop)))?;
        Ok(true)
    }

    /// Copies that an earlier run did not come to the end of.
    fn remove_halves(&self) -> Result<(), FileError> {
        let half = format!("{PLUGIN}.tmp.");
        for entry in at(&self.programs, fs::read_dir(&self.programs))? {
            let path = at(&self.programs, entry)?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&half)) {
                at(&path, remove(&path))?;
            }
        }
        Ok(())
    }

    /// Takes plugin and configuration away, so that pods start as if neither had been there. The configuration goes first: a
    /// runtime that still named the program would start no pod.
    pub fn uninstall(&self) -> Result<Vec<PathBuf>, FileError> {
        let mut changed = Vec::new();
        for removal in conflist::removals(&self.files()?, &self.wanted) {
            let path = self.configurations.join(&removal.name);
            match removal.text {
                None => at(&path, remove(&path))?,
                Some(text) => at(&path, replace(&path, self.mode(&path), |file| file.write_all(text.as_bytes())))?,
            }
            changed.push(path);
        }
        let program = self.plugin_program();
        if program.exists() {
            at(&program, remove(&program))?;
            changed.push(program);
        }
        Ok(changed)
    }

    /// Keeps all in place, and says so, until nobody listens. `looked` is told what came of each look.
    pub async fn keep(&self, ready: &watch::Sender<bool>, mut looked: impl FnMut(&Result<State, FileError>)) {
        let (told, mut tellings) = mpsc::channel(1);
        let watcher = self.watcher(told).map_err(|error| tracing::warn!(%error, "watching the CNI folders"));
        let mut fight = Fight::default();
        while !ready.is_closed() {
            let settings = self.clone();
            // A panic there is one here.
            let state = match tokio::task::spawn_blocking(move || settings.install()).await {
                Ok(state) => state,
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            };
            looked(&state);
            ready.send_replace(matches!(state, Ok(State::Ready { .. })));
            if fight.is_one(&state) {
                tracing::warn!(
                    "the CNI configuration is changed back again and again: another program may want it for itself \
                     (with Cilium, set cni.exclusive=false)"
                );
            }
            tokio::time::sleep(PAUSE).await;
            tokio::select! {
                _ = tellings.recv(), if watcher.is_ok() => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn watcher(&self, told: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Our own looks are no changes. If there is no room, a look is due anyway.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = told.try_send(());
            }
        })?;
        for folder in [&self.configurations, &self.programs] {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
        }
        Ok(watcher)
    }
}

/// Counts repairs that come too soon one after another.
#[derive(Default)]
struct Fight {
    last: Option<Instant>,
    repairs: u32,
}

impl Fight {
    fn is_one(&mut self, state: &Result<State, FileError>) -> bool {
        if !matches!(state, Ok(State::Ready { changed: true, .. })) {
            return false;
        }
        let soon = self.last.is_some_and(|last| last.elapsed() < RECENT);
        self.repairs = if soon { self.repairs.saturating_add(1) } else { 0 };
        self.last = Some(Instant::now());
        self.repairs == FIGHT
    }
}
