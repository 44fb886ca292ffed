//! Tests with real anvil processes.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    process::Stdio,
    thread,
    time::Instant,
};

use alloy::{
    network::TransactionBuilder,
    primitives::B256,
    rpc::types::{BlockId, TransactionRequest},
};
use tokio::time;

use super::*;

/// Timeout of every wait.
const TIMEOUT: Duration = Duration::from_secs(30);

async fn start(config: AnvilConfig) -> Anvil {
    Anvil::start(config).await.unwrap()
}

/// Sends a transfer of one wei that anvil signs, and returns the transaction hash.
async fn send_one_wei(chain: &Anvil) -> B256 {
    let [from, to] = [0, 1].map(|nth| chain.keys()[nth].address());
    let request = TransactionRequest::default()
        .with_from(from)
        .with_to(to)
        .with_value(U256::from(1));
    *chain
        .provider()
        .send_transaction(request)
        .await
        .unwrap()
        .tx_hash()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not after {TIMEOUT:?}");
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process has not exited, reaped or not.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn chain_starts_with_its_settings() {
    let config = AnvilConfig {
        chain_id: 84532,
        accounts: 3,
        block_gas_limit: Some(7_000_000),
        ..AnvilConfig::default()
    };
    let chain = start(config).await;
    assert_eq!(chain.provider().get_chain_id().await.unwrap(), 84532);
    assert_eq!(chain.chain_id(), 84532);
    let block = chain
        .provider()
        .get_block_by_number(BlockNumberOrTag::Latest)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(block.header.gas_limit, 7_000_000);
    assert_eq!(chain.keys().len(), 3);
    for key in chain.keys() {
        assert!(chain.provider().get_balance(key.address()).await.unwrap() > U256::ZERO);
    }
    assert!(is_alive(chain.pid()));
}

#[tokio::test]
async fn chain_listens_on_all_addresses_unless_one_is_set() {
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2).into();
    let chain = start(AnvilConfig::default()).await;
    for url in [chain.url(), chain.url_at(elsewhere)] {
        let provider: RootProvider = ProviderBuilder::new()
            .disable_recommended_fillers()
            .connect_http(url.parse().unwrap());
        assert_eq!(provider.get_chain_id().await.unwrap(), 31337, "{url}");
    }
    let chain = start(AnvilConfig {
        host: elsewhere,
        ..AnvilConfig::default()
    })
    .await;
    assert_eq!(chain.url(), format!("http://127.0.0.2:{}", chain.port()));
    assert_eq!(chain.block_number().await.unwrap(), 0);
}

#[tokio::test]
async fn each_transaction_gets_a_block_without_a_block_time() {
    let chain = start(AnvilConfig::default()).await;
    for _ in 0..3 {
        send_one_wei(&chain).await;
    }
    until("three blocks", async || {
        chain.block_number().await.unwrap() == 3
    })
    .await;
}

#[tokio::test]
async fn blocks_are_mined_periodically_with_a_block_time() {
    let config = AnvilConfig {
        block_time: Some(Duration::from_millis(200)),
        ..AnvilConfig::default()
    };
    let chain = start(config).await;
    let begin = Instant::now();
    until("five blocks", async || {
        chain.block_number().await.unwrap() >= 5
    })
    .await;
    assert!(
        begin.elapsed() > Duration::from_millis(600),
        "{:?}",
        begin.elapsed()
    );
}

#[tokio::test]
async fn finalized_block_is_two_epochs_behind() {
    for (slots, finalized) in [(1, 18), (4, 12)] {
        let chain = start(AnvilConfig {
            slots_in_an_epoch: slots,
            ..AnvilConfig::default()
        })
        .await;
        chain.mine(20).await.unwrap();
        assert_eq!(
            (
                chain.block_number().await.unwrap(),
                chain.finalized().await.unwrap()
            ),
            (20, finalized)
        );
    }
}

