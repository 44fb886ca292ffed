//! Stands before a chain and notes which candidate sends it which transaction, and when.
//!
//! Candidates share one endpoint, because a registry object names it for all of them. Who sends is therefore asked of the
//! kernel: whose open socket the request came through. It must not change what passes.

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

/// How often it is asked whose a connection is.
const LOOKS: usize = 8;

/// One signed transaction that one candidate sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentTransaction {
    /// When it arrived.
    pub at: Timestamp,
    /// The candidate; empty if it was none.
    pub writer: String,
    /// The signed bytes.
    pub raw: Bytes,
}

/// A recorder that runs until it is dropped.
#[derive(Debug)]
pub struct TransactionRecorder {
    address: SocketAddr,
    notes: Arc<RecorderState>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct RecorderState {
    client: reqwest::Client,
    chain: String,
    /// Candidates by pid.
    candidates: Mutex<Vec<(u32, String)>>,
    /// Whose a connection is, by where it comes from: one whose process has died can still be told.
    connections: Mutex<HashMap<SocketAddr, String>>,
    transactions: Mutex<Vec<SentTransaction>>,
}

impl TransactionRecorder {
    /// Listens at a free port and passes everything on to a chain.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn start(chain: String) -> Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0")
            .await
            .context("the recorder cannot listen")?;
        let address = listener.local_addr()?;
        let notes = Arc::new(RecorderState {
            client: reqwest::Client::builder().no_proxy().build()?,
            chain,
            candidates: Mutex::default(),
            connections: Mutex::default(),
            transactions: Mutex::default(),
        });
        let router = Router::new().fallback(pass).with_state(Arc::clone(&notes));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move {
            // It ends only when it is aborted.
            let _ = axum::serve(listener, service).await;
        });
        Ok(Self {
            address,
            notes,
            server,
        })
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Lets it know a candidate.
    pub fn add_candidate(&self, pid: u32, user: &str) {
        lock(&self.notes.candidates).push((pid, user.to_owned()));
    }

    /// Every transaction that was sent so far, in order.
    #[must_use]
    pub fn transactions(&self) -> Vec<SentTransaction> {
        lock(&self.notes.transactions).clone()
    }
}

impl Drop for TransactionRecorder {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(
    State(notes): State<Arc<RecorderState>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: body::Bytes,
) -> Response {
    let at = Timestamp::now();
    let sender = notes.sender(peer);
    for raw in transactions(&body) {
        lock(&notes.transactions).push(SentTransaction {
            at,
            writer: sender.clone(),
            raw,
        });
    }
    let request = notes
        .client
        .post(&notes.chain)
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
        // The kernel's table may lack a line when others come and go while it is read.
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

/// Inode of the socket of this network namespace that is bound to an address and connected.
fn inode(address: SocketAddr) -> Option<u64> {
    // Of this thread: the main thread may be in another network namespace.
    let table = fs::read_to_string("/proc/thread-self/net/tcp").ok()?;
    table
        .lines()
        .skip(1)
        .find_map(|line| connected(line, address))
}

/// Inode in a line of `/proc/net/tcp`, if it is a socket bound to an address and connected. The port alone would not do:
/// sockets of two addresses may share it.
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
    fn a_transaction_is_found_alone_and_in_a_batch() {
        let send = r#"{"id":1,"method":"eth_sendRawTransaction","params":["0x0102"]}"#;
        let read = r#"{"id":2,"method":"eth_chainId","params":[]}"#;
        let raw = vec![Bytes::from_static(&[1, 2])];
        assert_eq!(transactions(send.as_bytes()), raw);
        assert_eq!(transactions(format!("[{read},{send}]").as_bytes()), raw);
        assert!(transactions(read.as_bytes()).is_empty());
        assert!(transactions(b"nonsense").is_empty());
    }

    #[test]
    fn a_socket_is_known_by_its_address_while_it_is_connected() {
        let line = "   0: 0100007F:9C40 0101017F:192B 01 00000000:00000000 00:00000000 00000000     0        0 4242 1";
        let inode = |line: &str, address: &str| connected(line, address.parse().unwrap());
        assert_eq!(inode(line, "127.0.0.1:40000"), Some(4242));
        assert_eq!(
            inode(line, "127.0.0.2:40000"),
            None,
            "that is another socket with the same port"
        );
        assert_eq!(inode(line, "127.1.1.1:6443"), None, "that is the other end");
        assert_eq!(
            inode(&line.replace(" 01 ", " 06 "), "127.0.0.1:40000"),
            None,
            "it is closed"
        );
    }
}
