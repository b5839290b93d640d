use std::future::poll_fn;

use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::LocalSet,
};

use super::*;
use crate::RequestHead;

const KEY: Key = Key { endpoint: 1, transport: 0, mode: Mode::Http1 };

/// Counts the connections that live.
struct Counted(Rc<Cell<usize>>);

impl Guard for Counted {}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection whose peer answers everything with 204, until it has answered `times`.
fn connection(live: &Rc<Cell<usize>>, times: usize) -> Connected {
    let (near, mut far) = Stream::pair(4096);
    tokio::task::spawn_local(async move {
        let mut buffer = [0; 4096];
        for _ in 0..times {
            if far.read(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
            far.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    });
    live.set(live.get() + 1);
    Connected { stream: near, guard: Box::new(Counted(Rc::clone(live))), note: None }
}

async fn exchange(stream: &mut ClientStream) {
    stream.send_head(&RequestHead::new(Method::GET, "a", "/"), true);
    poll_fn(|cx| stream.poll_flush(cx)).await.unwrap();
    assert_eq!(poll_fn(|cx| stream.poll_response(cx)).await.unwrap().status, StatusCode::NO_CONTENT);
}

fn pool(options: Options) -> (Pools, Rc<Pool>) {
    let pools = Pools::new();
    let pool = pools.pool(KEY, || Rc::new(options));
    (pools, pool)
}

#[tokio::test]
async fn the_last_connection_returned_is_the_first_used() {
    let test = async {
        let live = Rc::new(Cell::new(0));
        let (_pools, pool) = pool(Options::default());
        let ready = |c: Connected| async { Ok(c) };
        let mut a = pool.open(ready(connection(&live, 9))).await.unwrap().unwrap();
        let mut b = pool.open(ready(connection(&live, 9))).await.unwrap().unwrap();
        exchange(&mut a).await;
        exchange(&mut b).await;
        let (first, second) = (a.facts().id, b.facts().id);
        drop(b);
        drop(a);
        let (one, two) = (pool.try_stream().unwrap(), pool.try_stream().unwrap());
        assert_eq!((one.facts().id, two.facts().id), (first, second));
        assert!(pool.try_stream().is_none());
        // What went unused is as clean as before.
        drop((one, two));
        assert_eq!((pool.connections(), live.get()), (2, 2));
        assert!(pool.try_stream().is_some());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn connections_end_by_request_count_by_the_peer_and_by_the_sweep() {
    let test = async {
        let live = Rc::new(Cell::new(0));
        let (_pools, pool) = pool(Options { max_requests_per_connection: 2, ..Options::default() });
        let mut stream = pool
            .open({
                let connected = connection(&live, 9);
                async { Ok(connected) }
            })
            .await
            .unwrap()
            .unwrap();
        exchange(&mut stream).await;
        drop(stream);
        let mut stream = pool.try_stream().unwrap();
        exchange(&mut stream).await;
        drop(stream);
        assert_eq!((pool.connections(), live.get()), (0, 0), "two requests are the limit");

        let (pools, pool) = self::pool(Options { idle_timeout: Some(Duration::ZERO), ..Options::default() });
        let connected = connection(&live, 1);
        let mut stream = pool.open(async { Ok(connected) }).await.unwrap().unwrap();
        exchange(&mut stream).await;
        drop(stream);
        assert_eq!(pool.connections(), 1);
        pools.sweep();
        assert_eq!((pool.connections(), live.get()), (0, 0), "idle for longer than allowed");

        let (_pools, pool) = self::pool(Options::default());
        let connected = connection(&live, 1);
        let mut stream = pool.open(async { Ok(connected) }).await.unwrap().unwrap();
        exchange(&mut stream).await;
        drop(stream);
        tokio::task::yield_now().await;
        assert!(pool.try_stream().is_none(), "the peer closed it");
        assert_eq!(live.get(), 0);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn waiters_are_served_in_order_and_one_that_leaves_passes_its_turn_on() {
    let test = async {
        let live = Rc::new(Cell::new(0));
        let (_pools, pool) = pool(Options::default());
        let connected = connection(&live, 9);
        let mut busy = pool.open(async { Ok(connected) }).await.unwrap().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        let mut tasks = Vec::new();
        for n in 0..3 {
            let (pool, order) = (Rc::clone(&pool), Rc::clone(&order));
            tasks.push(tokio::task::spawn_local(async move {
                pool.wait().await.unwrap();
                let mut stream = pool.try_stream().unwrap();
                order.borrow_mut().push(n);
                exchange(&mut stream).await;
            }));
            tokio::task::yield_now().await;
        }
        tasks[0].abort();
        exchange(&mut busy).await;
        drop(busy);
        for task in tasks.drain(1..) {
            tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
        }
        assert_eq!(*order.borrow(), [1, 2]);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_failed_connection_is_not_counted() {
    let (_pools, pool) = pool(Options::default());
    let failed = pool.open(async { Err(ConnectError::Timeout) }).await;
    assert!(matches!(failed, Err(ConnectError::Timeout)));
    assert_eq!(pool.connections(), 0);
}
