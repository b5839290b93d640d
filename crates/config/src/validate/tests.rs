//! The oracle: Istio's own validation tests as data (`../shared/peer/api-validation`), run through parse and validate.

use std::collections::BTreeSet;
use std::path::{Path as FilePath, PathBuf};

use serde::Deserialize;

use crate::parse::{Document, parse_documents, parse_mesh_config, parse_mesh_networks};
use crate::problem::{Problem, Severity};

/// Cases in which we differ from Istio on purpose: file name, and why.
const KNOWN: &[(&str, &str)] = &[
    ("testvalidatemeshconfigproxyconfig--binary-path-invalid", "a field that is left out has Istio's default here"),
    ("testvalidatemeshconfigproxyconfig--validate-status-port", "a field that is left out has Istio's default here"),
];

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
    document.check_meaning().into_iter().filter(|p| !known(p)).collect()
}

fn verdict(case: &Case) -> Result<(), String> {
    let (errors, warnings) = judge(case);
    let inside =
        |p: &&Problem| case.fragment.as_deref().is_none_or(|f| p.path.starts_with(f) || f.starts_with(&p.path));
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
    let (mut run, mut wrong, mut stale) = (0, Vec::new(), Vec::new());
    for dir in files(&root.join("cases")) {
        for file in files(&dir) {
            let text = std::fs::read_to_string(&file).expect("readable");
            let case: Case = serde_saphyr::from_str(&text).expect("a case");
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
    println!("{run} cases, {} differ, {} known differences", wrong.len(), KNOWN.len());
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
            let text = std::fs::read_to_string(&file).expect("readable");
            for (i, part) in text.split("\n---").enumerate() {
                let Some((document, error)) = crd_case(part) else { continue };
                run += 1;
                let name = format!("{dir}/{}#{i}", file.file_name().expect("a name").to_string_lossy());
                let found = parse_documents("case", &document).iter().flat_map(Document::check).collect::<Vec<_>>();
                let errors: Vec<_> =
                    found.iter().filter(|p| p.severity == Severity::Error).map(ToString::to_string).collect();
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
const CRD_KNOWN: &[(&str, &str)] =
    &[("istio-crds-testdata/reqauth-valid.yaml#0", "has a field, presence, that no published CRD has")];

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
    let meant = |p: &&Problem| p.severity == Severity::Warning && !p.message.contains("not enforced yet");
    let warnings = problems.iter().filter(meant).count();
    assert_eq!(warnings, 3);
}

#[derive(Deserialize)]
struct Simulation {
    config: Option<String>,
    kube_config: Option<String>,
    mesh_config: Option<serde_json::Value>,
}

/// The configuration of Istio's simulation tests went through Istio's validation: none of it may be refused here.
#[test]
fn what_istios_simulations_run_on_is_accepted() {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/simulation/cases");
    if !root.is_dir() {
        eprintln!("skipped: no ../shared");
        return;
    }
    let (mut count, mut wrong) = (0, Vec::new());
    for file in files(&root) {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let case: Simulation =
            serde_saphyr::from_str(&std::fs::read_to_string(&file).expect("readable")).expect("a case");
        for text in [&case.config, &case.kube_config].into_iter().flatten() {
            let documents = parse_documents(&name, text);
            count += documents.iter().filter(|d| d.object.is_some()).count();
            let problems = documents.iter().flat_map(Document::check);
            // Services that an API server would refuse were given to Istio's fake one.
            let errors =
                problems.filter(|p| p.severity == Severity::Error && !p.message.starts_with("duplicate port name"));
            wrong.extend(errors.map(|p| p.to_string()));
        }
        if let Some(mesh) = &case.mesh_config {
            wrong
                .extend(parse_mesh_config(&name, &mesh.to_string()).err().into_iter().flatten().map(|p| p.to_string()));
        }
    }
    println!("{count} objects, {} refused", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 200, "{count}");
}

#[derive(Deserialize)]
struct Expected {
    expected: Vec<ExpectedMessage>,
}

#[derive(Deserialize)]
struct ExpectedMessage {
    code: String,
    resource: String,
}

/// `istioctl analyze` on rules that are never used: IST0130 for a whole rule, IST0131 for a match.
#[test]
fn rules_and_matches_that_are_never_used_are_the_ones_istio_names() {
    let root = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/analyze/cases/dupmatches");
    if !root.is_dir() {
        eprintln!("skipped: no ../shared");
        return;
    }
    let text = std::fs::read_to_string(root.join("expected.json")).expect("readable");
    let expected: Expected = serde_json::from_str(&text).expect("json");
    let expected: BTreeSet<_> = expected.expected.into_iter().map(|m| (m.code, m.resource)).collect();
    let mut found = BTreeSet::new();
    for file in files(&root.join("input")) {
        for document in parse_documents("f", &std::fs::read_to_string(&file).expect("readable")) {
            let key = document.key.clone().expect("a key");
            let namespace = if &*key.namespace == "default" { String::new() } else { format!("{}/", key.namespace) };
            for problem in document.check() {
                let code = match &problem.message {
                    m if m.starts_with("this rule is not used") => "IST0130",
                    m if m.starts_with("this match is not used") => "IST0131",
                    _ => continue,
                };
                found.insert((code.to_owned(), format!("{} {namespace}{}", key.kind, key.name)));
            }
        }
    }
    let ours = ("IST0130".to_owned(), "VirtualService overlapping-in-two-matches".to_owned());
    assert!(
        found.remove(&ours),
        "a rule all of whose matches are taken is not used; Istio says so of equal matches only"
    );
    assert_eq!(found, expected);
}

#[test]
fn external_authorizers_are_checked_field_by_field() {
    let problems = |settings: &str| {
        let text =
            format!("extensionProviders: [{{name: a, envoyExtAuthzHttp: {{service: a.b, port: 80, {settings}}}}}]");
        let errors = parse_mesh_config("m", &text).err().unwrap_or_default();
        errors.into_iter().filter(|p| p.severity == Severity::Error).map(|p| p.path).collect::<Vec<_>>()
    };
    let at = |field: &str| [format!("extensionProviders[0].envoyExtAuthzHttp.{field}")];
    assert_eq!(problems("statusOnError: '503', pathPrefix: /x, headersToUpstreamOnAllow: ['x-*']"), [""; 0]);
    assert_eq!(problems("statusOnError: '599'"), at("statusOnError"));
    assert_eq!(problems("pathPrefix: x"), at("pathPrefix"));
    assert_eq!(problems("headersToUpstreamOnAllow: [x, '*']"), at("headersToUpstreamOnAllow[1]"));
    assert_eq!(problems("includeRequestHeadersInCheck: ['']"), at("includeRequestHeadersInCheck[0]"));
}

#[test]
fn a_dry_run_of_a_custom_policy_is_refused() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, annotations: {istio.io/dry-run: 'true'}}\n\
                spec: {action: CUSTOM, provider: {name: p}, rules: [{}]}\n";
    let warnings =
        |text: &str| parse_documents("f", text)[0].check().iter().map(|p| p.path.clone()).collect::<Vec<_>>();
    assert_eq!(warnings(text), ["metadata.annotations[\"istio.io/dry-run\"]"]);
    assert!(warnings(&text.replace("CUSTOM, provider: {name: p}", "DENY")).is_empty());
}

#[test]
fn what_a_proxy_would_refuse_of_a_policy_is_refused_with_its_place() {
    let rule = |rule: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec: {{rules: [{{{rule}}}]}}\n"
        );
        let problems = parse_documents("f", &text)[0].check().into_iter().filter(|p| p.severity == Severity::Error);
        problems.map(|p| p.path.trim_start_matches("spec.rules[0].").to_owned()).collect::<Vec<_>>()
    };
    let source = |source: &str| rule(&format!("from: [{{source: {{{source}}}}}]"));
    let path = |path: &str| rule(&format!("to: [{{operation: {{paths: ['{path}']}}}}]"));
    assert_eq!(source("trustDomains: ['td*', '*', td], serviceAccounts: [acc, ns/acc]"), [""; 0]);
    assert_eq!(
        source("trustDomains: ['a*b', a/b]"),
        ["from[0].source.trustDomains[0]", "from[0].source.trustDomains[1]"]
    );
    for wrong in ["ns/", "/acc", "a/b/c", "ac*"] {
        assert_eq!(source(&format!("serviceAccounts: ['{wrong}']")), ["from[0].source.serviceAccounts[0]"], "{wrong}");
    }
    assert_eq!(path("/a/{*}/b-c/{**}"), [""; 0]);
    for wrong in ["/a b/{*}", "/a//{*}", "/a|b/{**}"] {
        assert_eq!(path(wrong), ["to[0].operation.paths[0]"], "{wrong}");
    }
    let when = |key: &str| rule(&format!("when: [{{key: '{key}', values: [a]}}]"));
    assert_eq!(when("experimental.envoy.filters.http.x[y]"), [""; 0]);
    assert_eq!(when("experimental.envoy.filters.http.x"), ["when[0].key"]);
}

