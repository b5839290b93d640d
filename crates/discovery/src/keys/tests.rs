use std::collections::HashMap;
use std::sync::Mutex;

use anyhow::anyhow;
use meltemi_model::Options;

use super::*;

/// What each issuer answers now; none: it cannot be reached.
#[derive(Clone, Default)]
struct Issuers(Arc<Mutex<HashMap<String, Str>>>);

impl Issuers {
    fn answer(&self, issuer: &str, keys: Option<&str>) {
        let mut all = self.0.lock().unwrap();
        match keys {
            Some(keys) => drop(all.insert(issuer.to_owned(), keys.into())),
            None => drop(all.remove(issuer)),
        }
    }
}

impl Fetch for Issuers {
    async fn fetch(&self, source: &KeySource) -> anyhow::Result<Str> {
        if &*source.issuer == "silent" {
            std::future::pending::<()>().await;
        }
        self.0.lock().unwrap().get(&*source.issuer).cloned().ok_or_else(|| anyhow!("no answer"))
    }
}

fn source(issuer: &str) -> KeySource {
    KeySource { issuer: issuer.into(), uri: "".into() }
}

fn of(issuers: &[&str]) -> Wanted {
    issuers.iter().map(|issuer| (source(issuer), DEFAULT_TIMEOUT)).collect()
}

struct Setup {
    issuers: Issuers,
    registry: Registry,
    want: watch::Sender<Wanted>,
    found: mpsc::Receiver<KeyChanges>,
}

impl Setup {
    fn new(wanted: &[&str]) -> Self {
        let (issuers, registry) = (Issuers::default(), Registry::new());
        let (want, receiver) = watch::channel(of(wanted));
        let (sender, found) = mpsc::channel(1);
        let resolver = Resolver::new(issuers.clone(), DEFAULT_INTERVAL, KeyStats::new(&registry), sender);
        tokio::spawn(resolver.run(receiver));
        Self { issuers, registry, want, found }
    }

    /// The next change, and how long it took to come.
    async fn next(&mut self) -> (String, Option<String>, Duration) {
        let begun = Instant::now();
        let changes = self.found.recv().await.unwrap();
        let [(source, keys)] = changes.as_slice() else { panic!("{changes:?}") };
        (source.issuer.to_string(), keys.as_ref().map(ToString::to_string), begun.elapsed())
    }

    /// Nothing comes for this long.
    async fn quiet(&mut self, time: Duration) {
        let came = tokio::time::timeout(time, self.found.recv()).await;
        assert!(came.is_err(), "{came:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_keys_are_told_and_the_last_good_ones_stay_while_an_issuer_is_away() {
    let mut setup = Setup::new(&[]);
    setup.issuers.answer("a", Some("one"));
    setup.want.send(of(&["a"])).unwrap();
    let (issuer, keys, time) = setup.next().await;
    assert_eq!((issuer.as_str(), keys.as_deref()), ("a", Some("one")));
    assert!(time < DEFAULT_INTERVAL, "{time:?}");
    // The same again is no news.
    setup.quiet(DEFAULT_INTERVAL * 3).await;
    setup.issuers.answer("a", Some("two"));
    let (_, keys, time) = setup.next().await;
    assert_eq!(keys.as_deref(), Some("two"));
    assert!(time <= DEFAULT_INTERVAL, "{time:?}");
    // Away for days, and nobody is told that there are no keys.
    setup.issuers.answer("a", None);
    setup.quiet(Duration::from_secs(6 * 24 * 3600)).await;
    let (_, keys, time) = setup.next().await;
    assert_eq!(keys, None);
    assert!(time < Duration::from_secs(2 * 24 * 3600), "{time:?}");
    setup.issuers.answer("a", Some("three"));
    assert_eq!(setup.next().await.1.as_deref(), Some("three"));
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_fails_or_says_nothing_is_tried_again_and_holds_up_no_other() {
    let mut setup = Setup::new(&["bad", "good", "silent"]);
    setup.issuers.answer("good", Some("keys"));
    let (issuer, _, time) = setup.next().await;
    assert_eq!(issuer, "good");
    assert!(time < FIRST_RETRY, "{time:?}");
    setup.quiet(Duration::from_secs(60)).await;
    let text = setup.registry.prometheus(&meltemi_telemetry::metrics::Filter::default());
    let failures = text.lines().find_map(|line| line.strip_prefix("pilot_jwks_resolver_network_fetch_fail_total "));
    let failures: usize = failures.unwrap().parse().unwrap();
    assert!((8..=40).contains(&failures), "{failures} failures of two issuers in a minute");
    setup.issuers.answer("bad", Some("late"));
    let (issuer, _, time) = setup.next().await;
    assert_eq!(issuer, "bad");
    assert!(time < Duration::from_secs(120), "{time:?}");
}

#[tokio::test(start_paused = true)]
async fn keys_that_no_policy_names_any_more_are_forgotten() {
    let mut setup = Setup::new(&["a"]);
    setup.issuers.answer("a", Some("one"));
    setup.next().await;
    setup.want.send(of(&[])).unwrap();
    assert_eq!(setup.next().await.1, None);
    setup.quiet(DEFAULT_INTERVAL * 2).await;
    setup.want.send(of(&["a"])).unwrap();
    assert_eq!(setup.next().await.1.as_deref(), Some("one"));
}

#[tokio::test(start_paused = true)]
async fn only_so_many_fetches_run_at_once_and_all_come_in_turn() {
    let names: Vec<String> = (0..3 * MAX_RUNNING).map(|index| format!("i{index}")).collect();
    let mut setup = Setup::new(&[]);
    names.iter().for_each(|name| setup.issuers.answer(name, Some("keys")));
    setup.want.send(of(&names.iter().map(String::as_str).collect::<Vec<_>>())).unwrap();
    let mut found = std::collections::BTreeSet::new();
    while found.len() < names.len() {
        found.insert(setup.next().await.0);
    }
}

#[test]
fn the_mode_says_which_sources_are_the_control_planes() {
    let yaml = "
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: a}
spec:
  jwtRules:
  - {issuer: inline, jwks: '{\"keys\":[]}'}
  - {issuer: uri, jwksUri: 'http://k/', timeout: 1h}
  - {issuer: discovered}
  - {issuer: uri, jwksUri: 'http://k/', audiences: [a]}
";
    let objects = meltemi_config::objects("test.yaml", yaml).unwrap();
    let mut registry = meltemi_registry::Registry::default();
    let update = registry.load(&objects);
    let of_mode = |key_fetch: KeyFetch| {
        let snapshot = Snapshot::build(Options { key_fetch, ..Options::default() }, &update);
        let found = wanted(&snapshot);
        found.into_iter().map(|(source, timeout)| (source.issuer.to_string(), timeout)).collect::<Vec<_>>()
    };
    let discovered = ("discovered".to_owned(), DEFAULT_TIMEOUT);
    let both = [discovered.clone(), ("uri".to_owned(), LONGEST_TIMEOUT)];
    assert_eq!(of_mode(KeyFetch::ControlPlane), both);
    assert_eq!(of_mode(KeyFetch::Hybrid), both);
    assert_eq!(of_mode(KeyFetch::Proxy), [discovered]);
}
