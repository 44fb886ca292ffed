//! What happens in the demo, step by step.

use std::path::Path;
use std::time::Duration;

use alloy::primitives::utils::format_ether;
use anyhow::{Context, Result};
use futures::future::join_all;
use harness::wait::until;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::DeleteParams;
use testbed::Cluster;

use crate::chain::{self, CHAIN_ID, Chain};
use crate::manual::Chapter;
use crate::offers::{self, Batch, Offers};
use crate::release::{self, Release};
use crate::screen::{self, Screen, output, say};
use crate::summary::{Summary, count};
use crate::workplace::{Answer, Workplace};

const OFFERS: usize = 24;
const REPLICAS: usize = 3;
/// How long twelve offers may take to be registered.
const REGISTRATION: Duration = Duration::from_secs(60);
/// Where the chart looks for the image, and `make image` puts it.
const IMAGE: &str = "ghcr.io/obolnetwork/serviceoffer-controller";

/// Plays all steps, and returns what was counted.
pub async fn play(cluster: &Cluster, mut screen: Screen) -> Result<Summary> {
    let workplace = Workplace::open(cluster)?;
    screen
        .step(
            "A cluster as if nothing had been installed",
            clean(cluster, &workplace),
        )
        .await?;
    let chain = screen
        .step(
            "An EVM chain with an identity registry, in the cluster",
            start_chain(cluster),
        )
        .await?;
    screen
        .step("The operator", install(cluster, &workplace))
        .await?;
    let release = Release::of(cluster).await?;
    screen
        .step(
            "One IdentityRegistry; its signer is not the deployer",
            use_chain(&workplace, &chain),
        )
        .await?;
    let mut offers = Offers::of(cluster.client());
    screen
        .step(
            "12 offers in 3 namespaces become agents",
            first_offers(&workplace, &mut offers),
        )
        .await?;
    screen
        .step("Documents and metrics", expose(&workplace))
        .await?;
    screen
        .step("Three replicas", scale(&workplace, &release))
        .await?;
    let (death, takeover) = screen
        .step(
            "The leader dies while 12 more offers are being registered",
            lose_leader(&release, &chain, &offers),
        )
        .await?;
    screen
        .step(
            "The others go on",
            offers.watch(OFFERS, takeover.limit + REGISTRATION),
        )
        .await?;
    screen
        .step("What each replica counts afterwards", metrics(&release))
        .await?;
    let documents = screen
        .step(
            "Every document, as its on-chain URI leads to it",
            documents(&release, &chain),
        )
        .await?;
    screen
        .step(
            "A backup, and then everything is removed",
            lose_everything(&workplace),
        )
        .await?;
    screen
        .step("Restored from the backup", restore(&workplace, &mut offers))
        .await?;
    let census = screen
        .step("The chain's own count", show_census(&chain))
        .await?;
    screen
        .step(
            "What people see",
            workplace.follow(Chapter::Status, Answer::Shown),
        )
        .await?;
    let told = offers.told().await?;
    Ok(Summary {
        offers: count(told.len()),
        registered: census.confirmed(&told),
        registrations: count(census.minted.len()),
        duplicates: census.duplicates(),
        transactions: census.sent,
        in_flight_at_death: death.in_flight,
        takeover_seconds: takeover.duration.as_secs_f64(),
        takeover_limit_seconds: takeover.limit.as_secs_f64(),
        documents_served: documents,
        cost: chain.cost().await?,
        steps: screen.into_steps(),
    })
}