/// The paths at which a document is refused and at which it is warned about, without what is not enforced yet.
fn paths(group: &str, kind: &str, metadata: &str, spec: &str) -> (Vec<String>, Vec<String>) {
    let text =
        format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: a, namespace: ns{metadata}}}\nspec: {spec}\n");
    let problems: Vec<_> = parse_documents("f", &text).iter().flat_map(semantic).collect();
    let of = |severity| problems.iter().filter(|p| p.severity == severity).map(|p| p.path.clone()).collect();
    (of(Severity::Error), of(Severity::Warning))
}

const NETWORKING: &str = "networking.istio.io/v1";

#[test]
fn the_url_of_a_module_is_read_as_go_reads_it() {
    let url = |url: &str| paths("extensions.istio.io/v1alpha1", "WasmPlugin", "", &format!("{{url: '{url}'}}")).0;
    for fine in
        ["oci://a.b/c:v1", "a.b/c", "http://a:80/x", "https://[::1]:80/x", "file:///x y", "10.0.0.1:5000/a", "a"]
    {
        assert_eq!(url(fine), [""; 0], "{fine}");
    }
    for wrong in ["ftp://a", "localhost:5000/a", ":a", "http://a:b/", "http://a b/", "a%zz", "::1/x", ""] {
        assert_eq!(url(wrong), ["spec.url"], "{wrong}");
    }
}

