//! A proxy before a chain that records which candidate sends which transaction, and when.
//!
//! All candidates use the endpoint that the registry object names. The sender is therefore found in
//! the kernel's tables: the process that owns the socket of the request. The proxy must not change
//! what it forwards.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use alloy::primitives::Bytes;
use anyhow::{Context, Result};
use axum::Router;
use axum::body;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// How often the owner of a connection is looked up.
const LOOKS: usize = 8;

/// A signed transaction that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentTransaction {
    /// When it arrived.
    pub at: Timestamp,
    /// The candidate; empty if unknown.
    pub writer: String,
    /// The signed bytes.
    pub raw: Bytes,
}

/// A recorder that runs until it is dropped.
#[derive(Debug)]
pub struct TransactionRecorder {
    address: SocketAddr,
    state: Arc<RecorderState>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct RecorderState {
    client: reqwest::Client,
    chain: String,
    /// Candidates by pid.
    candidates: Mutex<Vec<(u32, String)>>,
    /// Owner of each connection by its source address, kept for processes that have exited.
    connections: Mutex<HashMap<SocketAddr, String>>,
    transactions: Mutex<Vec<SentTransaction>>,
}

impl TransactionRecorder {
    /// Listens on a free port and forwards everything to a chain.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(chain: String) -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0")
            .await
            .context("the recorder failed to listen")?;
        let address = listener.local_addr()?;
        let state = Arc::new(RecorderState {
            client: reqwest::Client::builder().no_proxy().build()?,
            chain,
            candidates: Mutex::default(),
            connections: Mutex::default(),
            transactions: Mutex::default(),
        });
        let router = Router::new()
            .fallback(forward)
            .with_state(Arc::clone(&state));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move {
            // It ends only when it is aborted.
            let _ = axum::serve(listener, service).await;
        });
        Ok(Self {
            address,
            state,
            server,
        })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Registers a candidate's process.
    pub fn add_candidate(&self, pid: u32, user: &str) {
        lock(&self.state.candidates).push((pid, user.to_owned()));
    }

    /// Every transaction so far, in order of arrival.
    #[must_use]
    pub fn transactions(&self) -> Vec<SentTransaction> {
        lock(&self.state.transactions).clone()
    }
}

impl Drop for TransactionRecorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn forward(
    State(state): State<Arc<RecorderState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: body::Bytes,
) -> Response {
    let at = Timestamp::now();
    let sender = state.sender(peer);
    for raw in transactions(&body) {
        lock(&state.transactions).push(SentTransaction {
            at,
            writer: sender.clone(),
            raw,
        });
    }
    let request = state
        .client
        .post(&state.chain)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body);
    let answer = async { request.send().await?.bytes().await }.await;
    match answer {
        Ok(answer) => ([(header::CONTENT_TYPE, "application/json")], answer).into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

impl RecorderState {
    fn sender(&self, peer: SocketAddr) -> String {
        let mut connections = lock(&self.connections);
        // The kernel's table may miss a line if sockets open or close while it is read.
        let owner = (0..LOOKS).find_map(|_| inode(peer).and_then(|inode| self.owner(inode)));
        if let Some(owner) = owner {
            connections.insert(peer, owner);
        }
        connections.get(&peer).cloned().unwrap_or_default()
    }

    fn owner(&self, inode: u64) -> Option<String> {
        let socket = format!("socket:[{inode}]");
        let holds = |pid: u32| {
            let files = fs::read_dir(format!("/proc/{pid}/fd"))
                .into_iter()
                .flatten()
                .flatten();
            files
                .filter_map(|file| fs::read_link(file.path()).ok())
                .any(|link| link.as_os_str() == socket.as_str())
        };
        let candidates = lock(&self.candidates);
        candidates
            .iter()
            .rev()
            .find(|(pid, _)| holds(*pid))
            .map(|(_, user)| user.clone())
    }
}

/// Inode of the connected socket with a local address, in this network namespace.
fn inode(address: SocketAddr) -> Option<u64> {
    // Of this thread: the main thread may be in another network namespace.
    let table = fs::read_to_string("/proc/thread-self/net/tcp").ok()?;
    table
        .lines()
        .skip(1)
        .find_map(|line| connected(line, address))
}

/// Inode in a line of `/proc/net/tcp`, if it is a connected socket with this local address. The
/// port alone is ambiguous: sockets of two addresses may share it.
fn connected(line: &str, address: SocketAddr) -> Option<u64> {
    const ESTABLISHED: &str = "01";
    let IpAddr::V4(ip) = address.ip() else {
        return None;
    };
    let own = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(ip.octets()),
        address.port()
    );
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    (*local == own && *state == ESTABLISHED).then(|| inode.parse().ok())?
}

/// The signed transactions in a JSON-RPC request, or in a batch of them.
fn transactions(body: &[u8]) -> Vec<Bytes> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let calls = match &body {
        Value::Array(calls) => calls.as_slice(),
        call => std::slice::from_ref(call),
    };
    let sent = calls
        .iter()
        .filter(|call| call["method"] == "eth_sendRawTransaction");
    sent.filter_map(|call| call["params"][0].as_str()?.parse().ok())
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transaction_is_found_alone_and_in_a_batch() {
        let send = r#"{"id":1,"method":"eth_sendRawTransaction","params":["0x0102"]}"#;
        let read = r#"{"id":2,"method":"eth_chainId","params":[]}"#;
        let raw = vec![Bytes::from_static(&[1, 2])];
        assert_eq!(transactions(send.as_bytes()), raw);
        assert_eq!(transactions(format!("[{read},{send}]").as_bytes()), raw);
        assert!(transactions(read.as_bytes()).is_empty());
        assert!(transactions(b"nonsense").is_empty());
    }

    #[test]
    fn socket_is_found_by_its_address_while_connected() {
        let line = "   0: 0100007F:9C40 0101017F:192B 01 00000000:00000000 00:00000000 00000000     0        0 4242 1";
        let inode = |line: &str, address: &str| connected(line, address.parse().unwrap());
        assert_eq!(inode(line, "127.0.0.1:40000"), Some(4242));
        assert_eq!(
            inode(line, "127.0.0.2:40000"),
            None,
            "another address with the same port"
        );
        assert_eq!(inode(line, "127.1.1.1:6443"), None, "the remote end");
        assert_eq!(
            inode(&line.replace(" 01 ", " 06 "), "127.0.0.1:40000"),
            None,
            "it is closed"
        );
    }
}
