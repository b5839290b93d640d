//! Flags that a command line for `pilot-discovery` may hold and that have no effect here: accepted, and said to be so.

/// Hidden from the help.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Unused {
    /// The folder is the one registry
    #[arg(long, hide = true)]
    pub registries: Option<String>,
    #[arg(long = "clusterRegistriesNamespace", hide = true)]
    pub cluster_registries_namespace: Option<String>,
    #[arg(long = "appNamespace", short = 'a', hide = true)]
    pub app_namespace: Option<String>,
    #[arg(long = "networksConfig", hide = true)]
    pub networks_config: Option<String>,
    /// There is no ControlZ
    #[arg(long = "ctrlz_port", hide = true)]
    pub ctrlz_port: Option<String>,
    #[arg(long = "ctrlz_address", hide = true)]
    pub ctrlz_address: Option<String>,
    /// The grace for open streams is fixed
    #[arg(long = "shutdownDuration", hide = true)]
    pub shutdown_duration: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub profile: Option<String>,
    /// TLS 1.2 and 1.3 with the suites of the TLS library
    #[arg(long = "tls-cipher-suites", hide = true)]
    pub tls_cipher_suites: Option<String>,
    /// Logs go to standard error
    #[arg(long = "log_target", hide = true)]
    pub log_target: Option<String>,
    #[arg(long = "log_caller", hide = true)]
    pub log_caller: Option<String>,
    #[arg(long = "log_stacktrace_level", hide = true)]
    pub log_stacktrace_level: Option<String>,
}

impl Unused {
    /// The flags that were given.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("registries", &self.registries),
            ("clusterRegistriesNamespace", &self.cluster_registries_namespace),
            ("appNamespace", &self.app_namespace),
            ("networksConfig", &self.networks_config),
            ("ctrlz_port", &self.ctrlz_port),
            ("ctrlz_address", &self.ctrlz_address),
            ("shutdownDuration", &self.shutdown_duration),
            ("profile", &self.profile),
            ("tls-cipher-suites", &self.tls_cipher_suites),
            ("log_target", &self.log_target),
            ("log_caller", &self.log_caller),
            ("log_stacktrace_level", &self.log_stacktrace_level),
        ];
        flags.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect()
    }

    pub(super) fn warn(&self) {
        for flag in self.given() {
            tracing::warn!("--{flag} has no effect here");
        }
    }
}