#[test]
fn an_extension_is_one_of_two_and_its_variables_have_one_name_each() {
    let refused = |spec: &str| paths("extensions.istio.io/v1alpha1", "TrafficExtension", "", spec).0;
    assert_eq!(refused("{lua: {inlineCode: x}, match: [{ports: [{number: 80}]}]}"), [""; 0]);
    assert_eq!(refused("{}"), ["spec"]);
    assert_eq!(refused("{lua: {inlineCode: x}, wasm: {url: a}}"), ["spec"]);
    assert_eq!(refused("{lua: {inlineCode: ''}}"), ["spec.lua.inlineCode"]);
    assert_eq!(refused("{lua: {inlineCode: x}, match: [{ports: [{number: 0}]}]}"), ["spec.match[0].ports[0].number"]);
    let env = |env: &str| refused(&format!("{{wasm: {{url: a, vmConfig: {{env: [{env}]}}}}}}"));
    assert_eq!(env("{name: a, value: b}, {name: b, valueFrom: HOST}"), [""; 0]);
    assert_eq!(env("{name: a}, {name: a}"), ["spec.wasm.vmConfig.env[1].name"]);
    assert_eq!(env("{name: a, value: b, valueFrom: HOST}"), ["spec.wasm.vmConfig.env[0].value"]);
}

