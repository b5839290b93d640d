use super::*;
use crate::testing::{mesh, node, sidecar};
use serde_json::json;

fn snapshot() -> Snapshot {
    mesh(
        "
apiVersion: v1
kind: Secret
metadata: {name: site, namespace: edge}
type: kubernetes.io/tls
stringData: {tls.crt: CERT, tls.key: KEY, ca.crt: ROOT}
---
apiVersion: v1
kind: Secret
metadata: {name: unused, namespace: edge}
stringData: {tls.crt: CERT, tls.key: KEY}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: site}}
",
    )
}

fn gateway(namespace: &str) -> Node {
    node("router", "10.9.9.9", namespace, json!({"LABELS": {"istio": "ingressgateway"}}))
}

fn secret(name: &str) -> Secret {
    let input = Secrets::inputs(&snapshot(), &gateway("edge"), name).unwrap();
    let secret = meltemi_proto::unpack_secret(&Secrets::build(&input)).unwrap();
    meltemi_plan::secret(&secret).unwrap_or_else(|error| panic!("our proxy refuses {name}: {error}"));
    secret
}

#[test]
fn a_gateway_gets_the_credentials_that_its_servers_name() {
    let own = secret("kubernetes://site");
    assert_eq!(own.name, "kubernetes://site");
    let Some(secret::Type::TlsCertificate(certificate)) = own.r#type else { panic!() };
    let inline = |source: Option<DataSource>| match source.unwrap().specifier {
        Some(data_source::Specifier::InlineBytes(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(inline(certificate.certificate_chain), "CERT");
    assert_eq!(inline(certificate.private_key), "KEY");
    let Some(secret::Type::ValidationContext(root)) = secret("kubernetes://edge/site-cacert").r#type else { panic!() };
    assert_eq!(inline(root.trusted_ca), "ROOT");
}

#[test]
fn nobody_else_gets_them() {
    let snapshot = snapshot();
    for (node, name) in [
        (gateway("edge"), "kubernetes://unused"),
        (gateway("edge"), "kubernetes://missing"),
        (gateway("edge"), "site"),
        (gateway("other"), "kubernetes://site"),
        (gateway("other"), "kubernetes://edge/site"),
        (sidecar("10.9.9.9", "edge"), "kubernetes://site"),
        (node("router", "10.9.9.9", "edge", json!({})), "kubernetes://site"),
    ] {
        assert!(Secrets::inputs(&snapshot, &node, name).is_none(), "{} {name}", node.id);
    }
}

#[test]
fn a_gateway_of_the_gateway_api_gets_what_was_granted_to_it_and_roots_of_a_config_map() {
    let pem = |label: &str| format!("\"-----BEGIN {label}-----\\nx\\n-----END {label}-----\\n\"");
    let (certificate, key) = (pem("CERTIFICATE"), pem("PRIVATE KEY"));
    let objects = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: gw, namespace: edge}}
spec: {{selector: {{istio: ingressgateway}}, ports: [{{name: https, port: 443, targetPort: 8443}}]}}
---
apiVersion: v1
kind: Secret
metadata: {{name: site, namespace: certs}}
stringData: {{tls.crt: {certificate}, tls.key: {key}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: clients, namespace: edge}}
data: {{ca.crt: {certificate}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: web, namespace: edge}}
spec:
  gatewayClassName: istio
  addresses: [{{type: Hostname, value: gw}}]
  listeners:
  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: site, namespace: certs}}]}}}}
  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: clients}}]}}}}}}}}
"
    );
    let grant = "---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: edge, namespace: certs}
spec:
  from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: edge}]
  to: [{group: '', kind: Secret}]
";
    // A proxy of another namespace that says it is at the gateway's address.
    let endpoints = "---
apiVersion: v1
kind: Endpoints
metadata: {name: gw, namespace: edge}
subsets: [{addresses: [{ip: 10.9.9.9}], ports: [{name: https, port: 8443}]}]
";
    let objects = objects + endpoints;
    let (certificate, roots) = ("kubernetes-gateway://certs/site", "configmap://edge/clients-cacert");
    for (text, granted) in [(objects.clone(), false), (objects + grant, true)] {
        let snapshot = mesh(&text);
        for (namespace, own) in [("edge", granted), ("certs", false)] {
            let found = |name| Secrets::inputs(&snapshot, &gateway(namespace), name).is_some();
            assert_eq!((found(certificate), found(roots)), (own, own), "{namespace}, granted: {granted}");
        }
    }
}

#[test]
fn everybody_gets_the_roots_that_a_policy_for_a_backend_names_and_nothing_else_of_a_config_map() {
    let pem = "\"-----BEGIN CERTIFICATE-----\\nx\\n-----END CERTIFICATE-----\\n\"";
    let text = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: api, namespace: back}}
spec: {{selector: {{app: api}}, ports: [{{name: https, port: 443}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: roots, namespace: back}}
data: {{ca.crt: {pem}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: others, namespace: back}}
data: {{ca.crt: {pem}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: api, namespace: back}}
spec:
  targetRefs: [{{group: '', kind: Service, name: api}}]
  validation: {{hostname: api.example.com, caCertificateRefs: [{{group: '', kind: ConfigMap, name: roots}}]}}
"
    );
    let snapshot = mesh(&text);
    for node in [sidecar("10.0.0.7", "elsewhere"), gateway("edge")] {
        let found = |name| Secrets::inputs(&snapshot, &node, name).is_some();
        assert!(found("configmap://back/roots-cacert"));
        assert!(!found("configmap://back/others-cacert"));
    }
    let rule = snapshot.destination_rules.iter().next().unwrap();
    let tls = rule.spec.traffic_policy.as_ref().unwrap().tls.as_ref().unwrap();
    // Istio asks for the name and takes a certificate for any.
    assert_eq!((&*tls.sni, &*tls.subject_alt_names[0]), ("api.example.com", "api.example.com"));
}
