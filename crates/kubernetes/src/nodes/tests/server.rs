//! An API server that gives the answers it was told, one after another.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use kube::Client;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::NodeClient;

/// Method and path, and the body where there was one.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub head: String,
    pub body: Value,
}

#[derive(Default)]
struct State {
    answers: VecDeque<(u16, Value)>,
    requests: Vec<Request>,
}

pub(super) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub async fn start(answers: impl IntoIterator<Item = (u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { answers: answers.into_iter().collect(), ..State::default() }));
        let serving = state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        Server { address, state }
    }

    pub fn client(&self) -> NodeClient {
        let mut config = kube::Config::new(format!("http://{}", self.address).parse().unwrap());
        config.default_namespace = "default".to_owned();
        NodeClient::new(Client::try_from(config).unwrap(), "n1")
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().unwrap().requests.clone()
    }
}

/// Answers the requests of one connection; hangs where it was told no answer.
async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    loop {
        let mut first = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if read.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if first.is_empty() {
                first = line.to_owned();
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        read.read_exact(&mut body).await.unwrap();
        let head = first.trim_end_matches(" HTTP/1.1").to_owned();
        let answer = {
            let mut state = state.lock().unwrap();
            state.requests.push(Request { head, body: serde_json::from_slice(&body).unwrap_or_default() });
            state.answers.pop_front()
        };
        let Some((code, value)) = answer else { return std::future::pending().await };
        let text = format!("{value}\n");
        let head =
            format!("HTTP/1.1 {code} Told\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        write.write_all(format!("{head}{text}").as_bytes()).await.unwrap();
    }
}
