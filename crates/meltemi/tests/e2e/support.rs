//! Processes, ports, backends and a plain HTTP/1 client for the tests of this binary.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// The binary under test.
pub fn meltemi() -> Command {
    Command::new(env!("CARGO_BIN_EXE_meltemi"))
}

/// The folder where `scripts/install-test-deps.sh` puts foreign peers.
pub fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/meltemi");
    std::env::var_os("MELTEMI_CACHE").map_or_else(home, PathBuf::from)
}

/// A real Envoy, or the reason why there is none.
pub fn envoy() -> Result<PathBuf, String> {
    let path = cache().join("venv/bin/envoy");
    if path.exists() { Ok(path) } else { Err("skipped: no Envoy; scripts/install-test-deps.sh installs it".to_owned()) }
}

/// Our proxy, yet without its bootstrap.
pub fn own_proxy() -> Command {
    let mut command = meltemi();
    command.arg("proxy");
    command
}

/// A real Envoy in the same state, or the reason why there is none.
pub fn envoy_proxy() -> Result<Command, String> {
    let mut command = Command::new(envoy()?);
    command.args(["--log-level", "warning", "--use-dynamic-base-id"]);
    Ok(command)
}

/// Our proxy, and Envoy where there is one.
pub fn proxies() -> Vec<(&'static str, Command)> {
    let mut all = vec![("ours", own_proxy())];
    match envoy_proxy() {
        Ok(envoy) => all.push(("envoy", envoy)),
        Err(reason) => println!("{reason}"),
    }
    all
}

/// A message of Envoy's configuration with its type.
pub fn any(kind: &str, mut body: Value) -> Value {
    body["@type"] = json!(format!("type.googleapis.com/{kind}"));
    body
}

/// A host that answers everything with this status, and closes.
pub fn answering(status: u16) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    address
}

/// A process that is killed and reaped when dropped. Only ever one that the test started itself.
pub struct Process {
    child: Child,
    pub name: &'static str,
    log: PathBuf,
}

impl Process {
    pub fn start(name: &'static str, command: &mut Command, dir: &Path) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).expect("log file");
        let errors = file.try_clone().expect("log file");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{name}: {e}")), name, log }
    }

    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal (`INT`, `KILL`) to the process alone.
    pub fn signal(&self, signal: &str) {
        signal_process(self.child.id(), signal);
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("our child's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// How it ended; panics with its output if it does not.
    pub fn wait(&mut self, patience: Duration) -> std::process::ExitStatus {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < end, "{} does not end:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until something listens on the address; panics with the process's output if it ends first.
    pub fn wait_listening(&mut self, address: SocketAddr) {
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            assert!(self.is_running(), "{} ended:\n{}", self.name, self.output());
            assert!(Instant::now() < end, "{} does not listen on {address}:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Signals a process that the test started, or one below it.
pub fn signal_process(pid: u32, signal: &str) {
    let sent = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().expect("kill");
    assert!(sent.success(), "{pid} is gone");
}

/// A port that was free a moment ago, and that nobody is given who asks the system for any: neither another test nor a connection.
pub fn free_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    let mut candidates = std::iter::repeat_with(|| {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        SocketAddr::from(([127, 0, 0, 1], port))
    });
    candidates.by_ref().take(usize::from(COUNT)).find(|at| TcpListener::bind(at).is_ok()).expect("a free port")
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request on a connection of its own and reads the whole answer.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Result<Answer, String> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).map_err(|e| format!("connect: {e}"))?;
    stream.set_read_timeout(Some(DEADLINE)).map_err(|e| e.to_string())?;
    stream.write_all(request).map_err(|e| format!("write: {e}"))?;
    read_answer(&mut BufReader::new(stream), request.starts_with(b"HEAD "))
}

pub fn get(address: SocketAddr, host: &str, path: &str) -> Result<Answer, String> {
    exchange(address, format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes())
}

/// Reads one answer; `head` when the request was HEAD.
pub fn read_answer(reader: &mut impl BufRead, head: bool) -> Result<Answer, String> {
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|e| format!("status line: {e}"))?;
    let status = line.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| format!("status line {line:?}"))?;
    let mut answer = Answer { status, headers: read_headers(reader)?, body: Vec::new() };
    if head || status == 204 || status == 304 {
        return Ok(answer);
    }
    let length = answer.header("content-length").and_then(|v| v.parse::<usize>().ok());
    let io = |e: std::io::Error| format!("body: {e}");
    if answer.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        answer.body = read_chunks(reader)?;
    } else if let Some(length) = length {
        answer.body = vec![0; length];
        reader.read_exact(&mut answer.body).map_err(io)?;
    } else {
        reader.read_to_end(&mut answer.body).map_err(io)?;
    }
    Ok(answer)
}

/// Reads the head of a request, and nothing after it.
pub fn read_head(reader: &mut impl BufRead) -> Result<(), String> {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(1..) => read_headers(reader).map(drop),
        Ok(0) => Err("closed".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn read_headers(reader: &mut impl BufRead) -> Result<Vec<(String, String)>, String> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(|e| format!("headers: {e}"))?;
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or_else(|| format!("header {line:?}"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn read_chunks(reader: &mut impl BufRead) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).map_err(|e| format!("chunk: {e}"))?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|e| format!("chunk size {line:?}: {e}"))?;
        if size == 0 {
            read_headers(reader)?;
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).map_err(|e| format!("chunk: {e}"))?;
        let mut end = String::new();
        reader.read_line(&mut end).map_err(|e| format!("chunk end: {e}"))?;
    }
}

/// An HTTP/1.1 server that tells what it received. The request steers it: `x-want-status`, `x-want-delay-ms`, and
/// `x-fail-first: N` with `x-test-id`, which answers 503 to the first N attempts of that id.
pub struct Backend {
    pub address: SocketAddr,
}

impl Backend {
    pub fn start(name: &'static str) -> Self {
        Self::start_at(name, "127.0.0.1:0")
    }

