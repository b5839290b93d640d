//! `meltemi kube-inject`: proxies put into manifests, as the webhook puts them into pods.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use meltemi_config::mesh::MeshConfig;
use meltemi_webhook::inject::manifest::{Injected, ManifestError, Nodes};
use meltemi_webhook::inject::values::{self, Installation};
use meltemi_webhook::inject::{Injector, InjectorConfig, NativeSidecars, Settings, case, mesh_config, patched_mesh};
use serde_json::{Value, json};

use crate::inspect::sources;
use crate::install::{output, refused};

mod settings;

/// sysexits' EX_DATAERR: the input is wrong.
const DATA_ERROR: u8 = 65;
/// The revision that has no name of its own.
const DEFAULT_REVISION: &str = "default";

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  kubectl apply -f <(meltemi kube-inject -f deployment.yaml)
  meltemi kube-inject -f deployment.yaml -o deployment-injected.yaml
  meltemi kube-inject -f deployment.yaml --operatorFileName mesh.yaml --set values.global.proxy.logLevel=debug

As a running mesh does it:
  kubectl -n istio-system get configmap istio-sidecar-injector -o jsonpath='{.data.config}' > config.yaml
  kubectl -n istio-system get configmap istio-sidecar-injector -o jsonpath='{.data.values}' > values.json
  kubectl -n istio-system get configmap istio -o jsonpath='{.data.mesh}' > mesh.yaml
  meltemi kube-inject -f app.yaml --injectConfigFile config.yaml --valuesFile values.json --meshConfigFile mesh.yaml

A case folder, held against what it expects:
  meltemi kube-inject --case ./cases/hello

ENABLE_NATIVE_SIDECARS=true makes the proxy a native sidecar, as the webhook does where every node knows these.