#[test]
fn hosts_of_listeners_have_two_labels_or_are_any() {
    let gateway = |host: &str| {
        let server = format!("{{hosts: ['{host}'], port: {{number: 80, protocol: HTTP, name: a}}}}");
        paths(NETWORKING, "Gateway", "", &format!("{{servers: [{server}]}}")).0
    };
    for fine in ["*", "a.b", "*.b", "ns/a.b", "./*", "1.2.3.4"] {
        assert_eq!(gateway(fine), [""; 0], "{fine}");
    }
    for wrong in ["a", "ns/a", "*a.b", "::1", "~/a.b"] {
        assert_eq!(gateway(wrong), ["spec.servers[0].hosts[0]"], "{wrong}");
    }
    let sidecar = |hosts: &str| paths(NETWORKING, "Sidecar", "", &format!("{{egress: [{{hosts: [{hosts}]}}]}}"));
    for fine in ["'*/*'", "./a.b", "~/*", "~ns1/*", "~/a.b"] {
        assert_eq!(sidecar(fine), (vec![], vec![]), "{fine}");
    }
    assert_eq!(sidecar("ns1/a").0, ["spec.egress[0].hosts[0]"]);
    for twice in ["ns1/*, ns1/a.b", "ns1/a.b, ns1/*", "./a.b, ns/a.b"] {
        assert_eq!(sidecar(twice), (vec![], vec!["spec.egress[0].hosts[1]".to_owned()]), "{twice}");
    }
}

#[test]
fn hosts_of_a_service_entry_can_be_told_apart() {
    let refused = |protocol: &str, resolution: &str| {
        let port = format!("{{number: 80, name: a, protocol: {protocol}}}");
        let spec = format!("{{hosts: [a.b, c.d], ports: [{port}], resolution: {resolution}}}");
        paths(NETWORKING, "ServiceEntry", "", &spec).0
    };
    assert_eq!(refused("HTTP", "DNS"), [""; 0]);
    assert_eq!(refused("TLS", "DNS"), [""; 0]);
    assert_eq!(refused("TCP", "NONE"), [""; 0]);
    assert_eq!(refused("TCP", "DNS"), ["spec.ports[0]"]);
    assert_eq!(refused("MONGO", "STATIC"), ["spec.ports[0]"]);
}

#[test]
fn patches_match_filters_by_name_and_carry_messages_of_known_types() {
    let patch = |apply_to: &str, filter: &str, value: &str| {
        let spec = format!(
            "{{configPatches: [{{applyTo: {apply_to}, match: {{listener: {{filterChain: {{filter: {filter}}}}}}}, \
             patch: {{operation: MERGE, value: {value}}}}}]}}"
        );
        let (errors, warnings) = paths("networking.istio.io/v1alpha3", "EnvoyFilter", "", &spec);
        let inside = |list: Vec<String>| -> Vec<String> {
            let start = "spec.configPatches[0].";
            list.iter().filter_map(|path| path.strip_prefix(start)).map(str::to_owned).collect()
        };
        (inside(errors), inside(warnings))
    };
    let manager = "{name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}";
    let typed = "{name: a, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}";
    let at = |path: &str| vec![path.to_owned()];
    let filter = "match.listener.filterChain.filter";
    assert_eq!(patch("HTTP_FILTER", manager, typed), (vec![], vec![]));
    assert_eq!(patch("HTTP_FILTER", "{}", typed).0, at(&format!("{filter}.name")));
    assert_eq!(patch("NETWORK_FILTER", manager, typed).0, at(&format!("{filter}.subFilter")));
    assert_eq!(patch("HTTP_FILTER", "{name: a, subFilter: {name: b}}", typed).0, at(&format!("{filter}.subFilter")));
    assert_eq!(patch("HTTP_FILTER", "{name: envoy.lua}", typed).1, at(&format!("{filter}.name")));
    assert_eq!(patch("LISTENER", "{name: a}", "{}").1, at(filter));
    assert_eq!(patch("HTTP_FILTER", manager, "{name: envoy.lua}").1, at("patch.value"));
    let value = |config: &str| patch("HTTP_FILTER", manager, &format!("{{name: a, typed_config: {config}}}")).0;
    assert_eq!(value("{a: 1}"), at("patch.value.typed_config"));
    assert_eq!(
        value("{'@type': type.googleapis.com/envoy.config.filter.http.lua.v2.Lua}"),
        at("patch.value.typed_config")
    );
    assert_eq!(value("text"), at("patch.value.typed_config"));
}

