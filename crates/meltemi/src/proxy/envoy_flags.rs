//! Envoy's flags that nothing here depends on, taken so that whoever starts `envoy` can start us instead.
//!
//! Hidden in the help. Each that is given is named in a warning, but for those that ask for what holds anyway.

#[cfg(test)]
mod tests;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Error, FromArgMatches};

/// What they ask for is so: nothing restarts hot, and no unknown field is let through.
const HOLDS: &[&str] = &["disable-hot-restart", "reject-unknown-dynamic-fields", "skip-deprecated-logs"];

const SWITCHES: &[&str] = &[
    "use-dynamic-base-id",
    "skip-hot-restart-parent-stats",
    "skip-hot-restart-on-no-parent",
    "allow-unknown-fields",
    "allow-unknown-static-fields",
    "ignore-unknown-dynamic-fields",
    "log-format-escaped",
    "log-stacktrace-single-entry",
    "enable-fine-grain-logging",
    "cpuset-threads",
    "enable-core-dump",
    "enable-mutex-tracing",
];

const VALUES: &[&str] = &[
    "base-id",
    "base-id-path",
    "restart-epoch",
    "parent-shutdown-time-s",
    "socket-path",
    "socket-mode",
    "drain-strategy",
    "file-flush-interval-msec",
    "file-flush-min-size-kb",
    "local-address-ip-version",
    "stats-tag",
    "disable-extensions",
];

/// The names of those that were given and have no effect.
#[derive(Debug, Clone, Default)]
pub struct EnvoyFlags(Vec<&'static str>);

impl EnvoyFlags {
    pub fn without_effect(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

impl clap::Args for EnvoyFlags {
    fn augment_args(command: Command) -> Command {
        let flag = |name: &&'static str, action| Arg::new(*name).long(*name).hide(true).action(action);
        let switches = SWITCHES.iter().chain(HOLDS).map(|name| flag(name, ArgAction::SetTrue));
        let values = VALUES.iter().map(|name| flag(name, ArgAction::Append).allow_hyphen_values(true));
        command.args(switches).args(values)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for EnvoyFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |name: &&&str| matches.value_source(name) == Some(ValueSource::CommandLine);
        Ok(Self(SWITCHES.iter().chain(VALUES).filter(given).copied().collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
