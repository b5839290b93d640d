//! Flags of the webhooks, under istiod's names and variables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use meltemi_webhook::inject::{Environment, NativeSidecars, Platform};

const DEFAULT_REVISION: &str = "default";

#[derive(Debug, Clone, clap::Args)]
pub struct WebhookArgs {
    /// Address of the webhooks, by HTTPS; empty turns them off
    #[arg(long = "httpsAddr", default_value = ":15017")]
    pub https_addr: String,
    /// A folder whose files config and values are the injector's configuration, in place of the ConfigMap; empty for none
    #[arg(long = "injectionDirectory", default_value = "./var/lib/istio/inject", value_name = "FOLDER")]
    pub injection_directory: PathBuf,
    /// Whether injected proxies are native sidecars: true, false, or auto, where every node knows them
    #[arg(long = "nativeSidecars", env = "ENABLE_NATIVE_SIDECARS", default_value = "auto", value_parser = NativeSidecars::parse)]
    pub native_sidecars: NativeSidecars,
    /// What kind of cluster it is; openshift has users of its own for each namespace
    #[arg(long = "platform", env = "PLATFORM", default_value = "")]
    pub platform: String,
    /// Rules that injected proxies follow in their choice of ciphers, such as fips-140-2
    #[arg(long = "compliancePolicy", env = "COMPLIANCE_POLICY", default_value = "")]
    pub compliance_policy: String,
}

/// How webhooks are served and decide.
#[derive(Debug, Clone, Default)]
pub struct WebhookOptions {
    pub address: Option<SocketAddr>,
    /// Whose files `config` and `values`, where they are there, are the injector's configuration.
    pub folder: PathBuf,
    pub platform: Platform,
    pub compliance_policy: String,
    /// Of this control plane; empty for the default one.
    pub revision: String,
    /// What injection templates may read.
    pub environment: Environment,
}

impl WebhookArgs {
    pub(super) fn options(self, revision: &str) -> Result<WebhookOptions> {
        let environment: BTreeMap<String, String> = std::env::vars().collect();
        let revision = if revision == DEFAULT_REVISION { "" } else { revision };
        Ok(WebhookOptions {
            address: super::address(&self.https_addr).context("--httpsAddr")?,
            folder: self.injection_directory,
            platform: Platform { native_sidecars: self.native_sidecars, is_openshift: self.platform == "openshift" },
            compliance_policy: self.compliance_policy,
            revision: revision.to_owned(),
            environment: Arc::new(environment),
        })
    }
}

impl WebhookOptions {
    /// The service by whose name the API server asks a revision.
    pub(crate) fn revision_service(&self) -> Option<String> {
        (!self.revision.is_empty()).then(|| format!("istiod-{}", self.revision))
    }

    /// The ConfigMap of the injector.
    pub(crate) fn config_map(&self) -> String {
        match self.revision.as_str() {
            "" => "istio-sidecar-injector".to_owned(),
            revision => format!("istio-sidecar-injector-{revision}"),
        }
    }
}