/// The number of files in the directory where anvil would leave states that it does not keep in
/// memory.
fn leftover_files() -> usize {
    let home = env::var("HOME").unwrap_or_default();
    fs::read_dir(format!("{home}/.foundry/anvil/tmp")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn state_of_old_blocks_is_kept_without_files() {
    let before = leftover_files();
    let chain = start(AnvilConfig::default()).await;
    send_one_wei(&chain).await;
    until("a block", async || chain.block_number().await.unwrap() == 1).await;
    chain.mine(1500).await.unwrap();
    let account = chain.keys()[0].address();
    let nonce = chain
        .provider()
        .get_transaction_count(account)
        .block_id(BlockId::number(1))
        .await
        .unwrap();
    assert_eq!(nonce, 1);
    chain.reorg(2).await.unwrap();
    chain.mine(2).await.unwrap();
    assert_eq!(
        chain
            .provider()
            .get_transaction_count(account)
            .await
            .unwrap(),
        1
    );
    assert_eq!(leftover_files(), before);
}

#[tokio::test]
async fn reorganization_drops_transactions() {
    let chain = start(AnvilConfig::default()).await;
    let transaction = send_one_wei(&chain).await;
    let receipt = async || {
        chain
            .provider()
            .get_transaction_receipt(transaction)
            .await
            .unwrap()
    };
    until("a receipt", async || receipt().await.is_some()).await;
    chain.reorg(1).await.unwrap();
    assert!(receipt().await.is_none());
    assert_eq!(chain.block_number().await.unwrap(), 1);
}

#[tokio::test]
async fn account_has_the_balance_that_was_set() {
    let chain = start(AnvilConfig::default()).await;
    let account = Address::repeat_byte(7);
    let wei = U256::from(10).pow(U256::from(30));
    chain.set_balance(account, wei).await.unwrap();
    assert_eq!(chain.provider().get_balance(account).await.unwrap(), wei);
}

#[tokio::test]
async fn error_of_a_call_names_the_method() {
    let chain = start(AnvilConfig::default()).await;
    let error = chain.rpc("eth_noSuchMethod", json!([])).await.unwrap_err();
    assert!(
        format!("{error:#}").starts_with("eth_noSuchMethod: "),
        "{error:#}"
    );
}

#[tokio::test]
async fn paused_chain_answers_nothing_until_it_resumes() {
    let chain = start(AnvilConfig::default()).await;
    chain.mine(3).await.unwrap();
    chain.pause().unwrap();
    // Pausing twice is the same as pausing once.
    chain.pause().unwrap();
    let call = time::timeout(Duration::from_millis(500), chain.block_number()).await;
    assert!(call.is_err(), "a paused chain answered {call:?}");
    chain.resume().unwrap();
    assert_eq!(chain.block_number().await.unwrap(), 3);
}

#[tokio::test]
async fn restarted_chain_continues_from_its_state_file() {
    let file = env::temp_dir().join(format!("testbed-anvil-{}.json", std::process::id()));
    let chain = start(AnvilConfig {
        state: Some(file.clone()),
        ..AnvilConfig::default()
    })
    .await;
    send_one_wei(&chain).await;
    until("a block", async || chain.block_number().await.unwrap() == 1).await;
    chain.mine(4).await.unwrap();
    let (account, port) = (chain.keys()[0].address(), chain.port());
    let genesis = async |chain: &Anvil| {
        chain
            .rpc("eth_getBlockByNumber", json!(["0x0", false]))
            .await
            .unwrap()
    };
    let before = genesis(&chain).await;
    // Paused, as a test leaves it after an outage.
    chain.pause().unwrap();
    chain.stop().await.unwrap();

    let chain = start(AnvilConfig {
        state: Some(file.clone()),
        port,
        ..AnvilConfig::default()
    })
    .await;
    fs::remove_file(file).unwrap();
    assert_eq!(genesis(&chain).await["hash"], before["hash"]);
    assert_eq!(
        (
            chain.block_number().await.unwrap(),
            chain.finalized().await.unwrap()
        ),
        (5, 3)
    );
    let final_nonce = chain
        .provider()
        .get_transaction_count(account)
        .finalized()
        .await
        .unwrap();
    assert_eq!(final_nonce, 1);
}

#[tokio::test]
async fn dropped_chain_is_killed_even_if_it_was_paused() {
    for paused in [false, true] {
        let chain = start(AnvilConfig::default()).await;
        let pid = chain.pid();
        if paused {
            chain.pause().unwrap();
        }
        drop(chain);
        assert!(!is_alive(pid), "paused: {paused}");
    }
}

#[tokio::test]
async fn error_of_a_failed_start_contains_the_output_of_anvil() {
    let first = start(AnvilConfig::default()).await;
    let config = AnvilConfig {
        port: first.port(),
        ..AnvilConfig::default()
    };
    let error = format!("{:#}", Anvil::start(config).await.unwrap_err());
    assert!(
        error.contains("failed to start") && error.contains("in use"),
        "{error}"
    );
}

#[test]
fn chain_outlives_the_thread_that_started_it() {
    let start = || {
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(start(AnvilConfig::default()))
    };
    let chain = thread::spawn(start).join().unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(is_alive(chain.pid()));
}

#[tokio::test]
async fn chain_dies_with_the_process_that_started_it() {
    let mut owner = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "anvil::tests::holds_a_chain",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok);
    let pid = lines
        .find_map(|line| line.split_once("chain: ")?.1.parse().ok())
        .expect("the pid of a chain");
    assert!(is_alive(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("the end of the chain", async || !is_alive(pid)).await;
}

#[tokio::test]
#[ignore = "the process that another test kills"]
async fn holds_a_chain() {
    let chain = start(AnvilConfig::default()).await;
    println!("chain: {}", chain.pid());
    std::future::pending().await
}

#[tokio::test]
async fn chain_that_has_exited_cannot_be_paused() {
    let chain = start(AnvilConfig::default()).await;
    chain.process.signal(Signal::SIGKILL).unwrap();
    until("the end of the chain", async || !is_alive(chain.pid())).await;
    assert!(chain.pause().is_err());
}