#[test]
fn what_patches_carry_is_read_as_envoys_messages() {
    let patch = |apply_to: &str, value: &str| {
        let spec = format!("{{configPatches: [{{applyTo: {apply_to}, patch: {{operation: MERGE, value: {value}}}}}]}}");
        let (errors, warnings) = paths("networking.istio.io/v1alpha3", "EnvoyFilter", "", &spec);
        let start = "spec.configPatches[0].patch.value";
        let inside = |list: Vec<String>| -> Vec<String> {
            list.iter().filter_map(|path| path.strip_prefix(start)).map(str::to_owned).collect()
        };
        (inside(errors), inside(warnings))
    };
    let at = |path: &str| vec![path.to_owned()];
    let nothing: (Vec<String>, Vec<String>) = Default::default();
    assert_eq!(patch("CLUSTER", "{connect_timeout: 1.5s, lbPolicy: ROUND_ROBIN}"), nothing);
    assert_eq!(patch("CLUSTER", "{connect_timeout: {seconds: 1}}").0, at(".connect_timeout"));
    assert_eq!(patch("CLUSTER", "{lb_policy: NEAREST}").0, at(".lb_policy"));
    assert_eq!(
        patch("CLUSTER", "{circuit_breakers: {thresholds: [{max_retries: -1}]}}").0,
        at(".circuit_breakers.thresholds[0].max_retries")
    );
    // What is newer than our descriptors may be known to Envoy.
    let newer = patch("CLUSTER", "{connect_timeout: 1s, newest: 1, circuit_breakers: {thresholds: [{newer: 1}]}}");
    assert_eq!(newer, (vec![], vec![".newest".to_owned(), ".circuit_breakers.thresholds[0].newer".to_owned()]));
    let filter = |config: &str| patch("HTTP_FILTER", &format!("{{name: a, typed_config: {config}}}"));
    let url = "type.googleapis.com/envoy.extensions.filters.http";
    assert_eq!(filter(&format!("{{'@type': {url}.lua.v3.Lua, inline_code: x}}")), nothing);
    assert_eq!(filter(&format!("{{'@type': {url}.lua.v3.Lua, inline_code: 1}}")).0, at(".typed_config.inline_code"));
    assert_eq!(filter(&format!("{{'@type': {url}.lua.v3.Lua, inlined: x}}")).1, at(".typed_config.inlined"));
    assert_eq!(filter(&format!("{{'@type': {url}.newest.v3.Newest, a: 1}}")), (vec![], at(".typed_config")));
    assert_eq!(filter("{'@type': type.googleapis.com/example.Filter, a: 1}").0, at(".typed_config"));
    assert_eq!(patch("ROUTE_CONFIGURATION", "{virtual_hosts: 1}").0, at(".virtual_hosts"));
    assert_eq!(patch("BOOTSTRAP", "{admin: {access_log_path: /a}}"), nothing);
}

