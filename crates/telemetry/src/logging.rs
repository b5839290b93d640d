//! Process logs: text or JSON on stderr or in a file, levels per component changeable at run time (`/logging`,
//! `--log_output_level`).
//!
//! A component is a crate of ours without its `meltemi_` prefix; Envoy's names stand for the crates that do the same. Levels
//! are Envoy's names.

mod components;
mod file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

pub use components::COMPONENTS;
use components::modules;
use file::LogFile;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LevelError {
    #[error("unknown log level {0:?}: one of trace, debug, info, warning, error, critical, off")]
    Level(String),
    #[error("unknown component {0:?}")]
    Component(String),
    #[error("expected component:level, found {0:?}")]
    Pair(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level(LevelFilter);

impl Level {
    pub const INFO: Self = Self(LevelFilter::INFO);
    pub const WARNING: Self = Self(LevelFilter::WARN);

    /// Envoy's name of it.
    pub fn name(self) -> &'static str {
        match self.0.into_level() {
            None => "off",
            Some(tracing::Level::ERROR) => "error",
            Some(tracing::Level::WARN) => "warning",
            Some(tracing::Level::INFO) => "info",
            Some(tracing::Level::DEBUG) => "debug",
            Some(tracing::Level::TRACE) => "trace",
        }
    }
}

impl FromStr for Level {
    type Err = LevelError;

    /// Envoy's names, and Istio's `warn`, `none`, `fatal`.
    fn from_str(name: &str) -> Result<Self, LevelError> {
        Ok(Self(match name {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "info" => LevelFilter::INFO,
            "warning" | "warn" => LevelFilter::WARN,
            "error" | "critical" | "fatal" => LevelFilter::ERROR,
            "off" | "none" => LevelFilter::OFF,
            other => return Err(LevelError::Level(other.to_owned())),
        }))
    }
}

/// The level of each component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    default: Level,
    components: BTreeMap<String, Level>,
}

impl Levels {
    pub fn new(default: Level) -> Self {
        Self { default, components: BTreeMap::new() }
    }

    /// Reads Istio's `--log_output_level`: `default:info,ads:debug`. A scope of theirs that we do not have is no error there,
    /// so unknown names are dropped.
    pub fn with_list(mut self, list: &str) -> Result<Self, LevelError> {
        for pair in pairs(list) {
            match pair? {
                ("default" | "all", level) => self = Self::new(level),
                // An unknown one.
                (name, level) => drop(self.set(name, level)),
            }
        }
        Ok(self)
    }

    /// Reads Envoy's `--component-log-level`: `misc:error,upstream:debug`, of components of Envoy or of ours.
    pub fn with_components(mut self, list: &str) -> Result<Self, LevelError> {
        for pair in pairs(list) {
            let (name, level) = pair?;
            self.set(name, level)?;
        }
        Ok(self)
    }

    fn set(&mut self, name: &str, level: Level) -> Result<(), LevelError> {
        let modules = modules(name).ok_or_else(|| LevelError::Component(name.to_owned()))?;
        self.components.extend(modules.iter().map(|module| ((*module).to_owned(), level)));
        Ok(())
    }

    pub fn level(&self, component: &str) -> Level {
        self.components.get(component).copied().unwrap_or(self.default)
    }

    fn targets(&self) -> Targets {
        let named = COMPONENTS.iter().map(|c| {
            let target = if *c == "meltemi" { (*c).to_owned() } else { format!("meltemi_{c}") };
            (target, self.level(c).0)
        });
        // What our dependencies say is never more interesting than a warning, unless everything is asked for.
        let others = self.default.0.min(LevelFilter::WARN);
        Targets::new().with_default(others).with_targets(named)
    }
}

fn pairs(list: &str) -> impl Iterator<Item = Result<(&str, Level), LevelError>> {
    list.split(',').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, level) = pair.split_once(':').ok_or_else(|| LevelError::Pair(pair.to_owned()))?;
        Ok((name, level.parse()?))
    })
}

/// The process's log, whose levels can be changed.
pub struct Logging {
    levels: Mutex<Levels>,
    /// None: stderr.
    file: Option<Arc<LogFile>>,
    handle: reload::Handle<Targets, Registry>,
}

impl std::fmt::Debug for Logging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Logging").field(&*self.levels.lock()).finish()
    }
}

impl Logging {
    /// Installs the process's log on stderr. A log installed before stays, and then level changes have no effect.
    pub fn install(format: Format, levels: Levels) -> Self {
        Self::start(format, levels, None)
    }

    /// The same in a file, which is made if it is not there and appended to if it is.
    pub fn install_in(path: &Path, format: Format, levels: Levels) -> io::Result<Self> {
        Ok(Self::start(format, levels, Some(Arc::new(LogFile::open(path)?))))
    }

    fn start(format: Format, levels: Levels, file: Option<Arc<LogFile>>) -> Self {
        let (filter, handle) = reload::Layer::new(levels.targets());
        let writer = match file.clone() {
            Some(file) => BoxMakeWriter::new(file),
            None => BoxMakeWriter::new(io::stderr),
        };
        let base = tracing_subscriber::fmt::layer().with_writer(writer);
        let layer = match format {
            Format::Text => base.with_ansi(false).with_filter(filter).boxed(),
            Format::Json => base.json().flatten_event(true).with_filter(filter).boxed(),
        };
        if tracing_subscriber::registry().with(layer).try_init().is_err() {
            tracing::debug!("a log is installed already");
        }
        Self { levels: Mutex::new(levels), file, handle }
    }

    /// Opens the file anew, after rotation. What cannot be opened is written to as before.
    pub fn reopen(&self) {
        if let Some(Err(error)) = self.file.as_ref().map(|file| file.reopen()) {
            tracing::warn!(%error, "the log's file is not opened anew");
        }
    }

    pub fn levels(&self) -> Levels {
        self.levels.lock().clone()
    }

    /// Sets one component's level, or all.
    pub fn set(&self, component: Option<&str>, level: Level) -> Result<(), LevelError> {
        let mut levels = self.levels.lock();
        match component {
            None => *levels = Levels::new(level),
            Some(name) => levels.set(name, level)?,
        }
        // Fails only when the subscriber is gone, when there is nothing left to say.
        let _ = self.handle.reload(levels.targets());
        Ok(())
    }
}
