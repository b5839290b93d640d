use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::net::TcpListener;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);

/// As much of a Redis as a counter needs, which says what it was told.
#[derive(Default)]
struct Fake {
    counts: Mutex<HashMap<String, i64>>,
    expiries: Mutex<HashMap<String, i64>>,
    connections: AtomicUsize,
    password: Option<&'static str>,
    /// Closes each connection after so many commands.
    hangs_up_after: Option<usize>,
}

impl Fake {
    async fn start(self) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let fake = Arc::new(self);
        let serving = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                serving.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        (fake, address)
    }

    fn answer(&self, words: &[String], admitted: &mut bool) -> String {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match &words[..] {
            ["AUTH", rest @ ..] => {
                *admitted = rest.last().copied() == self.password;
                if *admitted { "+OK\r\n".into() } else { "-WRONGPASS invalid\r\n".into() }
            }
            _ if !*admitted => "-NOAUTH Authentication required.\r\n".into(),
            ["INCRBY", key, amount] => {
                let mut counts = self.counts.lock();
                let count = counts.entry((*key).to_owned()).or_default();
                match count.checked_add(amount.parse().unwrap()) {
                    Some(sum) => {
                        *count = sum;
                        format!(":{sum}\r\n")
                    }
                    None => "-ERR increment or decrement would overflow\r\n".into(),
                }
            }
            ["EXPIRE", key, seconds] => {
                self.expiries.lock().insert((*key).to_owned(), seconds.parse().unwrap());
                ":1\r\n".into()
            }
            other => format!("-ERR unknown command {other:?}\r\n"),
        }
    }
}

async fn serve(fake: Arc<Fake>, mut stream: TcpStream) {
    let mut admitted = fake.password.is_none();
    let mut bytes = Vec::new();
    let mut served = 0;
    loop {
        while let Some((words, length)) = command(&bytes) {
            bytes.drain(..length);
            let answer = fake.answer(&words, &mut admitted);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            served += 1;
            if fake.hangs_up_after.is_some_and(|after| served >= after) {
                return;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ => return,
        }
    }
}

fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    Some((std::str::from_utf8(&bytes[..end]).unwrap(), end + 2))
}

fn command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let (head, mut at) = line(bytes)?;
    let count: usize = head.strip_prefix('*').unwrap().parse().unwrap();
    let mut words = Vec::new();
    for _ in 0..count {
        let (head, next) = line(&bytes[at..])?;
        let length: usize = head.strip_prefix('$').unwrap().parse().unwrap();
        at += next;
        words.push(String::from_utf8(bytes.get(at..at + length)?.to_vec()).unwrap());
        at += length + 2;
    }
    (at <= bytes.len()).then_some((words, at))
}

fn redis(address: &str, credential: Option<&str>) -> Redis {
    let credential = credential.map(Credential::new);
    Redis::start(RedisOptions { address: address.to_owned(), credential, timeout: TIMEOUT })
}

fn hit(key: &str, hits: u64) -> Hit {
    Hit { key: key.to_owned(), hits, ends: 60, length: 60 }
}

