//! Chains, started for real.

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

/// How long to wait for what must happen sooner or later.
const PATIENCE: Duration = Duration::from_secs(30);

async fn start(config: AnvilConfig) -> Anvil {
    Anvil::start(config).await.unwrap()
}

/// Moves one wei, which anvil signs for, and returns the transaction.
async fn move_one_wei(chain: &Anvil) -> B256 {
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
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
        time::sleep(Duration::from_millis(10)).await;
    }
}

/// Neither gone nor a zombie that nobody has waited for.
fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[tokio::test]
async fn a_chain_starts_the_way_it_was_asked_to() {
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
async fn a_chain_is_reached_under_every_address_of_the_machine_unless_it_is_told_one() {
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
async fn without_a_block_time_each_transaction_gets_a_block() {
    let chain = start(AnvilConfig::default()).await;
    for _ in 0..3 {
        move_one_wei(&chain).await;
    }
    until("three blocks", async || {
        chain.block_number().await.unwrap() == 3
    })
    .await;
}

#[tokio::test]
async fn with_a_block_time_blocks_come_by_themselves() {
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
async fn finality_is_two_epochs_behind() {
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

/// Where anvil would write the states that it does not keep in memory, and leave them when it is killed.
fn left_behind() -> usize {
    let home = env::var("HOME").unwrap_or_default();
    fs::read_dir(format!("{home}/.foundry/anvil/tmp")).map_or(0, Iterator::count)
}

#[tokio::test]
async fn the_state_of_old_blocks_is_kept_without_files() {
    let before = left_behind();
    let chain = start(AnvilConfig::default()).await;
    move_one_wei(&chain).await;
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
    assert_eq!(left_behind(), before);
}

#[tokio::test]
async fn a_reorganisation_loses_transactions() {
    let chain = start(AnvilConfig::default()).await;
    let transaction = move_one_wei(&chain).await;
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
async fn an_account_has_what_it_was_given() {
    let chain = start(AnvilConfig::default()).await;
    let account = Address::repeat_byte(7);
    let wei = U256::from(10).pow(U256::from(30));
    chain.set_balance(account, wei).await.unwrap();
    assert_eq!(chain.provider().get_balance(account).await.unwrap(), wei);
}

#[tokio::test]
async fn a_refused_call_names_the_method() {
    let chain = start(AnvilConfig::default()).await;
    let error = chain.rpc("eth_noSuchMethod", json!([])).await.unwrap_err();
    assert!(
        format!("{error:#}").starts_with("eth_noSuchMethod: "),
        "{error:#}"
    );
}

#[tokio::test]
async fn a_paused_chain_answers_nothing_and_goes_on_where_it_was() {
    let chain = start(AnvilConfig::default()).await;
    chain.mine(3).await.unwrap();
    chain.pause().unwrap();
    // A second pause is the same pause.
    chain.pause().unwrap();
    let call = time::timeout(Duration::from_millis(500), chain.block_number()).await;
    assert!(call.is_err(), "a paused chain answered {call:?}");
    chain.resume().unwrap();
    assert_eq!(chain.block_number().await.unwrap(), 3);
}

#[tokio::test]
async fn a_stopped_chain_goes_on_from_its_state_file_under_the_same_address() {
    let file = env::temp_dir().join(format!("testbed-anvil-{}.json", std::process::id()));
    let chain = start(AnvilConfig {
        state: Some(file.clone()),
        ..AnvilConfig::default()
    })
    .await;
    move_one_wei(&chain).await;
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
    // The way a test leaves it after an outage.
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
async fn a_dropped_chain_is_gone_even_if_it_was_paused() {
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
async fn a_chain_that_does_not_start_is_explained_in_its_own_words() {
    let first = start(AnvilConfig::default()).await;
    let config = AnvilConfig {
        port: first.port(),
        ..AnvilConfig::default()
    };
    let error = format!("{:#}", Anvil::start(config).await.unwrap_err());
    assert!(
        error.contains("does not start") && error.contains("in use"),
        "{error}"
    );
}

#[test]
fn a_chain_outlives_the_thread_that_started_it() {
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
async fn a_chain_does_not_outlive_the_process_that_started_it() {
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
async fn a_chain_that_is_gone_cannot_be_paused() {
    let chain = start(AnvilConfig::default()).await;
    chain.process.signal(Signal::SIGKILL).unwrap();
    until("the end of the chain", async || !is_alive(chain.pid())).await;
    assert!(chain.pause().is_err());
}