    pub fn start_at(name: &'static str, address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("address");
        let shared: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || serve(name, stream, &shared));
            }
        });
        Self { address }
    }
}

/// Headers that two proxies may rightly give other values.
pub const VOLATILE: &[&str] = &[
    "x-request-id",
    "x-envoy-upstream-service-time",
    "date",
    "x-forwarded-for",
    "x-b3-traceid",
    "x-b3-spanid",
    "traceparent",
];

fn serve(name: &str, stream: TcpStream, attempts: &Mutex<BTreeMap<String, u32>>) -> Option<()> {
    let mut writer = stream.try_clone().ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let headers = read_headers(&mut reader).ok()?;
        let find = |wanted: &str| headers.iter().find(|(n, _)| n == wanted).map(|(_, v)| v.as_str());
        let mut body = Vec::new();
        if find("transfer-encoding").is_some() {
            body = read_chunks(&mut reader).ok()?;
        } else if let Some(length) = find("content-length").and_then(|v| v.parse().ok()) {
            body.resize(length, 0);
            reader.read_exact(&mut body).ok()?;
        }
        let attempt = find("x-test-id").map_or(1, |id| {
            let mut all = attempts.lock().expect("no panic under the lock");
            let count = all.entry(id.to_owned()).or_default();
            *count += 1;
            *count
        });
        let number = |wanted| find(wanted).and_then(|v| v.parse::<u64>().ok());
        std::thread::sleep(Duration::from_millis(number("x-want-delay-ms").unwrap_or(0)));
        let failing = number("x-fail-first").is_some_and(|n| u64::from(attempt) <= n);
        let status = if failing { 503 } else { number("x-want-status").unwrap_or(200) };
        let text = describe(name, line.trim_end(), &headers, &body);
        let payload = if line.starts_with("HEAD ") { String::new() } else { text.clone() };
        let extra = "x-backend-header: original\r\nserver: backend\r\n";
        let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{extra}\r\n", text.len());
        writer.write_all((head + &payload).as_bytes()).ok()?;
    }
}

fn describe(name: &str, request: &str, headers: &[(String, String)], body: &[u8]) -> String {
    let mut lines = vec![format!("backend {name}"), request.to_owned()];
    let mut listed: Vec<String> = headers
        .iter()
        .map(|(n, v)| if VOLATILE.contains(&n.as_str()) { format!("{n}: present") } else { format!("{n}: {v}") })
        .collect();
    listed.sort();
    lines.extend(listed);
    lines.push(format!("body {}", String::from_utf8_lossy(body)));
    lines.join("\n")
}
