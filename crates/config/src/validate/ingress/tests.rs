use crate::parse::parse_documents;
use crate::problem::Severity;

/// What is wrong with an Ingress of this spec.
fn errors(spec: &str) -> Vec<String> {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: a, namespace: b}}\nspec: {{{spec}}}\n"
    );
    let problems = parse_documents("f", &text).into_iter().flat_map(|document| document.check());
    let errors = problems.filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| format!("{}: {}", problem.path, problem.message)).collect()
}

#[test]
fn an_ingress_is_what_kubernetes_accepts() {
    let path = |path: &str| format!("rules: [{{host: a.b, http: {{paths: [{{{path}}}]}}}}]");
    let to = "backend: {service: {name: s, port: {number: 80}}}";
    assert_eq!(errors("defaultBackend: {service: {name: s, port: {name: http}}}"), [""; 0]);
    assert_eq!(errors(&path(&format!("path: /a, pathType: Prefix, {to}"))), [""; 0]);
    let at = "spec.rules[0].http.paths[0]";
    for (spec, wanted) in [
        ("tls: [{hosts: [a.b]}]".to_owned(), "spec: either defaultBackend or rules".to_owned()),
        (path(&format!("path: a, pathType: Exact, {to}")), format!("{at}.path: must be an absolute")),
        (path(&format!("path: /a//b, pathType: Prefix, {to}")), format!("{at}.path: must not contain")),
        (path(&format!("path: /a, {to}")), format!("{at}.pathType: required")),
        (path("path: /a, pathType: Prefix, backend: {}"), format!("{at}.backend: resource or service")),
        (
            path("path: /a, pathType: Prefix, backend: {service: {name: s, port: {name: a, number: 1}}}"),
            format!("{at}.backend.service.port: cannot set both"),
        ),
        (
            path("path: /a, pathType: Prefix, backend: {service: {name: s}}"),
            format!("{at}.backend.service.port: port name"),
        ),
        ("rules: [{host: 10.0.0.1}]".to_owned(), "spec.rules[0].host: an address".to_owned()),
        ("rules: [{host: A.b}]".to_owned(), "spec.rules[0].host: \"A.b\" is not a host name".to_owned()),
    ] {
        let found = errors(&spec);
        assert!(found.len() == 1 && found[0].starts_with(&wanted), "{spec}: not {wanted}, but {found:?}");
    }
}