#[tokio::test]
async fn hits_are_counted_and_expire_with_their_window() {
    let (fake, address) = Fake::default().start().await;
    let redis = redis(&address, None);
    assert_eq!(redis.add(vec![hit("a", 2), hit("b", 1), hit("a", 3)]).await, Ok(vec![2, 1, 5]));
    assert_eq!(redis.add(vec![hit("a", 0)]).await, Ok(vec![5]));
    assert_eq!(redis.add(Vec::new()).await, Ok(Vec::new()));
    assert_eq!(fake.expiries.lock().get("a"), Some(&60));
    assert_eq!(fake.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn many_requests_share_one_connection_and_none_is_lost() {
    let (fake, address) = Fake::default().start().await;
    let redis = Arc::new(redis(&address, None));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let redis = redis.clone();
        tasks.spawn(async move { redis.add(vec![hit("a", 1)]).await.map(|counts| counts[0]) });
    }
    let mut counts: Vec<u64> = tasks.join_all().await.into_iter().map(Result::unwrap).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=500).collect::<Vec<_>>());
    assert_eq!(fake.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_connection_that_redis_closed_is_made_anew() {
    let fake = Fake { hangs_up_after: Some(2), ..Fake::default() };
    let (fake, address) = fake.start().await;
    let redis = redis(&address, None);
    for expected in 1..=5 {
        assert_eq!(redis.add(vec![hit("a", 1)]).await, Ok(vec![expected]));
    }
    assert_eq!(fake.connections.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn the_password_is_said_and_never_shown() {
    let fake = Fake { password: Some("open sesame"), ..Fake::default() };
    let (_, address) = fake.start().await;
    assert_eq!(redis(&address, Some("open sesame")).add(vec![hit("a", 1)]).await, Ok(vec![1]));
    assert_eq!(redis(&address, Some("ali:open sesame")).add(vec![hit("a", 1)]).await, Ok(vec![2]));
    let refused = redis(&address, Some("wrong")).add(vec![hit("a", 1)]).await;
    assert_eq!(refused, Err(CounterError::Unavailable("WRONGPASS invalid".into())));
    assert!(matches!(redis(&address, None).add(vec![hit("a", 1)]).await, Err(CounterError::Refused(_))));
    assert_eq!(format!("{:?}", Credential::new("ali:open sesame")), "Credential(ali)");
}

#[tokio::test]
async fn an_error_about_one_key_is_of_its_request_alone() {
    let (_, address) = Fake::default().start().await;
    let redis = redis(&address, None);
    assert!(redis.add(vec![hit("full", u64::MAX)]).await.is_ok());
    assert!(matches!(redis.add(vec![hit("full", 1)]).await, Err(CounterError::Refused(_))));
    assert_eq!(redis.add(vec![hit("other", 1)]).await, Ok(vec![1]));
}

#[tokio::test]
async fn without_a_server_requests_fail_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let redis = redis(&address, None);
    for _ in 0..2 {
        let begun = Instant::now();
        assert!(matches!(redis.add(vec![hit("a", 1)]).await, Err(CounterError::Unavailable(_))));
        assert!(begun.elapsed() < TIMEOUT);
    }
}

#[tokio::test]
async fn nobody_waits_longer_than_the_time_out_for_a_server_that_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let redis = redis(&listener.local_addr().unwrap().to_string(), None);
    let begun = Instant::now();
    assert_eq!(redis.add(vec![hit("a", 1)]).await, Err(CounterError::TimedOut));
    assert!(begun.elapsed() < TIMEOUT * 2);
}

/// Where `scripts/install-test-deps.sh` puts it.
fn program() -> Option<std::path::PathBuf> {
    let home = || Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".cache/meltemi"));
    let cache = std::env::var_os("MELTEMI_CACHE").map(Into::into).or_else(home)?;
    Some(cache.join("redis/redis-server")).filter(|program| program.exists())
}

/// A real server, where this machine has one.
#[tokio::test]
async fn a_real_redis_counts_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let Some(program) = program() else {
        println!("skipped: no Redis; scripts/install-test-deps.sh installs it");
        return;
    };
    let _server = tokio::process::Command::new(program)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--requirepass", "sesame"])
        .current_dir(folder.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let address = format!("127.0.0.1:{port}");
    timeout(Duration::from_secs(20), async {
        while TcpStream::connect(&address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it listens");
    let redis = redis(&address, Some("sesame"));
    assert_eq!(redis.add(vec![hit("a", 2), hit("b", 1), hit("a", 3)]).await, Ok(vec![2, 1, 5]));
    let mut connection = TcpStream::connect(&address).await.unwrap();
    let mut out = Vec::new();
    resp::command(&mut out, &["AUTH", "sesame"]);
    resp::command(&mut out, &["TTL", "a"]);
    connection.write_all(&out).await.unwrap();
    let mut connection = Connection { stream: connection, buffer: Vec::new() };
    assert_eq!(connection.reply().await.unwrap(), Reply::Text("OK".into()));
    let Reply::Integer(left) = connection.reply().await.unwrap() else { panic!("no time to live") };
    assert!((1..=60).contains(&left), "{left}");
}
