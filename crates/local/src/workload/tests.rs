use std::path::PathBuf;

use super::*;

fn desired_of(text: &str) -> Desired {
    let documents = meltemi_config::parse_documents("m.yaml", text);
    let objects: Vec<_> =
        documents.into_iter().map(|d| d.object.unwrap_or_else(|| panic!("{:?}", d.problems))).collect();
    let table = [("team/app".to_owned(), PathBuf::from("/srv/app"))];
    desired(&objects, &Images::new(table.into_iter().collect(), PathBuf::from("/opt/meltemi")), &MeshConfig::default())
}

fn deployment(replicas: u32, template: &str, container: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
         template:\n    metadata: {{labels: {{app: web, version: v1}}{template}}}\n    spec:\n      serviceAccountName: web\n      \
         containers:\n      - {{name: c, {container}}}\n"
    )
}

#[test]
fn a_deployment_becomes_named_replicas_and_a_gateway() {
    let text = deployment(2, "", "image: 'team/app:1', ports: [{containerPort: 80, name: http}]");
    let found = desired_of(&text);
    assert_eq!(found.errors, []);
    let names: Vec<_> = found.list.iter().map(|replica| replica.name.as_str()).collect();
    assert_eq!(names.len(), 3);
    assert!(names[0].starts_with("web-") && names[0][..14] == names[1][..14] && names[0] != names[1], "{names:?}");
    let replica = &found.list[0];
    assert_eq!((replica.role, replica.service_account.as_str()), (Role::Sidecar, "web"));
    assert_eq!(replica.labels["security.istio.io/tlsMode"], "istio");
    assert_eq!(replica.labels["service.istio.io/canonical-revision"], "v1");
    assert_eq!(replica.containers[0].program, PathBuf::from("/srv/app"));
    assert_eq!(replica.containers[0].check, Check::Ports(vec![80]));
    assert_eq!((found.list[2].role, found.list[2].owner.as_str()), (Role::Router, GATEWAY));
    let again: Vec<_> = desired_of(&text).list.iter().map(|replica| replica.key()).collect();
    assert_eq!(again, found.list.iter().map(|replica| replica.key()).collect::<Vec<_>>(), "names are stable");
    let changed = desired_of(&text.replace("containerPort: 80", "containerPort: 81"));
    assert_ne!(changed.list[0].key(), found.list[0].key(), "a changed template is another replica");
}

#[test]
fn who_gets_a_sidecar() {
    let check = |namespace: &str, template: &str, expected: Role| {
        let namespace = match namespace {
            "" => String::new(),
            value => format!(
                "apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{istio-injection: {value}}}}}\n---\n"
            ),
        };
        let text = namespace + &deployment(1, template, "image: meltemi");
        assert_eq!(desired_of(&text).list[0].role, expected, "{text}");
    };
    check("", "", Role::Sidecar);
    check("enabled", "", Role::Sidecar);
    check("disabled", "", Role::Plain);
    check("disabled", ", annotations: {sidecar.istio.io/inject: 'true'}", Role::Sidecar);
    check("enabled", ", annotations: {sidecar.istio.io/inject: 'false'}", Role::Plain);
    check("", ", annotations: {inject.istio.io/templates: gateway}", Role::Router);
}

#[test]
fn what_cannot_run_is_said_with_its_place() {
    let check = |container: &str, expected: &str| {
        let found = desired_of(&deployment(1, "", container));
        assert_eq!(found.errors.len(), 1, "{container}: {:?}", found.errors);
        let said = found.errors[0].to_string();
        assert!(said.starts_with("m.yaml:1: error: Deployment shop/web: spec.template.spec.containers[0]"), "{said}");
        assert!(said.contains(expected), "{said}");
    };
    check("image: 'other/app:2'", ".image: image `other/app:2` is unknown on this machine");
    check(
        "image: meltemi, env: [{name: A, valueFrom: {configMapKeyRef: {name: m, key: k}}}]",
        ".env[0].valueFrom: no ConfigMap `m` with key `k` in namespace `shop`",
    );
    check("image: meltemi, envFrom: [{secretRef: {name: s}}]", ".envFrom[0]: no Secret `s` in namespace `shop`");
    check(
        "image: meltemi, env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]",
        "field `status.phase` is not known here",
    );
}

#[test]
fn the_environment_is_filled_in() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: shop}\ndata: {k: v, l: w}\n---\n\
                apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: shop}\nstringData: {p: q}\n---\n"
        .to_owned()
        + &deployment(
            1,
            "",
            "image: meltemi, envFrom: [{prefix: M_, configMapRef: {name: m}}, {configMapRef: {name: gone, optional: true}}], \
             env: [{name: A, valueFrom: {configMapKeyRef: {name: m, key: k}}}, \
             {name: B, valueFrom: {secretKeyRef: {name: s, key: p}}}, \
             {name: C, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, \
             {name: D, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['version']\"}}}]",
        );
    let found = desired_of(&text);
    assert_eq!(found.errors, []);
    let value = |text: &str| EnvValue::Text(text.to_owned());
    let expected = [
        ("M_k", value("v")),
        ("M_l", value("w")),
        ("A", value("v")),
        ("B", value("q")),
        ("C", EnvValue::PodAddress),
        ("D", value("v1")),
    ];
    let expected: Vec<_> = expected.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(found.list[0].containers[0].environment, expected);
}

