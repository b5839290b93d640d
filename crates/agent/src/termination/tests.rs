use super::*;
use crate::environment::{Role, Variables};
use crate::status::Told;
use std::collections::VecDeque;
use std::sync::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A proxy whose clients are counted by what is left in the list, and that keeps what it was told.
#[derive(Default)]
struct Fake {
    clients: Mutex<VecDeque<Result<u64, String>>>,
    told: Mutex<Vec<&'static str>>,
}

impl ProxyState for Fake {
    fn ready(&self) -> Told<'_, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn metrics(&self) -> Told<'_, String> {
        Box::pin(std::future::ready(String::new()))
    }

    fn connections(&self) -> Told<'_, Result<u64, String>> {
        let next = self.clients.lock().unwrap().pop_front();
        Box::pin(std::future::ready(next.unwrap_or(Ok(0))))
    }

    fn drain(&self) -> Told<'_, ()> {
        self.told.lock().unwrap().push("drain");
        Box::pin(std::future::ready(()))
    }

    fn ending(&self) {
        self.told.lock().unwrap().push("ending");
    }
}

fn termination(variables: &[(&str, &str)], clients: Vec<Result<u64, String>>) -> (Arc<Fake>, Arc<Termination>) {
    let basic = [("POD_NAME", "app-1"), ("INSTANCE_IP", "10.0.0.1")];
    let variables = Variables::from_pairs(basic.into_iter().chain(variables.iter().copied()));
    let settings = Settings::from_variables(Role::Sidecar, None, &variables).unwrap();
    let fake = Arc::new(Fake { clients: Mutex::new(clients.into()), ..Fake::default() });
    let proxy: Arc<dyn ProxyState> = Arc::clone(&fake) as _;
    (fake, Termination::new(proxy, &settings))
}

async fn seconds_from_sigterm(
    variables: &[(&str, &str)],
    clients: Vec<Result<u64, String>>,
) -> (f64, Vec<&'static str>) {
    let (fake, termination) = termination(variables, clients);
    let began = Instant::now();
    termination.due(std::future::ready(())).await;
    let told = fake.told.lock().unwrap().clone();
    (began.elapsed().as_secs_f64(), told)
}

#[tokio::test(start_paused = true)]
async fn sigterm_begins_a_drain_and_its_wait() {
    let failed = || Err("nothing".to_owned());
    let on_zero = ("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true");
    for (variables, clients, seconds) in [
        (&[][..], vec![], 5.0),
        (&[("PROXY_CONFIG", "terminationDrainDuration: 20s")], vec![], 20.0),
        (
            &[("PROXY_CONFIG", "terminationDrainDuration: 20s"), ("TERMINATION_DRAIN_DURATION_SECONDS", "7")],
            vec![],
            7.0,
        ),
        (&[on_zero], vec![], 5.0),
        (&[on_zero, ("MINIMUM_DRAIN_DURATION", "2s")], vec![Ok(3), Ok(1), Ok(0)], 4.0),
        (&[("PROXY_CONFIG", "proxyMetadata: {EXIT_ON_ZERO_ACTIVE_CONNECTIONS: 'true'}")], vec![Ok(1)], 6.0),
        // A proxy that does not tell is not waited for endlessly, but for a single failure.
        (&[on_zero], vec![failed(), Ok(1), Ok(0)], 7.0),
        (&[on_zero], vec![failed(), failed(), failed(), failed(), failed(), Ok(1)], 10.0),
    ] {
        let (took, told) = seconds_from_sigterm(variables, clients).await;
        assert!((took - seconds).abs() < 0.1, "{variables:?}: {took}");
        assert_eq!(told, ["ending", "drain"], "{variables:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drained_proxy_ends_at_sigterm_and_not_before() {
    let (fake, termination) = termination(&[], vec![]);
    let (stop, stopped) = oneshot::channel::<()>();
    let ending = Arc::clone(&termination);
    let ending = tokio::spawn(async move { ending.due(async { drop(stopped.await) }).await });
    termination.drain().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(!ending.is_finished());
    let began = Instant::now();
    stop.send(()).unwrap();
    ending.await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100));
    // It was ready all the time: the application served.
    assert_eq!(*fake.told.lock().unwrap(), ["drain"]);
}

#[tokio::test(start_paused = true)]
async fn an_order_to_quit_waits_for_nothing() {
    let (fake, before) = termination(&[], vec![]);
    before.quit();
    let began = Instant::now();
    before.due(std::future::pending()).await;
    assert!(began.elapsed() < Duration::from_millis(100));
    assert!(fake.told.lock().unwrap().is_empty());

    // During the wait, too.
    let (_, during) = termination(&[("PROXY_CONFIG", "terminationDrainDuration: 3600s")], vec![]);
    let ending = Arc::clone(&during);
    let ending = tokio::spawn(async move { ending.due(std::future::ready(())).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    during.quit();
    ending.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[test]
fn clients_are_counted_by_listener() {
    let stats = "\
http.inbound_0.0.0.0_15006.downstream_cx_active: 9
listener.0.0.0.0_15006.downstream_cx_active: 2
listener.0.0.0.0_15006.worker_0.downstream_cx_active: 2
listener.[__]_15001.downstream_cx_active: 1
listener.0.0.0.0_15021.downstream_cx_active: 4
listener.0.0.0.0_15090.downstream_cx_active: 4
listener.admin.downstream_cx_active: 1
listener.admin.main_thread.downstream_cx_active: 1
listener.envoy_internal_connect_originate.downstream_cx_active: 5
";
    assert_eq!(connections(stats, &[15021, 15090]), 3);
    assert_eq!(connections("", &[]), 0);
}

#[test]
fn wrong_variables_are_refused_by_name() {
    for (name, value) in [("MINIMUM_DRAIN_DURATION", "5"), ("TERMINATION_DRAIN_DURATION_SECONDS", "5s")] {
        let variables = Variables::from_pairs([("POD_NAME", "a"), ("INSTANCE_IP", "10.0.0.1"), (name, value)]);
        let error = Settings::from_variables(Role::Sidecar, None, &variables).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(value), "{error}");
    }
}
