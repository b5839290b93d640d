use crate::parse::parse_documents;
use crate::problem::Severity;

/// Errors of an object of the API with this spec, each `path: message`.
fn errors(kind: &str, spec: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a, namespace: b}}\nspec: {{{spec}}}\n"
    );
    let problems = parse_documents("f", &text).into_iter().flat_map(|document| document.check());
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

/// One error, at a path, with these words.
fn refused(kind: &str, spec: &str, path: &str, words: &str) {
    let errors = errors(kind, spec);
    let fits = errors.len() == 1 && errors[0].starts_with(&format!("{path}: ")) && errors[0].contains(words);
    assert!(fits, "{kind} {{{spec}}}: not {path}: …{words}…, but {errors:?}");
}

fn accepted(kind: &str, spec: &str) {
    let errors = errors(kind, spec);
    assert!(errors.is_empty(), "{kind} {{{spec}}}: {errors:?}");
}

#[test]
fn an_http_route_is_what_its_crd_demands() {
    let rule = |rule: &str| format!("parentRefs: [{{name: g}}], rules: [{{{rule}}}]");
    let to = "backendRefs: [{name: b, port: 80}]";
    accepted("HTTPRoute", &rule(to));
    accepted("HTTPRoute", &rule(&format!("timeouts: {{request: 1h30m, backendRequest: 500ms}}, {to}")));
    let at = |rest: &str| format!("spec.rules[0].{rest}");
    for (spec, path, words) in [
        ("backendRefs: [{name: b}]", "backendRefs[0].port", "Must have port"),
        ("backendRefs: [{name: b, port: 80, weight: -1}]", "backendRefs[0].weight", "0 to 1000000"),
        ("backendRefs: [{name: b, port: 80, sectionname: x}]", "backendRefs[0].sectionname", "unknown field"),
        ("matches: [{path: {value: x}}]", "matches[0].path.value", "start with '/'"),
        ("matches: [{path: {value: /a//b}}]", "matches[0].path.value", "must not contain"),
        ("matches: [{path: {value: '/a b'}}]", "matches[0].path.value", "characters of a path"),
        ("matches: [{path: {type: RegularExpression, value: '('}}]", "matches[0].path.value", "invalid regex"),
        ("matches: [{headers: [{name: a, value: '1'}, {name: A, value: '2'}]}]", "matches[0].headers[1].name", "once"),
        ("matches: [{method: FETCH}]", "matches[0].method", "FETCH"),
        ("timeouts: {request: 1.5s}", "timeouts.request", "whole numbers"),
        ("timeouts: {request: 1s, backendRequest: 2s}", "timeouts.backendRequest", "longer than request"),
        ("retry: {codes: [200]}", "retry.codes[0]", "400 to 599"),
        ("filters: [{type: CORS}]", "filters[0].cors", "must be specified"),
        ("filters: [{requestRedirect: {}}]", "filters[0].type", "required"),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 300}}]",
            "filters[0].requestRedirect.statusCode",
            "307",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b, port: 1}, percent: 1, fraction: {numerator: 1}}}]",
            "filters[0].requestMirror",
            "Only one of percent or fraction",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: ' b'}]}}]",
            "filters[0].requestHeaderModifier.set[0].value",
            "value of a header",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['example.com']}}]",
            "filters[0].cors.allowOrigins[0]",
            "<scheme>://<host>",
        ),
    ] {
        refused("HTTPRoute", &rule(spec), &at(path), words);
    }
    // The field that is there is wrong, and so is that the other is not.
    let modifier = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /}}}]";
    assert_eq!(errors("HTTPRoute", &rule(modifier)).len(), 2);
    let redirect = "filters: [{type: RequestRedirect, requestRedirect: {hostname: a}}]";
    refused("HTTPRoute", &rule(&format!("{redirect}, {to}")), "spec.rules[0]", "together with backendRefs");
    let prefix = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]";
    accepted("HTTPRoute", &rule(&format!("matches: [{{path: {{value: /a}}}}], {prefix}, {to}")));
    let exact = "matches: [{path: {type: Exact, value: /a}}]";
    refused("HTTPRoute", &rule(&format!("{exact}, {prefix}, {to}")), "spec.rules[0]", "exactly one match");
}