#[test]
fn a_star_inside_a_value_is_warned_about_as_it_stands_for_itself() {
    let warnings = |rule: &str| {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: ns}}\nspec: {{rules: [{{{rule}}}]}}\n"
        );
        let problems: Vec<_> = parse_documents("f", &text).iter().flat_map(semantic).collect();
        assert!(problems.iter().all(|problem| problem.severity == Severity::Warning), "{problems:?}");
        problems.into_iter().map(|problem| (problem.path, problem.message)).collect::<Vec<_>>()
    };
    for (rule, path, instead) in [
        (
            "from: [{source: {principals: [cluster.local/ns/a/sa/x, cluster.local/ns/*/sa/x]}}]",
            "spec.rules[0].from[0].source.principals[1]",
            "write \"*/sa/x\" for this account of any namespace and trust domain, or a value for each namespace",
        ),
        (
            "from: [{source: {notPrincipals: ['cluster.local/ns/team-*/sa/*']}}]",
            "spec.rules[0].from[0].source.notPrincipals[0]",
            "write \"cluster.local/ns/team-*\", which takes more, or a value for each",
        ),
        (
            "to: [{operation: {paths: ['/a/*/b']}}]",
            "spec.rules[0].to[0].operation.paths[0]",
            "write \"/a/{*}/b\", where {*} is one segment",
        ),
        (
            "to: [{operation: {hosts: ['*.shop.*']}}]",
            "spec.rules[0].to[0].operation.hosts[0]",
            "write a value for each",
        ),
        (
            "when: [{key: 'request.auth.claims[iss]', values: ['https://*.example.com']}]",
            "spec.rules[0].when[0].values[0]",
            "write \"*.example.com\", which takes more, or a value for each",
        ),
    ] {
        let found = warnings(rule);
        assert_eq!(found.len(), 1, "{rule}: {found:?}");
        assert_eq!(found[0].0, path, "{rule}");
        assert!(found[0].1.ends_with(instead), "{rule}: {}", found[0].1);
    }
    for fine in [
        "from: [{source: {principals: ['*', '*/sa/x', 'cluster.local/*', a]}}]",
        // Patterns of namespaces may have it anywhere.
        "from: [{source: {namespaces: ['team-*-prod']}}]",
        "to: [{operation: {paths: ['/a/{*}/b', '/a/*', '*.html'], hosts: ['*.example.com'], methods: ['*']}}]",
    ] {
        assert_eq!(warnings(fine), [], "{fine}");
    }
}

#[test]
fn what_a_deny_rule_means_for_connections_is_warned_about() {
    let warned = |rule: &str| {
        let spec = format!("{{action: DENY, rules: [{{{rule}}}]}}");
        !paths("security.istio.io/v1", "AuthorizationPolicy", "", &spec).1.is_empty()
    };
    for http_alone in [
        "to: [{operation: {methods: [GET]}}]",
        "from: [{source: {requestPrincipals: ['*']}}]",
        "from: [{source: {principals: [a]}}], to: [{operation: {paths: [/a]}}]",
    ] {
        assert!(warned(http_alone), "{http_alone}");
    }
    for fine in [
        "to: [{operation: {methods: [GET], ports: ['80']}}]",
        "to: [{operation: {methods: [GET], notPorts: ['80']}}]",
        "from: [{source: {remoteIpBlocks: [1.2.3.4]}}]",
        "from: [{source: {namespaces: [a]}}]",
    ] {
        assert!(!warned(fine), "{fine}");
    }
}

#[test]
fn settings_that_istio_takes_are_taken() {
    let rule = |balancer: &str| {
        let spec = format!("{{host: a.b, trafficPolicy: {{loadBalancer: {{{balancer}}}}}}}");
        paths(NETWORKING, "DestinationRule", "", &spec).0
    };
    assert_eq!(rule("simple: RANDOM, warmup: {duration: 1s, aggression: 0.5}"), [""; 0]);
    assert_eq!(rule("simple: RANDOM, warmup: {duration: 1s, aggression: 0}").len(), 1);
    let server = |server: &str| {
        let spec = format!("{{servers: [{{hosts: [a.b], port: {{number: 443, name: a, protocol: TLS}}, {server}}}]}}");
        paths(NETWORKING, "Gateway", "", &spec).0
    };
    assert_eq!(server("name: a_b, tls: {mode: PASSTHROUGH}"), [""; 0]);
    let at = |field: &str| [format!("spec.servers[0].tls{field}")];
    assert_eq!(server("tls: {mode: PASSTHROUGH, caCrl: a, credentialName: b}"), at(".caCrl"));
    let files = "mode: MUTUAL, serverCertificate: a, privateKey: b";
    assert_eq!(server(&format!("tls: {{{files}, caCertCredentialName: c}}")), at(""));
    assert_eq!(server(&format!("tls: {{{files}, caCertificates: c}}")), [""; 0]);
}