/// Removes what an earlier demo left, in the way that the README tells people to.
async fn clean(cluster: &Cluster, workplace: &Workplace) -> Result<()> {
    let is_installed = format!(
        "helm status {} --namespace {}",
        release::NAME,
        release::NAMESPACE
    );
    if workplace.ask(&is_installed).await.is_ok() {
        workplace.follow(Chapter::Uninstall, Answer::Shown).await?;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client());
    // The last one that the README removes.
    if definitions
        .get_opt("signerledgers.obol.org")
        .await?
        .is_some()
    {
        workplace.follow(Chapter::Remove, Answer::Shown).await?;
    }
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let own = offers::NAMESPACES
        .into_iter()
        .chain([chain::NAMESPACE, release::NAMESPACE]);
    for name in own.clone() {
        // The API server refuses to delete what it is deleting: what counts is that it is gone in the end.
        let _ = namespaces.delete(name, &DeleteParams::background()).await;
    }
    for name in own {
        until(
            &format!("namespace {name} is gone"),
            Duration::from_secs(120),
            async || match namespaces.get_opt(name).await? {
                None => Ok(()),
                Some(_) => anyhow::bail!("it is there"),
            },
        )
        .await?;
    }
    output("nothing of the operator is here");
    Ok(())
}

async fn start_chain(cluster: &Cluster) -> Result<Chain> {
    let chain = Chain::start(cluster).await?;
    output(&format!(
        "anvil at {}, chain {CHAIN_ID}, a block each second",
        chain.url()
    ));
    output(&format!(
        "registry {} deployed by {}",
        chain.registry,
        chain.deployer.address()
    ));
    output(&format!("signer   {}", chain.signer.address()));
    Ok(chain)
}

/// Loads the image and installs the chart. The README's values name the reader's image; here it is the one on the node.
async fn install(cluster: &Cluster, workplace: &Workplace) -> Result<()> {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/image.tar");
    cluster
        .load(&archive)
        .await
        .context("loading target/image.tar: `make image` packs it")?;
    workplace.write_changed(
        "values.yaml",
        &[("registry.example.org/serviceoffer-controller", IMAGE)],
    )?;
    let refused =
        "another release on this node would be in the way: `make demo-down` removes everything";
    workplace
        .follow(Chapter::Install, Answer::Hidden)
        .await
        .context(refused)
}

/// Applies the README's IdentityRegistry, with the demo's chain in place of a public one.
async fn use_chain(workplace: &Workplace, chain: &Chain) -> Result<()> {
    workplace.write("signer.key", chain.key())?;
    let (chain_id, signer) = (
        format!("chainId: {CHAIN_ID}"),
        chain.signer.address().to_string(),
    );
    workplace.write_changed(
        "registry.yaml",
        &[
            (
                &chain_id,
                &format!("{chain_id}\n  address: \"{}\"", chain.registry),
            ),
            ("https://sepolia.base.org", &chain.url()),
            ("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", &signer),
            ("https://agents.example.org", release::BASE_URL),
        ],
    )?;
    workplace.follow(Chapter::Registry, Answer::Shown).await
}

/// Makes the README's first offer, and eleven like it.
async fn first_offers(workplace: &Workplace, offers: &mut Offers) -> Result<()> {
    offers.prepare().await?;
    workplace.write_changed("offer.yaml", &[])?;
    workplace.follow(Chapter::Offer, Answer::Shown).await?;
    offers.make(Batch::First).await?;
    offers.watch(OFFERS / 2, REGISTRATION).await
}

async fn expose(workplace: &Workplace) -> Result<()> {
    workplace.follow(Chapter::Expose, Answer::Hidden).await?;
    workplace.follow(Chapter::Metrics, Answer::Hidden).await
}

async fn scale(workplace: &Workplace, release: &Release) -> Result<()> {
    workplace.follow(Chapter::Scale, Answer::Hidden).await?;
    release.ready(REPLICAS).await?;
    output(&format!("{} leads", release.leader().await?));
    release.show_metrics().await
}

