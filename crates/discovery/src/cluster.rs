//! A cluster as what discovery reads from and writes to.
//!
//! Owns what runs beside serving: answers about who may read Secrets, the authority's Secret, entries of registered
//! workloads, and, while this replica leads, roots in namespaces, statuses, and deployments of Gateways. Replicas share nothing
//! but the API server.

mod deployments;
mod external;
mod followed;
mod statuses;
mod union;
mod verdicts;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use meltemi_ca::{Authority, AuthorityOptions, Material, TokenAuthority, TokenReviewer};
use meltemi_config::{Key, Object};
use meltemi_kubernetes::{
    ApiReviews, AuthoritySecrets, Client, Election, EntryWriter, KubernetesStore, Leadership, Reader, Replica,
    SecretAccess, connect, keep_revocations, keep_roots, keep_webhooks,
};
use meltemi_model::Node;
use meltemi_tls::SpiffeId;
use tokio::sync::watch;

use crate::State;
use crate::options::Options;
use crate::registration::Entries;

pub(crate) use self::external::ClusterSigners;
pub use self::external::Signers;
pub(crate) use self::union::Union;

/// The Lease of whoever writes; of other revisions with their name after it.
const LEASE: &str = "meltemi-leader";
const ACCOUNT: &str = "SERVICE_ACCOUNT";

/// How to reach a cluster, and as who.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    /// Absent: as a pod does, or by `KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    pub namespace: String,
    pub revision: String,
    pub pod_name: String,
}

impl Membership {
    fn lease(&self) -> String {
        match self.revision.as_str() {
            "" | "default" => LEASE.to_owned(),
            revision => format!("{LEASE}-{revision}"),
        }
    }
}

/// An API server with all that has been read from it.
pub struct Cluster {
    client: Client,
    pub(crate) store: Arc<KubernetesStore>,
    pub(crate) access: SecretAccess,
    secrets: AuthoritySecrets,
    entries: Arc<EntryWriter>,
    election: Election,
}

impl Cluster {
    /// Connects, and waits until everything has been read once.
    pub(crate) async fn join(membership: Membership) -> Result<Self> {
        let client = connect(membership.kubeconfig.as_deref()).await.context("--kubeconfig")?;
        let reader = Reader { revision: membership.revision.clone(), namespace: membership.namespace.clone() };
        let store = Arc::new(KubernetesStore::start(client.clone(), reader));
        store.ready().await;
        let election = Election::new(client.clone(), &membership.namespace, &membership.lease(), &membership.pod_name);
        Ok(Self {
            access: SecretAccess::new(client.clone()),
            secrets: AuthoritySecrets::new(client.clone(), &membership.namespace),
            entries: Arc::new(store.entries(&Replica {
                namespace: &membership.namespace,
                identity: election.identity(),
                pod: &membership.pod_name,
            })),
            store,
            client,
            election,
        })
    }

    /// The authority whose root the cluster keeps.
    pub(crate) async fn authority(&self, options: AuthorityOptions) -> Result<Authority> {
        let material = self.secrets.material(|| Ok(Material::self_signed(&options)?)).await?;
        Ok(Authority::supplied(&material, options)?)
    }

    /// Has it trust roots that it no longer holds and whose certificates may live.
    pub(crate) async fn recall(&self, authority: &Authority) -> Result<()> {
        Ok(authority.remember(&self.secrets.former().await?, SystemTime::now())?)
    }

    /// Signers of the cluster in place of our own authority.
    pub(crate) fn signers(&self, signers: Signers) -> ClusterSigners {
        ClusterSigners::new(self.client.clone(), signers)
    }

    /// What judges tokens that nobody else does.
    pub(crate) fn tokens(&self, audiences: Vec<String>) -> Arc<dyn TokenAuthority> {
        Arc::new(TokenReviewer::new(ApiReviews(self.client.clone()), audiences))
    }

    /// Where registered workloads are written.
    pub(crate) fn entries(&self) -> Arc<dyn Entries> {
        Arc::new(Written(self.entries.clone()))
    }