#[test]
fn annotations_that_ask_for_a_trial_or_for_a_refusal() {
    let policy = |action: &str, value: &str| {
        let metadata = format!(", annotations: {{istio.io/dry-run: '{value}'}}");
        paths("security.istio.io/v1", "AuthorizationPolicy", &metadata, &format!("{{action: {action}, rules: [{{}}]}}"))
            .0
    };
    let refused = ["metadata.annotations[\"istio.io/dry-run\"]"];
    assert_eq!(policy("DENY", "T"), [""; 0]);
    assert_eq!(policy("ALLOW", "maybe"), refused);
    assert_eq!(policy("AUDIT", "true"), refused);
    let others = ", annotations: {istio.io/dry-run: 'true'}";
    assert_eq!(paths(NETWORKING, "WorkloadEntry", others, "{address: 1.2.3.4}").0, refused);
    let rejected = ", annotations: {internal.istio.io/webhook-always-reject: 'true'}";
    let found = paths(NETWORKING, "WorkloadEntry", rejected, "{address: 1.2.3.4}").0;
    assert_eq!(found, ["metadata.annotations[\"internal.istio.io/webhook-always-reject\"]"]);
}

#[test]
fn keys_of_issuers_are_public_and_named_by_one_of_two() {
    let rule =
        |rule: &str| paths("security.istio.io/v1", "RequestAuthentication", "", &format!("{{jwtRules: [{{{rule}}}]}}"));
    assert_eq!(rule("jwksUri: 'https://a.b/keys'"), (vec![], vec![]));
    assert_eq!(rule("audiences: [a]").0, ["spec.jwtRules[0].issuer"]);
    let keys = |keys: &str| rule(&format!("issuer: a, jwks: '{keys}'"));
    assert_eq!(keys(r#"{"kty": "RSA", "n": "AQ", "e": "AQAB"}"#), (vec![], vec![]));
    assert_eq!(
        keys(r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQ", "d": "AQ"}]}"#).1,
        ["spec.jwtRules[0].jwks"]
    );
    assert_eq!(keys(r#"{"keys": [{"kty": "oct", "k": "AQ"}]}"#).1, ["spec.jwtRules[0].jwks"]);
    for wrong in [
        "{}",
        r#"{"keys": [{"kty": "RSA", "n": "AQ"}]}"#,
        r#"{"kty": "EC", "crv": "P-256", "x": "AQ"}"#,
        r#"{"kty": "DSA"}"#,
    ] {
        assert_eq!(keys(wrong).0, ["spec.jwtRules[0].jwks"], "{wrong}");
    }
}

#[test]
fn what_istio_had_once_is_told_what_took_its_place() {
    for (api, kind, instead) in [
        ("rbac.istio.io/v1alpha1", "ServiceRole", "AuthorizationPolicy"),
        ("authentication.istio.io/v1alpha1", "Policy", "PeerAuthentication"),
        ("config.istio.io/v1alpha2", "handler", "Telemetry"),
    ] {
        let text = format!("apiVersion: {api}\nkind: {kind}\nmetadata: {{name: a}}\n");
        let problems = parse_documents("f", &text).remove(0).problems;
        assert!(problems[0].message.contains(instead), "{}", problems[0].message);
        assert_eq!(problems[0].severity, Severity::Error);
    }
}
