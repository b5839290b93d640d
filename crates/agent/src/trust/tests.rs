use super::*;
use crate::environment::{Role, Settings, Variables};
use crate::upstream::ControlPlane;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, TlsCertificate};

use meltemi_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use meltemi_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use meltemi_xds::client::Target;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

fn inline(text: &str) -> Option<DataSource> {
    let specifier = Some(Specifier::InlineBytes(text.as_bytes().to_vec().into()));
    Some(DataSource { specifier, ..DataSource::default() })
}

fn context(trusted_ca: Option<DataSource>, crl: Option<DataSource>) -> Secret {
    let context = CertificateValidationContext { trusted_ca, crl, ..CertificateValidationContext::default() };
    Secret { name: ROOT_CA.to_owned(), r#type: Some(Type::ValidationContext(context)) }
}

#[test]
fn a_bundle_is_roots_and_perhaps_revocation_lists_in_the_message_itself() {
    let bundle_of = |roots: &str, crl: &str| TrustBundle {
        roots_pem: roots.to_owned(),
        crl_pem: crl.to_owned(),
        ..TrustBundle::default()
    };
    assert_eq!(bundle(context(inline("roots"), None)), Ok(bundle_of("roots", "")));
    assert_eq!(bundle(context(inline("roots"), inline("lists"))), Ok(bundle_of("roots", "lists")));
    let file = || {
        let specifier = Some(Specifier::Filename("/etc/passwd".to_owned()));
        Some(DataSource { specifier, ..DataSource::default() })
    };
    let certificate = Some(Type::TlsCertificate(TlsCertificate::default()));
    for (name, secret) in [
        ("no roots", context(None, None)),
        ("roots in a file", context(file(), None)),
        ("lists in a file", context(inline("roots"), file())),
        ("a certificate", Secret { name: ROOT_CA.to_owned(), r#type: certificate }),
        ("nothing", Secret::default()),
    ] {
        assert!(bundle(secret).is_err(), "{name}");
    }
}

#[test]
fn trust_domains_with_roots_of_their_own_come_by_envoy_s_validator() {
    let domains: BTreeMap<String, String> =
        [("own", "one"), ("old", "two")].map(|(name, roots)| (name.to_owned(), roots.to_owned())).into();
    let mut secret = context(inline("one"), None);
    let Some(Type::ValidationContext(context)) = &mut secret.r#type else { panic!("a context") };
    context.custom_validator_config = validator(&domains, "lists");
    let found = bundle(secret.clone()).unwrap();
    assert_eq!(found.domains.keys().collect::<Vec<_>>(), ["old", "own"]);
    assert_eq!(found.domains["old"], "two\nlists");
    let Some(Type::ValidationContext(context)) = &mut secret.r#type else { panic!("a context") };
    context.custom_validator_config.as_mut().unwrap().name = "another".to_owned();
    assert!(bundle(secret).is_err(), "rules that this agent does not know are not left out");
    assert_eq!(validator(&BTreeMap::new(), "lists"), None);
}

/// How long a request that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

/// Discovery whose streams are open when it is told so, as those of Istio's are with their first response.
struct Late {
    open: Arc<Notify>,
    /// What came before the stream was open, and after.
    requests: mpsc::Sender<(bool, DeltaDiscoveryRequest)>,
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Late {
    type StreamAggregatedResourcesStream = ReceiverStream<Result<DiscoveryResponse, Status>>;
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("incremental alone"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let mut stream = request.into_inner();
        tokio::select! {
            Ok(Some(early)) = stream.message() => drop(self.requests.send((false, early)).await),
            () = self.open.notified() => {}
        }
        let (requests, (sender, responses)) = (self.requests.clone(), mpsc::channel(1));
        tokio::spawn(async move {
            let _open = sender;
            while let Ok(Some(request)) = stream.message().await {
                if requests.send((true, request)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tokio::test]
async fn only_who_answers_a_stream_at_once_is_asked_for_roots() {
    let (open, (sender, mut requests)) = (Arc::new(Notify::new()), mpsc::channel(8));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap().to_string());
    let late = AggregatedDiscoveryServiceServer::new(Late { open: open.clone(), requests: sender });
    let server = tonic::transport::Server::builder().add_service(late);
    let serving = tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let variables = Variables::from_pairs([("POD_NAME", "a"), ("INSTANCE_IP", "127.0.0.1")]);
    let settings = Settings::from_variables(Role::Sidecar, None, &variables).unwrap();
    let keeper = Arc::new(IdentityKeeper::new(Arc::new(ControlPlane::new(&settings)), &settings));
    let following = tokio::spawn(follow(Options::new(target, Node::default()), keeper));

    let silence = tokio::time::timeout(SILENCE, requests.recv()).await;
    assert!(silence.is_err(), "asked before it answered: {silence:?}");
    open.notify_one();
    let (is_open, request) = tokio::time::timeout(PATIENCE, requests.recv()).await.expect("in time").unwrap();
    assert!(is_open);
    assert_eq!((&*request.type_url, &*request.resource_names_subscribe), (SECRET, &[ROOT_CA.to_owned()][..]));
    following.abort();
    serving.abort();
}
