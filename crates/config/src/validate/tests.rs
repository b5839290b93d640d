//! The oracle: Istio's own validation tests as data (`../shared/peer/api-validation`), run through parse and validate.

use std::path::{Path as FilePath, PathBuf};

use serde::Deserialize;

use super::*;
use crate::parse::{Document, parse_documents, parse_mesh_config, parse_mesh_networks};
use crate::problem::{Problem, Severity};

/// Cases in which we differ from Istio on purpose: file name, and why.
const KNOWN: &[(&str, &str)] = &[];

/// Kinds that are not supported yet.
const NOT_YET: &[&str] = &["TrafficExtension", "WasmPlugin"];

#[derive(Deserialize)]
struct Case {
    kind: String,
    function: String,
    fragment: Option<String>,
    valid: bool,
    err: Option<String>,
    warning: Option<serde_json::Value>,
    doc: serde_json::Value,
}

fn oracle() -> Option<PathBuf> {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/api-validation");
    if !root.is_dir() {
        eprintln!("skipped: no ../shared");
        return None;
    }
    Some(root)
}

fn files(dir: &FilePath) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.sort();
    found
}

/// What parse and validate say of one case: errors, warnings.
fn judge(case: &Case) -> (Vec<Problem>, Vec<Problem>) {
    let text = case.doc.to_string();
    let problems = match case.kind.as_str() {
        "MeshConfig" => parse_mesh_config("case", &text).map_or_else(|p| p, |s| s.warnings),
        "MeshNetworks" => parse_mesh_networks("case", &text).map_or_else(|p| p, |s| s.warnings),
        _ => parse_documents("case", &text).iter().flat_map(semantic).collect(),
    };
    problems.into_iter().partition(|p| p.severity == Severity::Error)
}

/// Without the notes on what is not enforced yet.
fn semantic(document: &Document) -> Vec<Problem> {
    let unsupported = document.object.as_ref().map(crate::support::unsupported).unwrap_or_default();
    let known = |p: &Problem| unsupported.iter().any(|u| u.path == p.path && u.message == p.message);
    document.check().into_iter().filter(|p| !known(p)).collect()
}

fn verdict(case: &Case) -> Result<(), String> {
    let (errors, warnings) = judge(case);
    let inside = |p: &&Problem| case.fragment.as_deref().is_none_or(|f| p.path.starts_with(f) || f.starts_with(&p.path));
    let shown = |list: &[Problem]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ");
    let refused = errors.iter().any(|p| inside(&p));
    if refused == case.valid {
        return Err(format!("valid should be {}: {} (istio: {:?})", case.valid, shown(&errors), case.err));
    }
    let warned = warnings.iter().any(|p| inside(&p));
    let wanted = match &case.warning {
        None => return Ok(()),
        Some(serde_json::Value::Bool(b)) => *b,
        Some(_) => true,
    };
    // Where a document is refused, further advice is as good as none.
    if warned == wanted || !case.valid {
        return Ok(());
    }
    Err(format!("warning should be {:?}: {}", case.warning, shown(&warnings)))
}

#[test]
fn istios_webhook_cases_have_istios_verdict() {
    let Some(root) = oracle() else { return };
    let (mut run, mut skipped, mut wrong, mut stale) = (0, 0, Vec::new(), Vec::new());
    for dir in files(&root.join("cases")) {
        for file in files(&dir) {
            let text = std::fs::read_to_string(&file).expect("readable");
            let case: Case = serde_saphyr::from_str(&text).expect("a case");
            if NOT_YET.contains(&case.kind.as_str()) {
                skipped += 1;
                continue;
            }
            run += 1;
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let known = KNOWN.iter().any(|(k, _)| *k == name);
            match verdict(&case) {
                Err(why) if !known => wrong.push(format!("{}/{name} [{}]: {why}", case.kind, case.function)),
                Ok(()) if known => stale.push(name),
                _ => {}
            }
        }
    }
    println!("{run} cases, {} differ, {} known differences, {skipped} of kinds not supported yet", wrong.len(), KNOWN.len());
    assert!(wrong.is_empty() && stale.is_empty(), "{}\nno longer different: {stale:?}", wrong.join("\n"));
    assert!(run > 400, "only {run} cases");
}