#[test]
fn references_are_told_apart() {
    let parents = |list: &str| format!("parentRefs: [{list}], rules: [{{backendRefs: [{{name: b, port: 80}}]}}]");
    accepted(
        "HTTPRoute",
        &parents("{name: g, sectionName: a}, {name: g, sectionName: b}, {name: g, kind: Service, group: ''}"),
    );
    let (path, both) = ("spec.parentRefs[1]", "2 or more references to the same parent");
    refused("HTTPRoute", &parents("{name: g, sectionName: a}, {name: g, sectionName: a}"), path, both);
    refused("TCPRoute", &parents("{name: g, port: 1}, {name: g, sectionName: a}"), path, both);
    refused("GRPCRoute", &parents("{name: g, port: 0}"), "spec.parentRefs[0].port", "1..65535");
}

#[test]
fn listeners_are_what_their_crd_demands() {
    let one = |listener: &str| format!("gatewayClassName: istio, listeners: [{{name: a, {listener}}}]");
    accepted("Gateway", &one("port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: c}]}"));
    accepted("Gateway", &one("port: 443, protocol: TLS, tls: {mode: Passthrough}"));
    let at = |rest: &str| format!("spec.listeners[0].{rest}");
    for (listener, path, words) in [
        ("port: 0, protocol: HTTP", "port", "1..65535"),
        ("port: 80, protocol: HTTP, tls: {mode: Passthrough}", "tls", "must not be specified"),
        ("port: 443, protocol: HTTPS, tls: {mode: Passthrough}", "tls.mode", "must be Terminate"),
        ("port: 443, protocol: HTTPS, tls: {}", "tls", "certificateRefs or options"),
        ("port: 443, protocol: TLS", "tls", "must be set"),
        ("port: 80, protocol: TCP, hostname: a.b", "hostname", "must not be specified"),
        ("port: 80, protocol: HTTP, hostname: 10.0.0.1", "hostname", "address"),
    ] {
        refused("Gateway", &one(listener), &at(path), words);
    }
    let two = "gatewayClassName: istio, listeners: [{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}]";
    refused("Gateway", two, "spec.listeners[1]", "must be unique");
    refused(
        "ListenerSet",
        "parentRef: {name: g, port: 1}, listeners: [{name: a, port: 80, protocol: HTTP}]",
        "spec.parentRef",
        "no port",
    );
    refused("GatewayClass", "controllerName: istio", "spec.controllerName", "a domain and a path");
    refused("ReferenceGrant", "from: [], to: [{group: '', kind: Service}]", "spec.from", "at least 1");
    refused("TLSRoute", "rules: [{backendRefs: [{name: b, port: 1}]}]", "spec.hostnames", "at least 1");
}

#[test]
fn names_are_written_as_kubernetes_writes_them() {
    let snake = errors("HTTPRoute", "parent_refs: [{name: g}]");
    assert!(snake[0].starts_with("spec.parent_refs: unknown field"), "{snake:?}");
    let text = "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: UDPRoute\nmetadata: {name: a}\nspec: {}\n";
    let problems = parse_documents("f", text).remove(0).problems;
    assert_eq!(
        problems[0].message,
        "UDPRoute of gateway.networking.k8s.io/v1alpha2 has no effect, as in Istio; skipped"
    );
}

/// As [`errors`], of any kind.
fn errors_of(api_version: &str, kind: &str, body: &str) -> Vec<String> {
    let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: a, namespace: b}}\n{body}\n");
    let problems = parse_documents("f", &text).into_iter().flat_map(|document| document.check());
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

