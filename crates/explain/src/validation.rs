//! Cases of validation as files: a document, and whether it is to be accepted.
//!
//! The formats are those of Istio's own validation tests turned to YAML: a case with `doc` and `valid`; a list of small checks
//! (`function`, `args`, `valid`); documents of which those with `_err` are to be refused. A case is judged by what a webhook says, a
//! document as `validate` judges it, by its definition as well.

use meltemi_config::{
    Document, Problem, Severity, names, parse_documents, parse_duration, parse_mesh_config, parse_mesh_networks,
    split_documents, support,
};
use serde_json::{Value, json};

/// What became of one case.
#[derive(Debug, Clone)]
pub struct Judged {
    pub name: String,
    pub passed: bool,
    /// False: a check that has no counterpart here. It counts neither way.
    pub is_known: bool,
    pub result: Value,
    /// How it differs from what was expected.
    pub difference: Option<String>,
}

impl Judged {
    pub fn json(&self) -> Value {
        let mut line = json!({"case": self.name, "pass": self.passed, "result": self.result});
        if !self.is_known {
            line["pass"] = Value::Null;
        }
        if let Some(difference) = &self.difference {
            line["difference"] = json!(difference);
        }
        line
    }
}

/// Judges every case in a file's text.
pub fn judge(file: &str, text: &str) -> Result<Vec<Judged>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{file}: {error}");
    let parts = split_documents(text);
    let mut judged = Vec::new();
    for (index, (_, part)) in parts.iter().enumerate() {
        let value: Value = serde_saphyr::from_str(part).map_err(|error| wrong(&error))?;
        match &value {
            Value::Null => {}
            Value::Array(checks) => judged.extend(checks.iter().map(check)),
            Value::Object(fields) if fields.contains_key("doc") => judged.push(case(&value)),
            Value::Object(_) => judged.push(document(&format!("{file}#{index}"), value)),
            _ => return Err(wrong(&"neither a case nor a document")),
        }
    }
    Ok(judged)
}

/// A case with a document and a verdict.
fn case(case: &Value) -> Judged {
    let text = case["doc"].to_string();
    let problems = match case["kind"].as_str() {
        Some("MeshConfig") => mesh_config(&text),
        Some("MeshNetworks") => {
            parse_mesh_networks("doc", &text).map_or_else(|problems| problems, |read| read.warnings)
        }
        _ => parse_documents("doc", &text).iter().flat_map(meant).collect(),
    };
    let fragment = case["fragment"].as_str();
    let inside = |problem: &&Problem| {
        fragment.is_none_or(|fragment| problem.path.starts_with(fragment) || fragment.starts_with(&problem.path))
    };
    let refused = problems.iter().filter(inside).any(|problem| problem.severity == Severity::Error);
    let warned = problems.iter().filter(inside).any(|problem| problem.severity == Severity::Warning);
    let valid = case["valid"] == true;
    let warning = match &case["warning"] {
        Value::Null => None,
        Value::Bool(wanted) => Some(*wanted),
        _ => Some(true),
    };
    let difference = if refused == valid {
        let istio = case["err"].as_str().map(|text| format!(" (Istio says {text:?})")).unwrap_or_default();
        Some(format!("it should be {}{istio}", if valid { "valid" } else { "invalid" }))
    } else if valid && warning.is_some_and(|wanted| wanted != warned) {
        // Where a document is refused, further advice is as good as none.
        Some(format!("there should be {}", if warned { "no warning" } else { "a warning" }))
    } else {
        None
    };
    let name = case["name"].as_str().unwrap_or_default().to_owned();
    Judged { name, passed: difference.is_none(), is_known: true, result: verdict(&problems), difference }
}

/// A document that is to be refused if it has `_err`.
fn document(name: &str, mut value: Value) -> Judged {
    let wanted = value.as_object_mut().and_then(|fields| fields.shift_remove("_err"));
    let problems: Vec<Problem> = parse_documents("doc", &value.to_string()).iter().flat_map(Document::check).collect();
    let refused = problems.iter().any(|problem| problem.severity == Severity::Error);
    let difference = match (&wanted, refused) {
        (Some(error), false) => Some(format!("it should be invalid (Istio says {error})")),
        (None, true) => Some("it should be valid".to_owned()),
        _ => None,
    };
    let own = value["metadata"]["name"].as_str().unwrap_or_default();
    let name = format!("{name} {own}").trim_end().to_owned();
    Judged { name, passed: difference.is_none(), is_known: true, result: verdict(&problems), difference }
}