async fn lose_leader(
    release: &Release,
    chain: &Chain,
    offers: &Offers,
) -> Result<(release::Death, release::Takeover)> {
    offers.make(Batch::Later).await?;
    let death = release
        .kill_leader_in_flight(chain.signer.address(), CHAIN_ID)
        .await?;
    output(&format!(
        "{} killed with {} nonces in flight, {} of them signed",
        death.leader, death.in_flight, death.signed
    ));
    let takeover = release.takeover(&death).await?;
    output(&format!(
        "new leader is {}, {:.1} s after the death",
        takeover.leader,
        takeover.duration.as_secs_f64()
    ));
    output(&format!("its log: {}", takeover.line));
    Ok((death, takeover))
}

async fn metrics(release: &Release) -> Result<()> {
    release.ready(REPLICAS).await?;
    release.show_metrics().await
}

/// Fetches every document that the chain leads to, and returns how many are right everywhere.
async fn documents(release: &Release, chain: &Chain) -> Result<u64> {
    let pods = release.pods().await?;
    let registrations = chain.registrations().await?;
    let fetched = join_all(registrations.iter().map(async |event| {
        let outcome = release
            .document(&event.uri, &event.agent_id.to_string(), &pods)
            .await;
        outcome
            .inspect_err(|error| output(&format!("{error:#}")))
            .is_ok()
    }))
    .await;
    let served = fetched.into_iter().filter(|served| *served).count();
    output(&format!(
        "{served} documents: the same bytes from the Service and from each of {} replicas",
        pods.len()
    ));
    Ok(count(served))
}

/// Saves what is recorded, and removes the operator with all of it. What stands on chain stays.
async fn lose_everything(workplace: &Workplace) -> Result<()> {
    workplace.follow(Chapter::Backup, Answer::Shown).await?;
    workplace.follow(Chapter::Uninstall, Answer::Shown).await?;
    workplace.follow(Chapter::Remove, Answer::Shown).await
}

async fn restore(workplace: &Workplace, offers: &mut Offers) -> Result<()> {
    workplace.follow(Chapter::Install, Answer::Hidden).await?;
    workplace.follow(Chapter::Restore, Answer::Hidden).await?;
    workplace.follow(Chapter::Scale, Answer::Hidden).await?;
    offers.registered(OFFERS, REGISTRATION).await
}

async fn show_census(chain: &Chain) -> Result<crate::summary::Census> {
    let census = chain.census().await?;
    let keys: std::collections::BTreeSet<_> =
        census.minted.iter().map(|minted| &minted.key).collect();
    output(&format!(
        "{} Registered events, {} distinct keys",
        census.minted.len(),
        keys.len()
    ));
    output(&format!(
        "{} agents owned by the signer, {} transactions sent by it",
        census.owned, census.sent
    ));
    Ok(census)
}

/// Shows what was promised, and whether it was kept.
pub fn show_verdict(summary: &Summary, broken: &[String]) {
    say("");
    let Summary {
        offers,
        registered,
        registrations,
        duplicates,
        documents_served,
        cost,
        ..
    } = summary;
    screen::verdict(
        broken.is_empty(),
        &format!(
            "{offers} offers, {registrations} registrations, {duplicates} duplicates; {registered} confirmed by status, {documents_served} documents served"
        ),
    );
    for line in broken {
        screen::verdict(false, line);
    }
    output(&format!(
        "takeover {:.1} s after a death with {} nonces in flight",
        summary.takeover_seconds, summary.in_flight_at_death
    ));
    output(&format!(
        "a registration used {} to {} gas; all of them cost {} coins at {:.2} gwei per gas",
        cost.least_gas,
        cost.most_gas,
        format_ether(cost.total_wei),
        cost.wei_per_gas as f64 / 1e9
    ));
}

/// Says how to look around in what the demo leaves.
pub fn show_where_to_look() {
    say("\nThe cluster stays up. To look around:");
    output("make testbed-shell                      a shell with kubectl and helm");
    output(
        "kubectl get so -A; kubectl get idr      offers and the registry; also areg (records) and sl (ledgers)",
    );
    output("make demo-down                          removes everything");
}