#[test]
fn policies_for_backends_are_what_their_crds_demand() {
    let target = "targetRefs: [{group: '', kind: Service, name: s}]";
    let tls = |rest: &str| format!("{target}, validation: {{{rest}}}");
    accepted("BackendTLSPolicy", &tls("hostname: a.b, wellKnownCACertificates: System"));
    let (system, reference) =
        ("wellKnownCACertificates: System", "caCertificateRefs: [{group: '', kind: ConfigMap, name: c}]");
    accepted(
        "BackendTLSPolicy",
        &tls(&format!("hostname: a.b, {reference}, subjectAltNames: [{{type: URI, uri: 'spiffe://a/b'}}]")),
    );
    for (rest, path, words) in [
        (system.to_owned(), "hostname", "required"),
        ("hostname: a.b".to_owned(), "", "must specify either"),
        (format!("hostname: a.b, {system}, {reference}"), "", "must not contain both"),
        (format!("hostname: '*.b', {system}"), "hostname", "not a host name"),
        (
            format!("hostname: a.b, {system}, subjectAltNames: [{{type: URI, hostname: x.y, uri: 'a://b'}}]"),
            "subjectAltNames[0]",
            "must not contain Hostname",
        ),
        (
            format!("hostname: a.b, {system}, subjectAltNames: [{{type: Hostname}}]"),
            "subjectAltNames[0]",
            "must contain Hostname",
        ),
        (
            format!("hostname: a.b, {system}, subjectAltNames: [{{hostname: x.y}}]"),
            "subjectAltNames[0].type",
            "required",
        ),
    ] {
        let path = if path.is_empty() { "spec.validation".to_owned() } else { format!("spec.validation.{path}") };
        refused("BackendTLSPolicy", &tls(&rest), &path, words);
    }
    let two = "targetRefs: [{group: '', kind: Service, name: s}, {group: '', kind: Service, name: s, sectionName: p}]";
    refused(
        "BackendTLSPolicy",
        &format!("{two}, validation: {{hostname: a.b, {system}}}"),
        "spec.targetRefs[1]",
        "sectionName",
    );
    let experimental = "gateway.networking.x-k8s.io/v1alpha1";
    let budget = |rest: &str| {
        errors_of(experimental, "XBackendTrafficPolicy", &format!("spec: {{{target}, retryConstraint: {{{rest}}}}}"))
    };
    assert_eq!(budget("budget: {percent: 20, interval: 10s}, minRetryRate: {count: 3, interval: 1s}"), [""; 0]);
    assert_eq!(budget("budget: {percent: 101}").len(), 1);
    assert_eq!(budget("budget: {interval: 100ms}").len(), 1);
    assert_eq!(budget("minRetryRate: {count: 0}").len(), 1);
    let backend =
        |rest: &str| errors_of(experimental, "XBackend", &format!("spec: {{type: ExternalHostname, {rest}}}"));
    let host = "externalHostname: {hostname: a.b}, port: {port: 443}";
    assert_eq!(backend(&format!("{host}, tls: {{mode: ServerOnly}}")), [""; 0]);
    assert_eq!(backend(&format!("{host}, tls: {{mode: ClientAndServer}}")).len(), 1);
    assert_eq!(backend("externalHostname: {hostname: a.svc.cluster.local}, port: {port: 443}").len(), 1);
    assert_eq!(backend(&format!("{host}, protocol: FTP")).len(), 1);
    let pool = |rest: &str| {
        errors_of(
            "inference.networking.k8s.io/v1",
            "InferencePool",
            &format!("spec: {{selector: {{matchLabels: {{app: x}}}}, {rest}}}"),
        )
    };
    assert_eq!(pool("targetPorts: [{number: 80}], endpointPickerRef: {name: e, port: {number: 9002}}"), [""; 0]);
    assert_eq!(pool("targetPorts: [], endpointPickerRef: {name: e}").len(), 2);
}