/// What is wrong with a mesh configuration, without the notes on what is not enforced yet.
fn mesh_config(text: &str) -> Vec<Problem> {
    let read = match parse_mesh_config("doc", text) {
        Ok(read) => read,
        Err(problems) => return problems,
    };
    let unsupported = support::unsupported_mesh(&read.value);
    let known =
        |problem: &Problem| unsupported.iter().any(|own| own.path == problem.path && own.message == problem.message);
    read.warnings.into_iter().filter(|problem| !known(problem)).collect()
}

/// What is wrong with a document, without the notes on what is not enforced yet.
fn meant(document: &Document) -> Vec<Problem> {
    let unsupported = document.object.as_ref().map(support::unsupported).unwrap_or_default();
    let known =
        |problem: &Problem| unsupported.iter().any(|own| own.path == problem.path && own.message == problem.message);
    document.check_meaning().into_iter().filter(|problem| !known(problem)).collect()
}

/// `{"valid", "errors", "warnings"}` of all that was found.
pub fn verdict(problems: &[Problem]) -> Value {
    let of = |severity: Severity| -> Vec<Value> {
        let some = problems.iter().filter(|problem| problem.severity == severity);
        some.map(|problem| {
            let mut value = json!({"path": problem.path, "message": problem.message, "line": problem.source.line});
            if let Some(suggestion) = &problem.suggestion {
                value["suggestion"] = json!(suggestion);
            }
            value
        })
        .collect()
    };
    let errors = of(Severity::Error);
    json!({"valid": errors.is_empty(), "errors": errors, "warnings": of(Severity::Warning)})
}

/// One of Istio's small checks.
fn check(check: &Value) -> Judged {
    let function = check["function"].as_str().unwrap_or_default();
    let argument = |index: usize| check["args"][index].as_str().unwrap_or_default();
    let first = argument(0);
    let found = match function {
        "ValidatePort" => Some(names::port(check["args"][0].as_i64().unwrap_or_default())),
        "ValidatePortName" => Some(names::dns_label(first)),
        "ValidateFQDN" => Some(names::fqdn(first)),
        "ValidateWildcardDomain" => Some(names::wildcard_domain(first)),
        "ValidateWildcardDomainForVirtualServiceBoundToGateway" => {
            Some(names::gateway_domain(argument(1), check["args"][0] == true))
        }
        "ValidateHTTPHeaderNameOrJwtClaimRoute" => Some(names::match_header_name(first)),
        "ValidateStrictHTTPHeaderName" => Some(names::strict_header_name(first)),
        "ValidateHTTPHeaderValue" => Some(names::header_value(first)),
        "ValidateProxyAddress" => Some(names::host_port(first)),
        "ValidateTrustDomain" => Some(names::trust_domain(first)),
        "ValidateIPAddress" => Some(names::ip(first)),
        "ValidateIPSubnet" => Some(names::ip_or_cidr(first)),
        "ValidateProbeHeaderName" => Some(names::probe_header_name(first)),
        "ValidateCORSHTTPHeaderName" => Some(names::header_name(first)),
        "ValidateUnixAddress" => Some(names::unix_address(&format!("unix://{first}"))),
        "validateExtensionProviderService" => Some(names::provider_service(first)),
        _ => in_place(function, &check["args"]),
    };
    let name = format!("{function} {}", check["args"]);
    let Some(found) = found else {
        let result = json!("checked where the field is, not by itself");
        return Judged { name, passed: true, is_known: false, result, difference: None };
    };
    let valid = check["valid"] == true;
    let difference =
        (found.is_ok() != valid).then(|| format!("it should be {}", if valid { "valid" } else { "invalid" }));
    let error = found.err();
    let result = json!({"valid": error.is_none(), "errors": error.iter().collect::<Vec<_>>(), "warnings": []});
    Judged { name, passed: difference.is_none(), is_known: true, result, difference }
}

