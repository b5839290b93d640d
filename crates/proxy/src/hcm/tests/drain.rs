//! Listeners that leave, close or change while connections are open.

use super::*;

local_test! {
async fn drain_finishes_what_is_open_and_closes_what_is_idle() {
    let (port, _) = host(|_| ok("x")).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let (mut idle, mut busy) = (connect(&running).await, connect(&running).await);
    ask(&mut idle, GET).await;
    // With its answer there, what came along with the request has been read, too.
    ask(&mut busy, &format!("{GET}GET /x HTTP/1.1\r\nHo")).await;
    running.phase.send_replace(Phase::Draining);
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty());
    let answer = ask(&mut busy, "st: a\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close\r\n"), "{answer}");
    drop((busy, idle));
    tokio::time::timeout(Duration::from_secs(5), running.worker).await.unwrap().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", running.port)).await.is_err(), "nothing listens any more");
}
}

local_test! {
async fn who_leaves_still_accepts_and_asks_to_come_back_elsewhere() {
    let (port, _) = host(|_| ok("x")).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut open = connect(&running).await;
    ask(&mut open, GET).await;
    running.phase.send_replace(Phase::Leaving(Reach::All));
    let mut asked = 0;
    // The worker needs a turn to hear of it.
    while !ask(&mut connect(&running).await, GET).await.contains("connection: close\r\n") {
        asked += 1;
        assert!(asked < 100, "a new connection was not asked to close");
    }
    let answer = ask(&mut open, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close\r\n"), "{answer}");
}
}

local_test! {
async fn a_closed_listener_serves_what_is_open_and_others_are_left_alone() {
    let (port, _) = host(|_| ok("x")).await;
    let running = start("{match: {prefix: /}, route: {cluster: c}}", &cluster("c", &[port], "")).await;
    let mut open = connect(&running).await;
    ask(&mut open, GET).await;
    // The listener has no direction.
    running.phase.send_replace(Phase::Closed(Reach::Inbound));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(ask(&mut connect(&running).await, GET).await.starts_with("HTTP/1.1 200 OK"));
    running.phase.send_replace(Phase::Closed(Reach::All));
    while TcpStream::connect(("127.0.0.1", running.port)).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let answer = ask(&mut open, GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && !answer.contains("connection: close"), "{answer}");
}
}

local_test! {
async fn an_update_of_the_listener_loses_no_request() {
    let (port, _) = host(|_| ok("x")).await;
    let routes = "{match: {prefix: /}, route: {cluster: c}}";
    let mut running = start(routes, &cluster("c", &[port], "")).await;
    let (stop, served) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0usize)));
    let clients: Vec<_> = (0..4).map(|_| {
        let (stop, served, proxy) = (Rc::clone(&stop), Rc::clone(&served), running.port);
        tokio::task::spawn_local(async move {
            while !stop.get() {
                let mut stream = TcpStream::connect(("127.0.0.1", proxy)).await.unwrap();
                loop {
                    let answer = ask(&mut stream, GET).await;
                    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
                    served.set(served.get() + 1);
                    if answer.contains("connection: close") || stop.get() {
                        break;
                    }
                }
            }
        })
    }).collect();
    for n in 0..10 {
        let enough = served.get() + 8;
        let some = async {
            while served.get() < enough {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), some).await.unwrap();
        let listener = LISTENER.replace("ROUTES", routes).replace("stat_prefix: h", &format!("stat_prefix: h{n}"));
        let plan = parse(&listener, &cluster("c", &[port], ""));
        running.configurator.set_listener(held(plan.listeners[0].clone())).unwrap();
        running.configurator.publish();
    }
    stop.set(true);
    for client in clients {
        client.await.unwrap();
    }
}
}