    /// Does all of it until told to stop.
    pub(crate) async fn run(&self, state: Arc<State>, stopped: watch::Receiver<bool>) {
        let (leading, leads) = watch::channel(false);
        let mut ended = stopped.clone();
        let stop = async move { drop(ended.wait_for(|stopped| *stopped).await) };
        let electing = self.election.clone().run(leading, stop);
        let working = async {
            let authority = state.options.authority.clone();
            let replica = Leadership { identity: self.election.identity(), leads: leads.clone() };
            tokio::join!(
                self.access.keep(),
                self.secrets.follow(&authority, replica),
                self.entries.run(),
                self.lead(&state, leads),
            )
        };
        let mut ended = stopped;
        let working = async {
            tokio::select! {
                _ = working => {}
                _ = ended.wait_for(|stopped| *stopped) => {}
            }
        };
        tokio::join!(electing, working);
    }

    /// Where they are not turned off, as long as it is awaited.
    async fn keep_revocations(&self, options: &Options) {
        if let Some(map) = &options.revocations_map {
            let lists = || options.authority.bundle().crl.clone();
            keep_revocations((self.client.clone(), map), || self.store.namespaces(), lists).await;
        }
    }

    /// Writes while this replica leads. Never resolves.
    async fn lead(&self, state: &Arc<State>, mut leads: watch::Receiver<bool>) {
        loop {
            // Closed: the election is over, and so are we.
            if leads.wait_for(|leads| *leads).await.is_err() {
                std::future::pending().await
            }
            let writer = self.store.statuses();
            let (store, options) = (&self.store, &state.options);
            let authority = &options.authority;
            let writing = async {
                tokio::join!(
                    keep_roots(
                        (self.client.clone(), &options.roots_map),
                        || store.namespaces(),
                        || options.given.vouching_to_proxies(authority.root_pem()),
                    ),
                    self.keep_revocations(options),
                    statuses::keep(state, &writer),
                    verdicts::keep(store, &writer),
                    deployments::keep(state, store, &self.client),
                    store.sweeper(self.entries.clone(), options.workload_entry_grace).run(),
                    keep_webhooks(self.client.clone(), &options.revision, &options.namespace, || {
                        options.given.vouching(authority.root_pem())
                    }),
                )
            };
            tokio::select! {
                _ = writing => {}
                _ = leads.wait_for(|leads| !*leads) => {}
            }
        }
    }
}

/// The API server as the place of registered workloads.
struct Written(Arc<EntryWriter>);

impl Entries for Written {
    fn put(&self, entry: Object) {
        self.0.put(entry);
    }

    fn remove(&self, key: &Key) {
        self.0.remove(key);
    }
}

/// In a cluster a node is of the account that its transport proved, and of none where it proved nothing, or another namespace:
/// Secrets are given by it.
pub(crate) fn prove(node: &mut Node, identity: Option<&SpiffeId>) {
    match identity.filter(|id| *id.namespace == *node.namespace) {
        Some(id) => drop(node.metadata.insert(ACCOUNT.to_owned(), id.service_account.to_string().into())),
        None => drop(node.metadata.remove(ACCOUNT)),
    }
}

/// The names among these whose Secrets the node may have. What a Gateway of the Gateway API names was granted to it, and takes no
/// permission to read Secrets.
pub(crate) fn permitted(access: &SecretAccess, node: &Node, names: &[Arc<str>]) -> Vec<Arc<str>> {
    let account = node.text(ACCOUNT).filter(|account| !account.is_empty());
    let may = |name: &str| match account {
        None => !name.contains("://"),
        Some(account) => !name.starts_with("kubernetes://") || access.is_granted(&node.namespace, account),
    };
    names.iter().filter(|name| may(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use meltemi_model::NodeDescription;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_of_the_account_that_was_proven_and_of_none_otherwise() {
        let node = || {
            let id = "router~10.0.0.1~gw-1.edge~edge.svc.cluster.local".to_owned();
            let metadata = json!({ "NAMESPACE": "edge", ACCOUNT: "claimed" }).as_object().cloned().unwrap();
            Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap()
        };
        for (identity, expected) in [
            (Some("spiffe://cluster.local/ns/edge/sa/gateway"), Some("gateway")),
            (Some("spiffe://cluster.local/ns/other/sa/gateway"), None),
            (None, None),
        ] {
            let (mut node, id) = (node(), identity.map(|id| id.parse().unwrap()));
            prove(&mut node, id.as_ref());
            assert_eq!(node.text(ACCOUNT), expected, "{identity:?}");
        }
    }
}