/// A check of a value that is judged where a document has it.
fn in_place(function: &str, args: &Value) -> Option<Result<(), String>> {
    let first = &args[0];
    let nanoseconds = || json!(format!("{}ns", first.as_i64().unwrap_or_default()));
    let policy = |settings: Value| json!({"defaultTrafficPolicy": settings});
    let document = match function {
        "ValidateConnectTimeout" => json!({"connectTimeout": nanoseconds()}),
        "ValidateProtocolDetectionTimeout" => json!({"protocolDetectionTimeout": nanoseconds()}),
        "ValidateDrainDuration" => json!({"defaultConfig": {"drainDuration": nanoseconds()}}),
        "ValidateDuration" => policy(json!({"connectionPool": {"tcp": {"connectTimeout": nanoseconds()}}})),
        "ValidatePercent" => policy(json!({"outlierDetection": {"maxEjectionPercent": first}})),
        "ValidateControlPlaneAuthPolicy" => json!({"defaultConfig": {"controlPlaneAuthPolicy": first}}),
        "validateLocalities" => {
            let places = first.as_array().into_iter().flatten();
            let rules: Vec<_> = places.map(|from| json!({"from": from, "to": {"elsewhere": 100}})).collect();
            json!({"localityLbSetting": {"distribute": rules}})
        }
        "ValidateMaxServerConnectionAge" | "IsNegativeDuration" => {
            let text = format!("{}ns", first.as_i64().unwrap_or_default());
            return Some(parse_duration(&text).map(drop).map_err(str::to_owned));
        }
        "validateHTTPStatus" => return Some(status(first)),
        _ => return None,
    };
    let refused = parse_mesh_config("doc", &document.to_string()).err().into_iter().flatten();
    let error = refused.into_iter().find(|problem| problem.severity == Severity::Error);
    Some(error.map_or(Ok(()), |problem| Err(problem.message)))
}

/// Of a direct response.
fn status(number: &Value) -> Result<(), String> {
    let document = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a"},
        "spec": {"hosts": ["a.b"], "http": [{"directResponse": {"status": number}}]},
    });
    let problems = parse_documents("doc", &document.to_string()).into_iter().flat_map(|document| meant(&document));
    let error = problems.into_iter().find(|problem| problem.severity == Severity::Error);
    error.map_or(Ok(()), |problem| Err(problem.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASE: &str = "
name: a retry without attempts
kind: VirtualService
function: validateHTTPRetry
fragment: spec.http[0].retries
valid: false
err: attempts cannot be negative
doc:
  apiVersion: networking.istio.io/v1
  kind: VirtualService
  metadata: {name: a, namespace: b}
  spec: {hosts: [a.b], http: [{retries: {attempts: -1}, route: [{destination: {host: a.b}}]}]}
";

    #[test]
    fn a_case_passes_by_its_verdict() {
        let judged = judge("case.yaml", CASE).unwrap();
        assert!(judged[0].passed, "{}", judged[0].json());
        assert_eq!(judged[0].result["valid"], false);
        let other = judge("case.yaml", &CASE.replace("valid: false", "valid: true")).unwrap();
        assert_eq!(
            other[0].difference.as_deref(),
            Some("it should be valid (Istio says \"attempts cannot be negative\")")
        );
    }

    #[test]
    fn documents_and_checks_are_cases_too() {
        let documents = "_err: no\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec: {}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: one}\n";
        let judged = judge("some.yaml", documents).unwrap();
        assert_eq!(judged.iter().map(|one| one.passed).collect::<Vec<_>>(), [true, true]);
        let checks =
            "- {function: ValidateFQDN, args: ['*.a'], valid: true}\n- {function: Other, args: [1], valid: true}\n";
        let judged = judge("scalars.yaml", checks).unwrap();
        assert!(!judged[0].passed && !judged[1].is_known);
    }

    #[test]
    fn values_are_checked_where_a_document_has_them() {
        let passes = |check: &str| {
            let judged = judge("scalars.yaml", &format!("- {check}\n")).unwrap().remove(0);
            assert!(judged.is_known, "{check}");
            judged.passed
        };
        for right in [
            "{function: ValidateConnectTimeout, args: [1000000], valid: true}",
            "{function: ValidateConnectTimeout, args: [3600000000001], valid: false}",
            "{function: ValidateDrainDuration, args: [1000000000], valid: true}",
            "{function: ValidateDrainDuration, args: [1500000000], valid: false}",
            "{function: ValidateControlPlaneAuthPolicy, args: [1], valid: true}",
            "{function: ValidateControlPlaneAuthPolicy, args: [-1], valid: false}",
            "{function: validateLocalities, args: [[a/b, a/b/c]], valid: false}",
            "{function: validateLocalities, args: [[a/b, a/c]], valid: true}",
            "{function: ValidatePercent, args: [101], valid: false}",
            "{function: ValidateMaxServerConnectionAge, args: [-1], valid: false}",
            "{function: validateHTTPStatus, args: [200], valid: true}",
            "{function: validateHTTPStatus, args: [100], valid: false}",
        ] {
            assert!(passes(right), "{right}");
        }
        assert!(!passes("{function: ValidateDuration, args: [1], valid: true}"));
    }
}
