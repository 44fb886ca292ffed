//! What happens in the demo, step by step.

use std::path::Path;
use std::time::Duration;

use alloy::primitives::utils::format_ether;
use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use harness::chain::Chain;
use harness::wait::until;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::DeleteParams;
use testbed::Cluster;

use crate::chain::{self, CHAIN_ID};
use crate::offers::{self, Batch, Offers};
use crate::output::{self, Steps};
use crate::readme::Section;
use crate::replicas::{self, Death, Replicas, Takeover};
use crate::sale::{self, Market, PURCHASES};
use crate::sandbox::{Sandbox, Show};
use crate::summary::{ChainCounts, Summary, count};

const OFFERS: usize = 24;
const REPLICAS: usize = 3;
/// How long the registration of twelve offers may take.
const REGISTRATION: Duration = Duration::from_secs(60);
/// How long the API server may take to delete a namespace.
const DELETION: Duration = Duration::from_secs(120);
/// Where the chart looks for the image, and where `make image` puts it.
const IMAGE: &str = "ghcr.io/obolnetwork/serviceoffer-controller";

/// Runs all steps and returns what was counted.
pub async fn run(cluster: &Cluster, mut steps: Steps) -> Result<Summary> {
    let sandbox = Sandbox::open(cluster)?;
    steps
        .run("Clean the cluster", clean(cluster, &sandbox))
        .await?;
    let chain = steps
        .run(
            "Start an EVM chain with an identity registry in the cluster",
            start_chain(cluster),
        )
        .await?;
    steps
        .run("Install the operator", install(cluster, &sandbox))
        .await?;
    let replicas = Replicas::of(cluster).await?;
    steps
        .run(
            "Create an IdentityRegistry with a signer",
            create_registry(&sandbox, &chain),
        )
        .await?;
    let mut offers = Offers::of(cluster.client());
    steps
        .run(
            "Register 12 offers in 3 namespaces",
            register_first(&sandbox, &mut offers),
        )
        .await?;
    steps
        .run("Serve documents and metrics", expose(&sandbox))
        .await?;
    steps
        .run("Scale to three replicas", scale(&sandbox, &replicas))
        .await?;
    let (death, takeover) = steps
        .run(
            "Kill the leader while 12 more offers are being registered",
            kill_leader(&replicas, &chain, &offers),
        )
        .await?;
    steps
        .run(
            "The new leader finishes the registrations",
            offers.show_registered(OFFERS, takeover.limit + REGISTRATION),
        )
        .await?;
    steps
        .run("Metrics of each replica", metrics(&replicas))
        .await?;
    let mut market = steps
        .run(
            "Open the sale: a token, a facilitator, a buyer",
            open_market(cluster, &sandbox, &chain),
        )
        .await?;
    let sale = steps
        .run(
            "Sell 20 answers while the leader dies and the gate is replaced",
            market.sell(&sandbox, &replicas, &chain),
        )
        .await?;
    let documents = steps
        .run(
            "Fetch every document by its on-chain URI",
            documents(&replicas, &chain),
        )
        .await?;
    steps
        .run(
            "Back up, then remove the operator and all its records",
            remove_everything(&sandbox),
        )
        .await?;
    steps
        .run("Restore the backup", restore(&sandbox, &mut offers))
        .await?;
    let counts = steps
        .run("Count registrations on the chain", show_counts(&chain))
        .await?;
    steps
        .run(
            "Status of offers, registry and ledger",
            sandbox.follow(Section::Status, Show::Everything),
        )
        .await?;
    let statuses = offers.statuses().await?;
    Ok(Summary {
        offers: count(statuses.len()),
        registered: counts.confirmed(&statuses),
        registrations: count(counts.minted.len()),
        duplicates: counts.duplicates(),
        transactions: counts.sent,
        in_flight_at_death: death.in_flight,
        takeover_seconds: takeover.duration.as_secs_f64(),
        takeover_limit_seconds: takeover.limit.as_secs_f64(),
        documents_served: documents,
        purchases: count(PURCHASES),
        delivered: sale.delivered(),
        transfers: count(sale.transfers.len() + sale.other_transfers),
        executed_again: sale.executed_again(),
        unpaid: sale.unpaid(),
        cost: chain::cost(&chain).await?,
        steps: steps.into_vec(),
    })
}

