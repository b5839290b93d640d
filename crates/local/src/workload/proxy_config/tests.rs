use super::*;

fn objects(text: &str) -> Vec<Object> {
    let documents = meltemi_config::parse_documents("m.yaml", text);
    documents.into_iter().map(|d| d.object.unwrap_or_else(|| panic!("{:?}", d.problems))).collect()
}

fn document(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// What a pod of the namespace with `app: web` is told.
fn told(documents: &str, mesh: &str, namespace: &str, annotation: Option<&str>) -> Value {
    let mesh = meltemi_config::parse_mesh_config("mesh.yaml", mesh).unwrap_or_else(|problems| panic!("{problems:?}"));
    let objects = objects(documents);
    let annotations = annotation.map_or_else(BTreeMap::new, |text| map(&[(ANNOTATION, text)]));
    let text = ProxyConfigs::of(&objects, &mesh.value).effective(namespace, &map(&[("app", "web")]), &annotations);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn the_more_particular_comes_after_the_more_general() {
    let documents = document("root", "istio-system", "concurrency: 2, environmentVariables: {ROOT: r, WHO: root}")
        + &document("all", "shop", "concurrency: 3, environmentVariables: {ALL: a, WHO: all}")
        + &document("web", "shop", "selector: {matchLabels: {app: web}}, environmentVariables: {WEB: w, WHO: web}")
        + &document("other", "shop", "selector: {matchLabels: {app: other}}, concurrency: 9");
    let mesh = "defaultConfig: {concurrency: 7, proxyMetadata: {MESH: m, WHO: mesh}}";
    let base = |concurrency: u32, variables: Value| json!({"concurrency": concurrency, "terminationDrainDuration": "1s", "proxyMetadata": variables});
    assert_eq!(told("", mesh, "shop", None), base(7, json!({"MESH": "m", "WHO": "mesh"})));
    let elsewhere = base(2, json!({"MESH": "m", "ROOT": "r", "WHO": "root"}));
    assert_eq!(told(&documents, mesh, "elsewhere", None), elsewhere);
    assert_eq!(told(&documents, mesh, "istio-system", None), elsewhere, "the root's own is not merged twice");
    let shop = json!({"MESH": "m", "ROOT": "r", "ALL": "a", "WEB": "w", "WHO": "web"});
    assert_eq!(told(&documents, mesh, "shop", None), base(3, shop));
}

#[test]
fn a_selecting_config_wins_over_the_annotation_and_that_over_the_rest() {
    let all = document("all", "shop", "concurrency: 3, environmentVariables: {WHO: all}");
    let web = document("web", "shop", "selector: {matchLabels: {app: web}}, environmentVariables: {WHO: web}");
    let annotation = Some("concurrency: 4\nproxyMetadata: {WHO: pod, POD: p}\ndrainDuration: 9s");
    let expected =
        |who: &str| json!({"concurrency": 4, "drainDuration": "9s", "proxyMetadata": {"WHO": who, "POD": "p"}});
    assert_eq!(told(&all, "{}", "shop", annotation), expected("pod"));
    assert_eq!(told(&(all + &web), "{}", "shop", annotation), expected("web"));
}

#[test]
fn of_two_that_fit_the_older_counts() {
    let made = |name: &str, year: u32, spec: &str| {
        let meta = format!("creationTimestamp: '{year}-01-01T00:00:00Z', name: {name},");
        document(name, "shop", spec).replace(&format!("name: {name},"), &meta)
    };
    let text = made("a", 2021, "concurrency: 5") + &made("b", 2020, "concurrency: 6");
    assert_eq!(told(&text, "{}", "shop", None)["concurrency"], 6);
}

#[test]
fn an_annotation_that_is_no_map_is_left_for_the_agent() {
    let annotations = map(&[(ANNOTATION, "5")]);
    let mesh = MeshConfig::default();
    assert_eq!(ProxyConfigs::of(&[], &mesh).effective("a", &BTreeMap::new(), &annotations), "5");
}

#[test]
fn a_replica_that_registers_itself_has_the_probe_of_its_group() {
    let group = "---\napiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: vm, namespace: shop}\n\
                 spec: {template: {ports: {http: 80}}, probe: {periodSeconds: 3, tcpSocket: {port: 80}}}\n";
    let of_group = json!({"periodSeconds": 3, "tcpSocket": {"port": 80}});
    let registers = "proxyMetadata: {ISTIO_META_AUTO_REGISTER_GROUP: vm}";
    let own = format!("{registers}\nreadinessProbe: {{tcpSocket: {{port: 9}}}}");
    let probe = |namespace: &str, mesh: &str, annotation: &str| {
        told(group, mesh, namespace, Some(annotation)).get("readinessProbe").cloned()
    };
    assert_eq!(probe("shop", "{}", registers), Some(of_group));
    assert_eq!(probe("shop", "{}", &own), Some(json!({"tcpSocket": {"port": 9}})));
    assert_eq!(probe("elsewhere", "{}", registers), None);
    assert_eq!(probe("shop", "{}", "concurrency: 1"), None);
    let mesh = "defaultConfig: {readinessProbe: {tcpSocket: {port: 7}}}";
    assert_eq!(probe("shop", mesh, "concurrency: 1"), Some(json!({"tcpSocket": {"port": 7}})));
}
