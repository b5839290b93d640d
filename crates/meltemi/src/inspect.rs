//! The commands that only look: `validate`, `version`, `completion`, `x support`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use meltemi_config::schema::Definitions;
use meltemi_config::{
    DEFAULT_NAMESPACE, Document, Key, Problem, Severity, Source, decode, parse_documents_in, split_documents,
};
use meltemi_explain::validation::{self, verdict};
use serde_json::json;

use crate::explain::cases;
use crate::install;

/// sysexits' EX_DATAERR: the input is wrong.
const DATA_ERROR: u8 = 65;
const MAX_DEPTH: usize = 16;
/// As of a folder that is watched.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi validate -f ./manifests
  kubectl get virtualservice -o yaml | meltemi validate -f -
  meltemi validate -f a.yaml,b.yaml -n shop    # documents that name no namespace are in shop
  meltemi validate -f a.yaml -o json           # one line a document: valid, errors and warnings
  meltemi validate -f a.yaml --definitions crds.yaml    # judged by these CustomResourceDefinitions, too
  meltemi validate --case case.yaml            # a document, and whether it is to be accepted

Exit codes: 0 everything is valid, possibly with warnings, and every case passed; 1 a file cannot be read, or a case failed; \
65 a document is wrong")]
pub struct Validate {
    /// Files or folders of YAML or JSON; - is standard input
    #[arg(short = 'f', long, required_unless_present = "case", value_name = "PATH", num_args = 1.., value_delimiter = ',')]
    filename: Vec<PathBuf>,
    /// The namespace of documents that name none
    #[arg(short, long, default_value = DEFAULT_NAMESPACE, value_name = "NAMESPACE")]
    namespace: String,
    /// Taken as istioctl takes it: what one document alone can tell is always checked
    #[arg(short = 'x', long, hide = true, num_args = 0..=1, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    referential: bool,
    /// Files or folders of cases: each a document, and whether it is to be accepted
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with = "filename")]
    case: Vec<PathBuf>,
    /// Files or folders of CustomResourceDefinitions, by which documents are judged as a cluster would
    #[arg(long, value_name = "PATH", num_args = 1.., value_delimiter = ',', conflicts_with = "case")]
    definitions: Vec<PathBuf>,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn validate(arguments: &Validate) -> anyhow::Result<ExitCode> {
    if !arguments.case.is_empty() {
        return judge(&arguments.case);
    }
    let definitions = match definitions(&arguments.definitions)? {
        Ok(definitions) => definitions,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(DATA_ERROR));
        }
    };
    let mut checked = Vec::new();
    for path in &arguments.filename {
        for (name, bytes) in sources(path, 0)? {
            match decode(&name, bytes) {
                Ok(text) => {
                    let documents = parse_documents_in(&name, &text, &arguments.namespace);
                    checked.extend(documents.into_iter().map(|document| Checked::document(document, &definitions)));
                }
                Err(problem) => checked.push(Checked::file(*problem)),
            }
        }
    }
    let problems = || checked.iter().flat_map(|checked| &checked.problems);
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        for checked in &checked {
            writeln!(out, "{}", checked.json())?;
        }
    } else {
        for problem in problems() {
            writeln!(out, "{problem}")?;
        }
        writeln!(out, "{}", summary(&checked))?;
    }
    let wrong = problems().any(|problem| problem.severity == Severity::Error);
    Ok(if wrong { ExitCode::from(DATA_ERROR) } else { ExitCode::SUCCESS })
}

/// How many documents there are, and how much is to be said of them; notices only if there are any.
fn summary(checked: &[Checked]) -> String {
    let found = |severity: Severity| {
        let problems = checked.iter().flat_map(|checked| &checked.problems);
        problems.filter(|problem| problem.severity == severity).count()
    };
    let documents = checked.iter().filter(|checked| checked.is_document).count();
    let mut parts = vec![
        counted(documents, "document"),
        counted(found(Severity::Error), "error"),
        counted(found(Severity::Warning), "warning"),
    ];
    parts.extend(Some(found(Severity::Notice)).filter(|count| *count > 0).map(|count| counted(count, "notice")));
    parts.join(", ")
}

