//! `meltemi explain`: what will become of a request, and why.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use meltemi_base::causes;
use meltemi_explain::case;
use meltemi_explain::{Question, explain};

pub(crate) mod cases;
mod request;
mod subject;
pub(crate) mod world;

/// sysexits' EX_DATAERR: the input is wrong.
const DATA_ERROR: u8 = 65;

#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
The request is followed through the xDS that the workload's proxy would be sent, by the look-ups that our proxy makes. Pods, \
addresses and a gateway that the documents do not have are made up, as `meltemi up` does.

Examples:
  meltemi explain -f ./manifests --from frontend http://catalog:8080/
  meltemi explain -f ./manifests --from frontend.shop http://catalog:8080/ -H 'end-user: tester' -o json
  meltemi explain -f ./manifests --from istio-ingressgateway http://shop.example.com/catalog/1
  meltemi explain -f ./manifests --from catalog-v1 --inbound --mtls http://catalog:8080/
  meltemi explain -f ./manifests --from catalog-v1 --inbound --mtls --principal shop/frontend -X PUT http://catalog:8080/ \
    --claim iss=https://issuer.example --claim scope=write             # which policies decide it
  meltemi explain -f ./manifests --from catalog-v1 --inbound http://catalog:8080/ --jwt token.txt    # with a token's claims
  meltemi explain --discovery http://127.0.0.1:8080 --from frontend http://catalog:8080/
  meltemi explain --case case.yaml             # a mesh, a proxy and expected calls in one file

Exit codes: 0 told, whatever becomes of the request, and every call of a case passed; 1 a call of a case failed, or a \
file cannot be read; 2 wrong usage; 65 an input is wrong")]
pub struct Explain {
    #[command(flatten)]
    pub(crate) world: world::MeshArguments,
    #[command(flatten)]
    request: request::RequestArguments,
    /// Files or folders of cases: each a mesh, a proxy in it, and what is to become of calls
    #[arg(long, value_name = "PATH", num_args = 1.., conflicts_with_all = ["filename", "discovery", "from", "url"])]
    case: Vec<PathBuf>,
    /// text or json
    #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

pub fn run(arguments: &Explain) -> anyhow::Result<ExitCode> {
    if !arguments.case.is_empty() {
        return play(&arguments.case);
    }
    let Some(from) = &arguments.request.from else {
        return Ok(usage("--from: from which workload or gateway? (or --case, to play cases)"));
    };
    let world = match world::World::open(&arguments.world) {
        Ok(world) => world,
        Err(error) => return untold(error),
    };
    world.warn();
    let subject = match subject::Subject::find(&world, from, arguments.request.namespace.as_deref()) {
        Ok(subject) => subject,
        Err(error) => return wrong(&error),
    };
    let asked = match request::build(&arguments.request, &world, &subject) {
        Ok(asked) => asked,
        Err(error) => return wrong(&error),
    };
    let question = Question {
        proxy: &subject.title,
        namespace: &subject.namespace,
        labels: &subject.labels,
        identity: &subject.identity,
        root_namespace: world.mesh.snapshot.root_namespace(),
        sent: &subject.sent,
        origins: &world.mesh.origins,
        mesh: Some(&world.mesh),
    };
    let mut report = explain(&question, &asked.request);
    report.notes.splice(0..0, asked.notes.into_iter().chain(subject.notes.clone()));
    report.notes.extend(world.mesh.notes.iter().cloned());
    let mut out = std::io::stdout().lock();
    if arguments.output == "json" {
        writeln!(out, "{}", serde_json::to_string_pretty(&report.json())?)?;
    } else {
        write!(out, "{}", report.text(out.is_terminal()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why it cannot be told; a file that cannot be read is no wrong input.
fn untold(error: anyhow::Error) -> anyhow::Result<ExitCode> {
    if error.chain().any(|cause| cause.is::<std::io::Error>()) { Err(error) } else { wrong(&error) }
}

/// Says what is wrong with the input.
pub(crate) fn wrong(error: &anyhow::Error) -> anyhow::Result<ExitCode> {
    eprintln!("error: {}", causes(error.as_ref()));
    Ok(ExitCode::from(DATA_ERROR))
}

fn usage(reason: &str) -> ExitCode {
    eprintln!("error: {reason}");
    ExitCode::from(2)
}

/// One line of JSON a call, then how many passed.
fn play(paths: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    let (mut passed, mut failed, mut broken, mut played_files) = (0_usize, 0_usize, false, 0_usize);
    let files = cases::files(paths)?;
    let several = files.len() > 1;
    for file in files {
        let Some(text) = file.text()? else { continue };
        played_files += 1;
        let case = case::Case::parse(&file.name, &text);
        let played = case.and_then(|case| Ok((case::play(&case, case::Dialect::default())?, case.name)));
        let (played, name) = match played {
            Ok(played) => played,
            Err(error) => {
                eprintln!("error: {error}");
                broken = true;
                continue;
            }
        };
        for call in played {
            if call.passed() {
                passed += 1
            } else {
                failed += 1
            }
            let mut line = call.json();
            if several {
                line["case"] = name.as_str().into();
            }
            writeln!(out, "{line}")?;
        }
    }
    if played_files == 0 {
        bail!("no cases there");
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(match (broken, failed) {
        (true, _) => ExitCode::from(DATA_ERROR),
        (false, 0) => ExitCode::SUCCESS,
        (false, _) => ExitCode::FAILURE,
    })
}