/// Removes what an earlier demo left, in the way that the README describes.
async fn clean(cluster: &Cluster, sandbox: &Sandbox) -> Result<()> {
    let (name, namespace) = (replicas::NAME, replicas::NAMESPACE);
    let status = format!("helm status {name} --namespace {namespace}");
    if sandbox.capture(&status).await.is_ok() {
        sandbox.follow(Section::Uninstall, Show::Everything).await?;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    // The last one that the README removes.
    let last = definitions.get_opt("signerledgers.obol.org").await?;
    if last.is_some() {
        sandbox.follow(Section::Remove, Show::Everything).await?;
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let own = offers::NAMESPACES.into_iter().chain([
        chain::NAMESPACE,
        sale::NAMESPACE,
        replicas::NAMESPACE,
    ]);
    for name in own.clone() {
        // The API server refuses to delete a namespace that it is already deleting. What counts is
        // that it is gone in the end.
        let _ = namespaces.delete(name, &DeleteParams::background()).await;
    }
    for name in own {
        until(&format!("namespace {name} is gone"), DELETION, async || {
            let namespace = namespaces.get_opt(name).await?;
            ensure!(namespace.is_none(), "it still exists");
            Ok(())
        })
        .await?;
    }
    output::text("the operator is not installed, and nothing of it is left");
    Ok(())
}

async fn start_chain(cluster: &Cluster) -> Result<Chain> {
    let (chain, deployer) = chain::start(cluster).await?;
    let (url, registry, signer) = (chain.url(), chain.registry, chain.signer.address());
    output::text(&format!(
        "anvil     {url}, chain id {CHAIN_ID}, one block per second"
    ));
    output::text(&format!("registry  {registry}, deployed by {deployer}"));
    output::text(&format!("signer    {signer}"));
    Ok(chain)
}

/// Loads the image and installs the chart. In place of the image in the README's values it uses the
/// one on the node.
async fn install(cluster: &Cluster, sandbox: &Sandbox) -> Result<()> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image.tar");
    cluster
        .load(&archive)
        .await
        .context("loading target/image.tar; run `make image`")?;
    sandbox.write_changed(
        "values.yaml",
        &[("registry.example.org/serviceoffer-controller", IMAGE)],
    )?;
    sandbox
        .follow(Section::Install, Show::LineCount)
        .await
        .context("if another release is in the way, run `make demo-down`, which removes everything")
}

/// Applies the README's IdentityRegistry, with the demo's chain in place of a public one.
async fn create_registry(sandbox: &Sandbox, chain: &Chain) -> Result<()> {
    sandbox.write("signer.key", chain.private_key())?;
    let chain_id = format!("chainId: {CHAIN_ID}");
    let with_address = format!("{chain_id}\n  address: \"{}\"", chain.registry);
    let signer = chain.signer.address().to_string();
    sandbox.write_changed(
        "registry.yaml",
        &[
            (&chain_id, &with_address),
            ("https://sepolia.base.org", chain.url()),
            ("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", &signer),
            ("https://agents.example.org", replicas::BASE_URL),
        ],
    )?;
    sandbox.follow(Section::Registry, Show::Everything).await
}

/// Creates the README's first offer, and eleven like it.
async fn register_first(sandbox: &Sandbox, offers: &mut Offers) -> Result<()> {
    offers.prepare().await?;
    sandbox.write_changed("offer.yaml", &[])?;
    sandbox.follow(Section::Offer, Show::Everything).await?;
    offers.create(Batch::First).await?;
    offers.show_registered(OFFERS / 2, REGISTRATION).await
}

async fn expose(sandbox: &Sandbox) -> Result<()> {
    sandbox.follow(Section::Expose, Show::LineCount).await?;
    sandbox.follow(Section::Metrics, Show::LineCount).await
}

async fn scale(sandbox: &Sandbox, replicas: &Replicas) -> Result<()> {
    sandbox.follow(Section::Scale, Show::LineCount).await?;
    replicas.wait_ready(REPLICAS).await?;
    let leader = replicas.wait_leader().await?;
    output::text(&format!("{leader} leads"));
    replicas.show_metrics().await
}

/// Applies the README's PaymentFacilitator, with the demo's in place of a public one.
async fn open_market(cluster: &Cluster, sandbox: &Sandbox, chain: &Chain) -> Result<Market> {
    let market = Market::open(cluster, chain).await?;
    let changes = [("https://x402.org/facilitator", sale::FACILITATOR_URL)];
    sandbox.write_changed("facilitator.yaml", &changes)?;
    sandbox.follow(Section::Sell, Show::Everything).await?;
    Ok(market)
}

async fn kill_leader(
    replicas: &Replicas,
    chain: &Chain,
    offers: &Offers,
) -> Result<(Death, Takeover)> {
    offers.create(Batch::Later).await?;
    let death = replicas.kill_leader(chain).await?;
    output::text(&format!(
        "killed {} with {} nonces in flight, {} of them with a signed transaction",
        death.leader, death.in_flight, death.signed
    ));
    let takeover = replicas.wait_takeover(&death).await?;
    output::text(&format!(
        "{} became leader after {:.1} s",
        takeover.leader,
        takeover.duration.as_secs_f64()
    ));
    output::text(&format!("its log: {}", takeover.line));
    Ok((death, takeover))
}

async fn metrics(replicas: &Replicas) -> Result<()> {
    replicas.wait_ready(REPLICAS).await?;
    replicas.show_metrics().await
}

/// Fetches every document by its on-chain URI, and returns how many are correct everywhere.
async fn documents(replicas: &Replicas, chain: &Chain) -> Result<u64> {
    let gate = [replicas.wait_gate().await?];
    let registrations = chain.all_registrations().await?;
    let fetched = join_all(registrations.iter().map(async |event| {
        let agent = event.agent_id.to_string();
        let outcome = replicas.check_document(&event.uri, &agent, &gate).await;
        outcome
            .inspect_err(|error| output::text(&format!("{error:#}")))
            .is_ok()
    }))
    .await;
    let served = fetched.into_iter().filter(|served| *served).count();
    output::text(&format!(
        "{served} documents, each in the same bytes from the Service and from the gate"
    ));
    Ok(count(served))
}

/// Backs up the records and removes the operator with all of them. What is on the chain stays.
async fn remove_everything(sandbox: &Sandbox) -> Result<()> {
    sandbox.follow(Section::Backup, Show::Everything).await?;
    sandbox.follow(Section::Uninstall, Show::Everything).await?;
    sandbox.follow(Section::Remove, Show::Everything).await
}

async fn restore(sandbox: &Sandbox, offers: &mut Offers) -> Result<()> {
    sandbox.follow(Section::Install, Show::LineCount).await?;
    sandbox.follow(Section::Restore, Show::LineCount).await?;
    sandbox.follow(Section::Scale, Show::LineCount).await?;
    offers.wait_registered(OFFERS, REGISTRATION).await?;
    output::text(&format!("{OFFERS} offers are registered"));
    Ok(())
}

async fn show_counts(chain: &Chain) -> Result<ChainCounts> {
    let counts = chain::counts(chain).await?;
    output::text(&format!(
        "{} Registered events with {} different keys",
        counts.minted.len(),
        counts.distinct_keys()
    ));
    output::text(&format!(
        "the signer owns {} agents and has sent {} transactions",
        counts.owned, counts.sent
    ));
    Ok(counts)
}

/// Prints what was promised, and whether it was kept.
pub fn show_verdict(summary: &Summary, broken: &[String]) {
    output::line("");
    let Summary {
        offers,
        registered,
        registrations,
        duplicates,
        documents_served,
        purchases,
        delivered,
        transfers,
        unpaid,
        cost,
        ..
    } = summary;
    output::verdict(
        broken.is_empty(),
        &format!(
            "{offers} offers, {registrations} registrations, {duplicates} duplicates; \
             {registered} confirmed by status, {documents_served} documents served"
        ),
    );
    output::verdict(
        broken.is_empty(),
        &format!(
            "{purchases} purchases, {delivered} answers, {transfers} transfers, {unpaid} unpaid"
        ),
    );
    for promise in broken {
        output::verdict(false, promise);
    }
    output::text(&format!(
        "takeover took {:.1} s, with {} nonces in flight when the leader died",
        summary.takeover_seconds, summary.in_flight_at_death
    ));
    output::text(&format!(
        "each registration used {} to {} gas; \
         together they cost {} (native token) at {:.2} gwei per gas",
        cost.least_gas,
        cost.most_gas,
        format_ether(cost.total_wei),
        cost.wei_per_gas as f64 / 1e9
    ));
}

/// Prints how to explore the cluster, which stays up.
pub fn show_next_steps() {
    output::line("\nThe cluster stays up. To explore it:");
    for (command, purpose) in [
        ("make testbed-shell", "open a shell with kubectl and helm"),
        ("kubectl get so -A", "list offers"),
        (
            "kubectl get idr,areg,sl",
            "list registries, records and ledgers",
        ),
        ("make demo-down", "remove everything"),
    ] {
        output::text(&format!("{command:<24}  {purpose}"));
    }
}