fn counted(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// What the files define; or what is wrong with one of them.
fn definitions(paths: &[PathBuf]) -> anyhow::Result<Result<Definitions, String>> {
    let mut found = Definitions::default();
    for path in paths {
        let before = found.len();
        for (name, bytes) in sources(path, 0)? {
            let text = match decode(&name, bytes) {
                Ok(text) => text,
                Err(problem) => return Ok(Err(problem.to_string())),
            };
            for (line, part) in split_documents(&text) {
                let added = serde_saphyr::from_str(part).map_err(|error| error.to_string());
                let added = added.and_then(|value| found.add(&value).map_err(|error| error.to_string()));
                if let Err(error) = added {
                    return Ok(Err(format!("{name}:{line}: {error}")));
                }
            }
        }
        if found.len() == before {
            return Ok(Err(format!("{}: holds no CustomResourceDefinition", path.display())));
        }
    }
    Ok(Ok(found))
}

/// A document, or a file that holds none, with all that is wrong with it.
struct Checked {
    source: Source,
    key: Option<Key>,
    is_document: bool,
    problems: Vec<Problem>,
}

impl Checked {
    fn document(document: Document, definitions: &Definitions) -> Self {
        let mut problems = install::problems(&document).unwrap_or_else(|| document.check());
        for problem in document.judge_by(definitions) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        Self { source: document.source, key: document.key, is_document: true, problems }
    }

    fn file(problem: Problem) -> Self {
        Self { source: problem.source.clone(), key: None, is_document: false, problems: vec![problem] }
    }

    fn json(&self) -> serde_json::Value {
        let mut value = verdict(&self.problems);
        value["file"] = json!(*self.source.file);
        value["line"] = json!(self.source.line);
        value["kind"] = json!(self.key.as_ref().map(|key| key.kind.as_str()));
        value["namespace"] = json!(self.key.as_ref().map(|key| key.namespace.to_string()));
        value["name"] = json!(self.key.as_ref().map(|key| key.name.to_string()));
        value
    }
}

/// One line of JSON a case, then how many passed.
fn judge(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let (mut passed, mut failed, mut broken, mut read) = (0_usize, 0_usize, false, 0_usize);
    for file in cases::files(paths)? {
        let Some(text) = file.text()? else { continue };
        read += 1;
        let judged = match validation::judge(&file.name, &text) {
            Ok(judged) => judged,
            Err(error) => {
                eprintln!("error: {error}");
                broken = true;
                continue;
            }
        };
        for case in judged {
            passed += usize::from(case.is_known && case.passed);
            failed += usize::from(!case.passed);
            writeln!(out, "{}", case.json())?;
        }
    }
    if read == 0 {
        bail!("no cases there");
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(match (broken, failed) {
        (true, _) => ExitCode::from(DATA_ERROR),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    })
}

/// The name and content of each file at a path.
pub(crate) fn sources(path: &Path, depth: usize) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    if path == Path::new("-") {
        let name = "stdin".to_owned();
        let bytes = whole(std::io::stdin()).with_context(|| name.clone())?;
        return Ok(vec![(name, bytes)]);
    }
    let name = path.display().to_string();
    if !path.is_dir() {
        let bytes = File::open(path).map_err(anyhow::Error::from).and_then(whole).with_context(|| name.clone())?;
        return Ok(vec![(name, bytes)]);
    }
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| name.clone())? {
        entries.push(entry.with_context(|| name.clone())?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let manifest = entry.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if manifest || (entry.is_dir() && depth < MAX_DEPTH) {
            found.extend(sources(&entry, depth + 1)?);
        }
    }
    Ok(found)
}

/// All that there is to read, if that is no more than a file of documents may have.
fn whole(source: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    ensure!(u64::try_from(bytes.len())? <= MAX_FILE_BYTES, "larger than {} MiB", MAX_FILE_BYTES >> 20);
    Ok(bytes)
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  meltemi version
  meltemi version -o json")]
pub struct Version {
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn version(arguments: &Version) -> anyhow::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
        let document = json!({"clientVersion": {"version": version, "profile": profile}});
        writeln!(out, "{}", serde_json::to_string_pretty(&document)?)?;
    } else {
        writeln!(out, "client version: {version}")?;
    }
    Ok(())
}

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Examples:
  source <(meltemi completion bash)
  meltemi completion zsh > \"${fpath[1]}/_meltemi\"
  meltemi completion fish > ~/.config/fish/completions/meltemi.fish")]
pub struct Completion {
    /// The shell that is to complete
    shell: Shell,
}

pub fn completion<C: CommandFactory>(arguments: &Completion) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut C::command(), "meltemi", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