/// `api-testdata` and `istio-crds-testdata`: documents with `_err` are refused, the others accepted.
#[test]
fn istios_crd_cases_have_istios_verdict() {
    let Some(root) = oracle() else { return };
    let (mut run, mut wrong) = (0, Vec::new());
    for dir in ["api-testdata", "istio-crds-testdata"] {
        for file in files(&root.join(dir)) {
            if file.file_name().is_some_and(|n| n.to_string_lossy().starts_with("wasm")) {
                continue;
            }
            let text = std::fs::read_to_string(&file).expect("readable");
            for (i, part) in text.split("\n---").enumerate() {
                let Some((document, error)) = crd_case(part) else { continue };
                run += 1;
                let name = format!("{dir}/{}#{i}", file.file_name().expect("a name").to_string_lossy());
                let found = parse_documents("case", &document).iter().flat_map(semantic).collect::<Vec<_>>();
                let errors: Vec<_> = found.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
                let known = CRD_KNOWN.iter().any(|(k, _)| *k == name);
                if errors.is_empty() == error.is_some() && !known {
                    wrong.push(format!("{name}: istio says {error:?}, we {errors:?}\n{document}"));
                } else if errors.is_empty() != error.is_some() && known {
                    wrong.push(format!("{name}: no longer different"));
                }
            }
        }
    }
    println!("{run} documents, {} differ, {} known differences", wrong.len(), CRD_KNOWN.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(run > 150, "only {run} documents");
}

/// Documents of the CRD tests in which we differ on purpose.
const CRD_KNOWN: &[(&str, &str)] = &[];

/// The document without its `_err` key, and that.
fn crd_case(part: &str) -> Option<(String, Option<String>)> {
    let mut value: serde_json::Value = serde_saphyr::from_str(part).ok()?;
    let error = value.as_object_mut()?.shift_remove("_err").map(|e| e.to_string());
    Some((value.to_string(), error))
}

#[test]
fn an_invalid_mesh_config_reports_everything_istio_reports() {
    let Some(root) = oracle() else { return };
    let text = std::fs::read_to_string(root.join("meshconfig-invalid.yaml")).expect("readable");
    let case: serde_json::Value = serde_saphyr::from_str(&text).expect("a case");
    // A negative duration does not even parse here, and our defaults fill what Istio's empty struct leaves empty.
    let mut doc = case["doc"].clone();
    doc["connectTimeout"] = "0s".into();
    doc["defaultConfig"] = serde_json::json!({
        "configPath": "", "binaryPath": "", "serviceCluster": "", "drainDuration": "0s", "discoveryAddress": "",
        "proxyAdminPort": 0, "statusPort": 0,
    });
    let problems = parse_mesh_config("case", &doc.to_string()).expect_err("invalid");
    let paths: Vec<_> = problems.iter().filter(|p| p.severity == Severity::Error).map(|p| p.path.as_str()).collect();
    for path in [
        "proxyListenPort",
        "connectTimeout",
        "defaultConfig.configPath",
        "defaultConfig.binaryPath",
        "defaultConfig.serviceCluster",
        "defaultConfig.drainDuration",
        "defaultConfig.discoveryAddress",
        "defaultConfig.proxyAdminPort",
        "defaultConfig.statusPort",
        "trustDomain",
        "trustDomainAliases[0]",
        "trustDomainAliases[1]",
        "trustDomainAliases[2]",
        "extensionProviders[0].envoyExtAuthzHttp.port",
        "meshMTLS",
        "defaultInboundHttpRetryPolicy.retryOn",
    ] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    let warnings = problems.iter().filter(|p| p.severity == Severity::Warning).count();
    assert_eq!(warnings, 3);
}
