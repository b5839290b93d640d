//! The commands that put a mesh into a cluster and look after it there: what they share.
//!
//! Owns: how documents and a cluster are named on the command line, and how findings and progress are said.

pub mod apply;
pub mod manifest;
pub(crate) mod output;
pub mod profile;
pub mod revision;
pub mod tag;
pub mod uninstall;
pub mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use meltemi_base::causes;
use meltemi_config::{Document, Problem, Severity, Source as Place};
use meltemi_install::chart::Contents;
use meltemi_install::operator::{API_VERSION, Notice, Operator, Request, Source};
use meltemi_install::render::render;
use meltemi_kubernetes::apply::Cluster;

/// sysexits' EX_DATAERR: the input is wrong.
const DATA_ERROR: u8 = 65;

/// What an installation is to be.
#[derive(Debug, Clone, Args)]
struct Inputs {
    /// IstioOperator documents; later ones win; - is standard input
    #[arg(short = 'f', long, value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// A setting below spec, such as profile=demo or values.pilot.env.X=y; it wins over documents
    #[arg(short = 's', long = "set", value_name = "PATH=VALUE")]
    settings: Vec<String>,
    /// Name of this control plane, beside which others may run
    #[arg(short = 'r', long, value_name = "NAME")]
    revision: Option<String>,
    /// Has no effect: charts are part of the program
    #[arg(short = 'd', long, value_name = "PATH")]
    manifests: Option<PathBuf>,
    /// Take fields that are unknown or gone for errors
    #[arg(long)]
    strict: bool,
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
struct ClusterArguments {
    /// File that says how to reach the cluster [default: what kubectl takes]
    #[arg(short = 'c', long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of that file
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterArguments {
    async fn connect(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::connect(self.kubeconfig.as_deref(), self.context.as_deref()).await?)
    }
}

impl Inputs {
    fn request(&self) -> anyhow::Result<Request> {
        let documents = self.filename.iter().map(|path| source(path)).collect::<anyhow::Result<_>>()?;
        let mut settings = self.settings.clone();
        settings.extend(self.revision.iter().map(|revision| format!("revision={revision}")));
        let mut request = Request { documents, settings, strict: self.strict, ..Request::default() };
        request.profile_file = profile_file(&request)?;
        Ok(request)
    }

    /// The installation; or the exit code, when what is wrong has been said.
    fn operator(&self) -> anyhow::Result<Result<(Request, Operator), ExitCode>> {
        let request = self.request()?;
        Ok(resolve(&request, self.manifests.as_deref()).map(|operator| (request, operator)))
    }
}

/// Says what is wrong, and what is worth knowing.
fn resolve(request: &Request, manifests: Option<&Path>) -> Result<Operator, ExitCode> {
    match Operator::resolve(request) {
        Ok(operator) => {
            if manifests.is_some() {
                output::warn("--manifests: has no effect: charts are part of the program");
            }
            operator.notices.iter().for_each(output::warn);
            Ok(operator)
        }
        Err(errors) => Err(refused(&errors)),
    }
}

/// Says what is wrong.
pub(crate) fn refused(errors: &[Notice]) -> ExitCode {
    errors.iter().for_each(|error| eprintln!("error: {error}"));
    ExitCode::from(DATA_ERROR)
}

/// A profile may be a file of the user's own.
fn profile_file(request: &Request) -> anyhow::Result<Option<Source>> {
    let given = meltemi_install::operator::Given::read(request);
    let path = Path::new(given.profile());
    if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
        return source(path).map(Some);
    }
    Ok(None)
}

fn source(path: &Path) -> anyhow::Result<Source> {
    let files = crate::inspect::sources(path, 0)?;
    let [(name, bytes)] = &files[..] else { anyhow::bail!("{}: is a folder, not a document", path.display()) };
    let text = String::from_utf8(bytes.clone()).with_context(|| name.clone())?;
    Ok(Source { name: name.clone(), text })
}

/// What is wrong with a document that describes an installation, and worth knowing of it. None of any other document.
pub fn problems(document: &Document) -> Option<Vec<Problem>> {
    let value = document.value().filter(|it| it["kind"] == "IstioOperator" && it["apiVersion"] == API_VERSION)?;
    let file = Source { name: document.source.file.to_string(), text: value.to_string() };
    let (severity, notices) = match judge(Request { documents: vec![file], ..Request::default() }) {
        Ok(notices) => (Severity::Warning, notices),
        Err(errors) => (Severity::Error, errors),
    };
    let problem = |notice: Notice| Problem {
        severity,
        source: Place { file: document.source.file.clone(), line: document.line_of(&notice.path) },
        object: None,
        path: notice.path,
        message: notice.message,
        suggestion: notice.suggestion,
    };
    Some(notices.into_iter().map(problem).collect())
}

/// What is worth knowing of an installation, or what it cannot come to be for.
fn judge(mut request: Request) -> Result<Vec<Notice>, Vec<Notice>> {
    let whole = |message| Notice { source: String::new(), path: String::new(), message, suggestion: None };
    request.profile_file = profile_file(&request).map_err(|error| vec![whole(causes(error.as_ref()))])?;
    let operator = Operator::resolve(&request)?;
    let rendered = render(&operator, &contents()).map_err(|error| vec![whole(causes(&error))])?;
    Ok([operator.notices, rendered.notices].concat())
}

/// What other crates have to say in charts.
fn contents() -> Contents {
    Contents {
        definitions: meltemi_config::crd::custom_resource_definitions(),
        injection: meltemi_webhook::inject::built_in_templates(),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