#[test]
fn the_samples_application_does_not_linger_unless_told_to() {
    let check = |container: &str, expected: &[(&str, &str)]| {
        let found = desired_of(&deployment(1, "", container));
        assert_eq!(found.errors, []);
        let value = |(name, text): &(&str, &str)| ((*name).to_owned(), EnvValue::Text((*text).to_owned()));
        let expected: Vec<_> = expected.iter().map(value).collect();
        assert_eq!(found.list[0].containers[0].environment, expected, "{container}");
    };
    check("image: meltemi, args: [echo]", &[("ECHO_LINGER", "0")]);
    check("image: meltemi, args: [echo], env: [{name: ECHO_LINGER, value: 3s}]", &[("ECHO_LINGER", "3s")]);
    check("image: meltemi, args: [discovery]", &[]);
    check("image: 'team/app:1', args: [echo]", &[]);
}

#[test]
fn references_to_variables_are_expanded() {
    let known = BTreeMap::from([("PORT".to_owned(), "80".to_owned())]);
    let check = |text: &str, expected: &str| assert_eq!(expand(text, &known), expected, "{text}");
    check("--port=$(PORT)", "--port=80");
    check("$(PORT)$(PORT)", "8080");
    check("$$(PORT) $(OTHER) $PORT $", "$(PORT) $(OTHER) $PORT $");
    check("$(PORT", "$(PORT");
}

#[test]
fn a_pod_may_name_the_envoy_that_is_its_proxy() {
    let text = deployment(1, ", annotations: {sidecar.istio.io/proxyImage: IMAGE}", "command: [app]");
    let proxies = |image: &str| {
        let documents = meltemi_config::parse_documents("m.yaml", &text.replace("IMAGE", image));
        let objects: Vec<_> = documents.into_iter().map(|d| d.object.expect("a good document")).collect();
        let table = [("envoy".to_owned(), PathBuf::from("/usr/bin/envoy"))];
        let images = Images::new(table.into_iter().collect(), PathBuf::from("/opt/meltemi"));
        let found = desired(&objects, &images.with_envoy(Some(PathBuf::from("/opt/envoy"))), &MeshConfig::default());
        let proxy = |replica: &Arc<Replica>| replica.envoy.as_ref().map(|path| path.display().to_string());
        let warnings: Vec<_> = found.warnings.iter().map(ToString::to_string).collect();
        (found.list.iter().map(proxy).collect::<Vec<_>>(), warnings)
    };
    let all = Some("/opt/envoy".to_owned());
    assert_eq!(proxies("team/envoy:1.40"), (vec![Some("/usr/bin/envoy".to_owned()), all.clone()], vec![]));
    assert_eq!(proxies("meltemi").0, [None, all.clone()]);
    let (found, warnings) = proxies("docker.io/istio/proxyv2:1.30");
    assert_eq!(found, [all.clone(), all]);
    let path = "warning: Deployment shop/web: spec.template.metadata.annotations.sidecar.istio.io/proxyImage: ";
    assert!(warnings.len() == 1 && warnings[0].contains(path), "{warnings:?}");
}

#[test]
fn a_statefulsets_pods_have_names_of_their_own() {
    let text = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: db, namespace: shop}\nspec:\n  serviceName: data\n  \
                replicas: 2\n  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: meltemi}]}}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: data, namespace: shop}\nspec: {clusterIP: None, selector: {app: db}}\n---\n\
                apiVersion: v1\nkind: Service\nmetadata: {name: other, namespace: shop}\nspec: {clusterIP: None, selector: {app: db}}\n";
    let found = desired_of(text);
    let own = |at: usize| (found.list[at].hostname.as_str(), found.list[at].subdomain.as_str());
    assert_eq!((own(0), own(1)), (("db-0", "data"), ("db-1", "data")));
    let address = |last: u8| std::net::Ipv4Addr::new(10, 244, 0, last);
    let (_, pod) = crate::docs::pod(&found.list[1], address(2), true);
    assert!(pod.contains(r#""hostname":"db-1""#) && pod.contains(r#""subdomain":"data""#), "{pod}");
    let objects: Vec<_> =
        meltemi_config::parse_documents("m.yaml", text).into_iter().filter_map(|document| document.object).collect();
    let ready = [(&*found.list[0], address(1)), (&*found.list[1], address(2))];
    let names = crate::docs::names(&objects, &BTreeMap::new(), ready.into_iter());
    assert_eq!(names["data.shop.svc.cluster.local"], [address(1), address(2)]);
    assert_eq!(names["db-1.data.shop.svc.cluster.local"], [address(2)]);
    assert!(!names.contains_key("db-1.other.shop.svc.cluster.local"), "their names are of one service");
}