Exit codes: 0 done, every case passed; 1 a file cannot be read or written, or a case failed; 2 wrong usage; \
65 a document or a setting is wrong")]
pub struct Arguments {
    /// Kubernetes documents; - is standard input
    #[arg(short = 'f', long, required_unless_present = "case", value_name = "FILE")]
    filename: Option<PathBuf>,
    /// Where to write, instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Mesh configuration (key mesh of the ConfigMap istio)
    #[arg(long = "meshConfigFile", value_name = "FILE")]
    mesh_config_file: Option<PathBuf>,
    /// Injection configuration (key config of the ConfigMap istio-sidecar-injector), or one template
    #[arg(long = "injectConfigFile", value_name = "FILE")]
    inject_config_file: Option<PathBuf>,
    /// Values (key values of the ConfigMap istio-sidecar-injector)
    #[arg(long = "valuesFile", value_name = "FILE")]
    values_file: Option<PathBuf>,
    /// An IstioOperator, from which comes what no other file says
    #[arg(long = "operatorFileName", value_name = "FILE")]
    operator_file: Option<PathBuf>,
    /// A field of the IstioOperator's spec, such as values.global.network=network1
    #[arg(short = 's', long = "set", value_name = "PATH=VALUE")]
    set: Vec<String>,
    /// Take fields that are unknown or gone for errors
    #[arg(long)]
    strict: bool,
    /// Revision of the control plane that the proxies are of
    #[arg(short = 'r', long, value_name = "NAME", default_value = DEFAULT_REVISION)]
    revision: String,
    /// Folders of cases, each with case.yaml, what is injected and what is expected
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["filename", "output"])]
    case: Vec<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.case.is_empty() {
        return judge(&arguments.case);
    }
    let path = arguments.filename.as_deref().context("--filename is missing")?;
    let input = read(path)?;
    let injected = match arguments.inject(&input) {
        Ok(injected) => injected,
        Err(Wrong::Document(error)) => {
            eprintln!("error: {}: {error}", path.display());
            return Ok(ExitCode::from(DATA_ERROR));
        }
        Err(Wrong::Settings(error)) => return Err(error),
    };
    let (warnings, errors) = self::settings::judge(arguments)?;
    warnings.iter().for_each(output::warn);
    if !errors.is_empty() {
        return Ok(refused(&errors));
    }
    for warning in &injected.warnings {
        eprintln!("{}", warning.trim_end());
    }
    match &arguments.output {
        Some(path) => std::fs::write(path, injected.text).with_context(|| path.display().to_string())?,
        None => std::io::stdout().lock().write_all(injected.text.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whose fault it is that nothing came of it.
#[derive(Debug)]
enum Wrong {
    Document(ManifestError),
    Settings(anyhow::Error),
}

impl From<anyhow::Error> for Wrong {
    fn from(error: anyhow::Error) -> Self {
        Self::Settings(error)
    }
}

impl Arguments {
    fn inject(&self, input: &str) -> Result<Injected, Wrong> {
        let variable = std::env::var("ENABLE_NATIVE_SIDECARS").unwrap_or_default();
        let native_sidecars = match NativeSidecars::parse(&variable).map_err(anyhow::Error::msg)? {
            // No cluster is asked.
            NativeSidecars::Auto => NativeSidecars::Never,
            said => said,
        };
        let nodes = Nodes { native_sidecars, nodes: Vec::new() };
        self.injector()?.inject_documents(input, &nodes).map_err(Wrong::Document)
    }

    fn injector(&self) -> anyhow::Result<Injector> {
        let installation = self.installation()?;
        let mesh = match &self.mesh_config_file {
            Some(path) => mesh_config(&read(path)?).with_context(|| path.display().to_string())?,
            None => patched_mesh(&MeshConfig::default(), &installation.mesh).context("mesh configuration")?,
        };
        let values = match &self.values_file {
            Some(path) => values::parse(&read(path)?).with_context(|| path.display().to_string())?,
            None => installation.values.clone(),
        };
        let config = match &self.inject_config_file {
            Some(path) => config(path)?,
            None => InjectorConfig::parse(&installation.injector_config().to_string()).map_err(anyhow::Error::msg)?,
        };
        let revision = if self.revision == DEFAULT_REVISION { "" } else { &*self.revision };
        let settings = Settings {
            config,
            values,
            mesh,
            revision: revision.to_owned(),
            environment: Arc::new(std::env::vars().collect::<BTreeMap<_, _>>()),
            compliance_policy: std::env::var("COMPLIANCE_POLICY").unwrap_or_default(),
        };
        Ok(Injector::new(settings)?)
    }

    fn installation(&self) -> anyhow::Result<Installation> {
        let mut spec = match &self.operator_file {
            Some(path) => {
                let operator = values::parse(&read(path)?).with_context(|| path.display().to_string())?;
                if operator["kind"] != "IstioOperator" {
                    bail!("{}: kind: {} is not IstioOperator", path.display(), operator["kind"]);
                }
                operator["spec"].clone()
            }
            None => json!({}),
        };
        if spec.is_null() {
            spec = json!({});
        }
        if !spec.is_object() {
            bail!("--operatorFileName: spec: not a map");
        }
        if self.revision != DEFAULT_REVISION && spec.get("revision").is_none() {
            spec["revision"] = Value::from(self.revision.as_str());
        }
        Ok(Installation::new(&spec, &self.set)?)
    }
}

/// An injection configuration, or a template that stands for the sidecar's.
fn config(path: &Path) -> anyhow::Result<InjectorConfig> {
    let text = read(path)?;
    let is_config = values::parse(&text).is_ok_and(|document| document["templates"].is_object());
    if is_config {
        return InjectorConfig::parse(&text).map_err(anyhow::Error::msg).with_context(|| path.display().to_string());
    }
    Ok(InjectorConfig { templates: BTreeMap::from([("sidecar".to_owned(), text)]), ..InjectorConfig::default() })
}

fn read(path: &Path) -> anyhow::Result<String> {
    let name = path.display().to_string();
    let mut files = sources(path, 0)?.into_iter();
    let (Some((_, bytes)), None) = (files.next(), files.next()) else { bail!("{name}: not one file") };
    String::from_utf8(bytes).with_context(|| format!("{name}: not UTF-8"))
}

/// Pass or fail for each case, with the differences.
fn judge(folders: &[PathBuf]) -> anyhow::Result<ExitCode> {
    crate::cases::judge(folders, |folder| case::play(folder).map_err(anyhow::Error::msg))
}

#[cfg(test)]
mod tests;
