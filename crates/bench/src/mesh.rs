//! The configuration folder of a synthetic mesh: services of two endpoints each, a file each, some to a namespace.

use crate::fleet::Wanted;
use anyhow::Result;
use meltemi_xds::types;
use std::fmt::Write as _;
use std::path::Path;

/// Services of a namespace, in a mesh where all proxies see all of them and in one where a Sidecar bounds each namespace to its
/// own.
const UNSCOPED: usize = 10;
const SCOPED: usize = 5;

pub struct Mesh {
    folder: tempfile::TempDir,
    services: usize,
    per_namespace: usize,
    changes: usize,
}

/// A service of namespace `ns`; `generation` moves its first endpoint.
fn service(number: usize, ns: usize, generation: usize) -> String {
    let (a, b) = (number / 250 % 250, number % 250);
    let first = 1 + generation % 200;
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: svc-{number}, namespace: ns-{ns}}}\nspec: {{clusterIP: 10.{}.{a}.{}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: svc-{number}-1, namespace: ns-{ns}, labels: {{kubernetes.io/service-name: svc-{number}}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}]\nendpoints: [{{addresses: [172.16.{a}.{first}], conditions: {{ready: true}}}}, {{addresses: [172.17.{a}.{}], conditions: {{ready: true}}}}]\n",
        96 + number / 62_500,
        b + 1,
        b + 1,
    )
}

/// The host whose endpoints and rule change.
const HOST: &str = "svc-0.ns-0.svc.cluster.local";

fn route(generation: usize) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: changing, namespace: ns-0}}\nspec:\n  hosts: [{HOST}]\n  http: [{{timeout: {}s, route: [{{destination: {{host: {HOST}}}}}]}}]\n",
        1 + generation,
    )
}

impl Mesh {
    pub fn new(services: usize, scoped: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let per_namespace = if scoped { SCOPED } else { UNSCOPED };
        for number in 0..services {
            let text = service(number, number / per_namespace, 0);
            std::fs::write(folder.path().join(format!("svc-{number}.yaml")), text)?;
        }
        if scoped {
            let mut text = String::new();
            for ns in 0..services.div_ceil(per_namespace) {
                write!(
                    text,
                    "---\napiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: default, namespace: ns-{ns}}}\nspec: {{egress: [{{hosts: [\"./*\"]}}]}}\n"
                )?;
            }
            std::fs::write(folder.path().join("sidecars.yaml"), text)?;
        }
        std::fs::write(folder.path().join("route.yaml"), route(0))?;
        Ok(Self { folder, services, per_namespace, changes: 0 })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn namespaces(&self) -> Vec<String> {
        (0..self.services.div_ceil(self.per_namespace)).map(|ns| format!("ns-{ns}")).collect()
    }

    /// Written beside and moved, as a Kubernetes volume or an editor does.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let part = self.folder.path().join(format!(".{name}.part"));
        std::fs::write(&part, text)?;
        std::fs::rename(part, self.folder.path().join(name))?;
        Ok(())
    }

    pub fn change_endpoint(&mut self) -> Result<Wanted> {
        self.changes += 1;
        self.write("svc-0.yaml", &service(0, 0, self.changes))?;
        Ok(Wanted { type_url: types::ENDPOINT, name: format!("outbound|80||{HOST}") })
    }

    pub fn change_route(&mut self) -> Result<Wanted> {
        self.changes += 1;
        self.write("route.yaml", &route(self.changes))?;
        Ok(Wanted { type_url: types::ROUTE, name: "80".to_owned() })
    }

    /// In the first namespace, so that scoped proxies see it too.
    pub fn add_service(&mut self) -> Result<Wanted> {
        let number = self.services;
        self.services += 1;
        self.write(&format!("svc-{number}.yaml"), &service(number, 0, 0))?;
        Ok(Wanted { type_url: types::CLUSTER, name: format!("outbound|80||svc-{number}.ns-0.svc.cluster.local") })
    }
}
