//! What a buyer is asked to sign: one payment of an offer as an x402 requirement of scheme `exact`,
//! with the price in atomic units of its token. Pure.
//!
//! A price is converted exactly or not at all. What is known of a token comes, in this order, from
//! its chain (`PaymentFacilitator.status.assets`), from the offer, and from the table of USD Coin
//! contracts here. An offer that contradicts its chain is not sold.

use alloy::primitives::{Address, B256, U256, address};
use alloy::sol_types::Eip712Domain;

use crate::api::{
    Asset, Payment, PaymentFlow, PaymentMethod, PriceTable, TokenFacts, TransferMethod, network,
};

/// Shortest `maxTimeoutSeconds` with which a payment can be settled: a facilitator has 30 s to
/// settle, and there must be time for the work before.
pub(crate) const SHORTEST_TIMEOUT: u32 = 45;

/// A token, as its EIP-712 domain and its decimals describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub address: Address,
    /// Name in the EIP-712 domain.
    pub name: String,
    /// Version in the EIP-712 domain.
    pub version: String,
    pub decimals: u8,
    /// Whether the chain was asked.
    pub is_verified: bool,
}

/// One way to pay for a route: an entry of `accepts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub chain_id: u64,
    pub token: Token,
    /// In atomic units; never 0.
    pub amount: U256,
    pub pay_to: Address,
    pub max_timeout_seconds: u32,
    pub flow: PaymentFlow,
}

impl Terms {
    /// The network as a CAIP-2 id.
    pub(crate) fn network(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }

    /// The network's name in version 1 of x402, if it has one.
    pub(crate) fn v1_network(&self) -> Option<&'static str> {
        let mut networks = V1_NETWORKS.iter();
        networks
            .find(|(id, _)| *id == self.chain_id)
            .map(|(_, name)| *name)
    }

    /// The network's name in version 1, or its CAIP-2 id.
    pub(crate) fn network_name(&self) -> String {
        let alias = self.v1_network();
        alias.map_or_else(|| self.network(), str::to_owned)
    }
}

/// Why a payment of an offer cannot be taken. A variant's name is the reason of the condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, strum::IntoStaticStr)]
pub(crate) enum Unpayable {
    /// Card payments, Permit2, or no wallet.
    #[error("{0}")]
    NotSupported(&'static str),
    /// Stored by a schema that did not check it.
    #[error("price {0:?} is not a positive decimal number: write it like \"0.002\"")]
    InvalidPrice(String),
    /// The price has no unit that a request can be charged in.
    #[error(
        "this version charges per request: set price.perRequest, or price.perMTok, of which a request costs a thousandth"
    )]
    NoRequestPrice,
    /// The price is not a whole number of atomic units.
    #[error(
        "{price} is finer than the token allows: it has {decimals} decimals, and nothing is rounded"
    )]
    PriceTooFine { price: String, decimals: u8 },
    /// The price does not fit into the token.
    #[error("{0} is more than a token can express")]
    PriceTooLarge(String),
    /// A payment could expire before it is settled.
    #[error(
        "maxTimeoutSeconds is {0}: set it to 45 or more, or a payment expires before it is settled"
    )]
    TimeoutTooShort(u32),
    /// No such chain.
    #[error("network {0:?} is not known: use a CAIP-2 id like eip155:8453")]
    UnknownNetwork(String),
    /// Too little is known of the token to ask for a signature.
    #[error(
        "nothing is known of token {token} on {network}: set payment.asset.address, eip712Name, eip712Version and decimals"
    )]
    UnknownAsset { token: String, network: String },
    /// The offer says something else of the token than its chain.
    #[error(
        "payment.asset.{field} is {offered:?}, but the token on {network} says {actual:?}: correct it, or remove it"
    )]
    InvalidAsset {
        field: &'static str,
        offered: String,
        actual: String,
        network: String,
    },
    /// The token would refuse what buyers sign (EIP-712).
    #[error(
        "DOMAIN_SEPARATOR() of token {token} on {network} is not that of name {name:?} and version {version:?}: set payment.asset.eip712Name and eip712Version to those of its EIP-712 domain"
    )]
    OtherDomain {
        token: Address,
        network: String,
        name: String,
        version: String,
    },
}

impl Unpayable {
    /// Reason of the condition.
    pub(crate) fn reason(&self) -> &'static str {
        self.into()
    }
}

/// Networks that have a name in version 1 of x402.
const V1_NETWORKS: [(u64, &str); 11] = [
    (8453, "base"),
    (84532, "base-sepolia"),
    (43114, "avalanche"),
    (43113, "avalanche-fuji"),
    (137, "polygon"),
    (80002, "polygon-amoy"),
    (1329, "sei"),
    (1328, "sei-testnet"),
    (4689, "iotex"),
    (3338, "peaq"),
    (2741, "abstract"),
];

/// USD Coin by chain: contract and EIP-712 name. Version "2" and 6 decimals everywhere. Source: the
/// contracts that Circle lists, with the names that `name()` answers there.
const USDC: [(u64, Address, &str); 14] = [
    (
        8453,
        address!("833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"),
        "USD Coin",
    ),
    (
        84532,
        address!("036CbD53842c5426634e7929541eC2318f3dCF7e"),
        "USDC",
    ),
    (
        1,
        address!("A0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"),
        "USD Coin",
    ),
    (
        137,
        address!("3c499c542cEF5E3811e1192ce70d8cC03d5c3359"),
        "USD Coin",
    ),
    (
        80002,
        address!("41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582"),
        "USDC",
    ),
    (
        42161,
        address!("af88d065e77c8cC2239327C5EDb3A432268e5831"),
        "USD Coin",
    ),
    (
        421_614,
        address!("75faf114eafb1BDbe2F0316DF893fd58CE46AA4d"),
        "USD Coin",
    ),
    (
        43114,
        address!("B97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E"),
        "USD Coin",
    ),
    (
        43113,
        address!("5425890298aed601595a70AB815c96711a31Bc65"),
        "USD Coin",
    ),
    (
        143,
        address!("754704Bc059F8C67012fEd69BC8A327a5aafb603"),
        "USDC",
    ),
    (
        42220,
        address!("cebA9300f2b948710d2653dD7B07f33A8B32118C"),
        "USDC",
    ),
    (
        11_142_220,
        address!("01C5C0122039549AD1493B8220cABEdD739BC44E"),
        "USDC",
    ),
    (
        1329,
        address!("e15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392"),
        "USDC",
    ),
    (
        1328,
        address!("4fCF1784B31630811181f670Aea7A7bEF803eaED"),
        "USDC",
    ),
];

/// Chain and address of the token that a payment is made in: the one that it names, or USDC.
pub(crate) fn token_of(payment: &Payment) -> Option<(u64, Address)> {
    let network = payment.network.as_deref()?;
    let chain_id =
        network::chain_id(network).filter(|_| payment.method == PaymentMethod::Crypto)?;
    Some((chain_id, address_of(chain_id, payment.asset.as_ref())?))
}

fn address_of(chain_id: u64, offered: Option<&Asset>) -> Option<Address> {
    if let Some(address) = offered.and_then(|asset| asset.address.as_deref()) {
        return address.parse().ok();
    }
    let symbol = offered.and_then(|asset| asset.symbol.as_deref());
    let is_usdc = symbol.is_none_or(|symbol| symbol.eq_ignore_ascii_case("USDC"));
    let known = usdc(chain_id).filter(|_| is_usdc)?;
    Some(known.1)
}

fn usdc(chain_id: u64) -> Option<&'static (u64, Address, &'static str)> {
    USDC.iter().find(|(id, ..)| *id == chain_id)
}

/// The terms of a payment at a price. `assets` is what facilitators know of tokens.
///
/// # Errors
/// What must be changed before a buyer can pay so.
pub(crate) fn terms(
    payment: &Payment,
    price: &PriceTable,
    assets: &[TokenFacts],
) -> Result<Terms, Unpayable> {
    if payment.method == PaymentMethod::Card {
        return Err(Unpayable::NotSupported(
            "card payments are not supported by this version",
        ));
    }
    let asset = payment.asset.as_ref();
    if asset.and_then(|asset| asset.transfer_method) == Some(TransferMethod::Permit2) {
        return Err(Unpayable::NotSupported(
            "transferMethod permit2 is not supported by this version: use a token with eip3009",
        ));
    }
    let network = payment.network.as_deref().unwrap_or_default();
    let chain_id =
        network::chain_id(network).ok_or_else(|| Unpayable::UnknownNetwork(network.to_owned()))?;
    let pay_to = payment.pay_to.as_deref().unwrap_or_default();
    let pay_to = pay_to.parse().map_err(|_| {
        Unpayable::NotSupported("payTo is missing: set it to the wallet to be paid")
    })?;
    if payment.max_timeout_seconds < SHORTEST_TIMEOUT {
        return Err(Unpayable::TimeoutTooShort(payment.max_timeout_seconds));
    }
    let token = token(chain_id, asset, assets)?;
    Ok(Terms {
        chain_id,
        amount: amount(price, token.decimals)?,
        token,
        pay_to,
        max_timeout_seconds: payment.max_timeout_seconds,
        flow: payment.flow.unwrap_or_default(),
    })
}

/// What is known of the token that a payment asks for.
fn token(
    chain_id: u64,
    offered: Option<&Asset>,
    assets: &[TokenFacts],
) -> Result<Token, Unpayable> {
    let network = format!("eip155:{chain_id}");
    let unknown = || {
        let named = offered.and_then(|asset| asset.address.as_deref());
        let symbol = offered.and_then(|asset| asset.symbol.as_deref());
        Unpayable::UnknownAsset {
            token: named.or(symbol).unwrap_or("USDC").to_owned(),
            network: network.clone(),
        }
    };
    let address = address_of(chain_id, offered).ok_or_else(unknown)?;
    let is_asked =
        |known: &&TokenFacts| known.network == network && known.address.parse() == Ok(address);
    let actual = assets.iter().find(is_asked);
    let listed = usdc(chain_id).filter(|(_, listed, _)| *listed == address);

    // The domain may have another name than the token, and then the offer may say so.
    let name = offered.and_then(|asset| asset.eip712_name.clone());
    let name = name.or_else(|| actual.map(|actual| actual.name.clone()));
    let name = name.or_else(|| listed.map(|(.., name)| (*name).to_owned()));
    let version = offered.and_then(|asset| asset.eip712_version.clone());
    let version = version.or_else(|| actual.and_then(|actual| actual.version.clone()));
    let version = version.or_else(|| listed.map(|_| "2".to_owned()));
    let decimals = actual.map(|actual| actual.decimals);
    let decimals = decimals.or_else(|| offered.and_then(|asset| asset.decimals));
    let mut token = Token {
        address,
        name: name.ok_or_else(unknown)?,
        version: version.ok_or_else(unknown)?,
        decimals: decimals.or(listed.map(|_| 6)).ok_or_else(unknown)?,
        is_verified: false,
    };
    if let Some(actual) = actual {
        token.is_verified = is_verified(&token, chain_id, offered, actual)?;
    }
    Ok(token)
}

/// Whether the chain proves the domain of a token. One without `DOMAIN_SEPARATOR()` only answers with
/// a name and perhaps a version, which the offer must not contradict.
fn is_verified(
    token: &Token,
    chain_id: u64,
    offered: Option<&Asset>,
    actual: &TokenFacts,
) -> Result<bool, Unpayable> {
    let agrees = |field, offered: Option<String>, answer: &str| match offered {
        Some(offered) if offered != answer => Err(Unpayable::InvalidAsset {
            field,
            offered,
            actual: answer.to_owned(),
            network: actual.network.clone(),
        }),
        _ => Ok(()),
    };
    let decimals = offered.and_then(|asset| asset.decimals);
    let decimals = decimals.map(|decimals| decimals.to_string());
    agrees("decimals", decimals, &actual.decimals.to_string())?;

    let separator = domain_separator(chain_id, token.address, &token.name, &token.version);
    if actual.domain_separator == Some(separator) {
        return Ok(true);
    }
    let name = offered.and_then(|asset| asset.eip712_name.clone());
    agrees("eip712Name", name, &actual.name)?;
    if let Some(actual) = &actual.version {
        let version = offered.and_then(|asset| asset.eip712_version.clone());
        agrees("eip712Version", version, actual)?;
    }
    match actual.domain_separator {
        Some(_) => Err(Unpayable::OtherDomain {
            token: token.address,
            network: actual.network.clone(),
            name: token.name.clone(),
            version: token.version.clone(),
        }),
        None => Ok(false),
    }
}

/// Hash of the EIP-712 domain of a token.
pub(super) fn domain_separator(chain_id: u64, token: Address, name: &str, version: &str) -> B256 {
    let domain = Eip712Domain::new(
        Some(name.to_owned().into()),
        Some(version.to_owned().into()),
        Some(U256::from(chain_id)),
        Some(token),
        None,
    );
    domain.separator()
}

/// What one request costs, in atomic units of a token: the price per request, or a thousandth of
/// the price per million tokens.
///
/// # Errors
/// If the price cannot be expressed exactly.
pub(crate) fn amount(price: &PriceTable, decimals: u8) -> Result<U256, Unpayable> {
    let (text, shift) = match (&price.per_request, &price.per_mtok) {
        (Some(per_request), _) => (per_request, 0),
        (None, Some(per_mtok)) => (per_mtok, 3),
        (None, None) => return Err(Unpayable::NoRequestPrice),
    };
    let invalid = || Unpayable::InvalidPrice(text.clone());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(invalid());
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Err(invalid());
    }
    // The price is `significant` * 10^-scale, and an atomic unit is 10^-decimals.
    let dropped = digits.len() - significant.len();
    let scale = fraction.len() as i64 + shift - dropped as i64;
    let zeros = usize::try_from(i64::from(decimals) - scale).map_err(|_| {
        let price = match shift {
            0 => text.clone(),
            _ => format!("{text} / 1000"),
        };
        Unpayable::PriceTooFine { price, decimals }
    })?;
    let atomic = format!("{significant}{}", "0".repeat(zeros));
    U256::from_str_radix(&atomic, 10).map_err(|_| Unpayable::PriceTooLarge(text.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PAY_TO: &str = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";

    fn payment(over: Value) -> Payment {
        let mut payment = json!({
            "network": "base-sepolia", "payTo": PAY_TO, "price": { "perRequest": "0.002" },
        });
        crate::registration::fixtures::merge(&mut payment, over);
        serde_json::from_value(payment).unwrap()
    }

    fn terms_of(over: Value, assets: &[TokenFacts]) -> Result<Terms, Unpayable> {
        let payment = payment(over);
        terms(&payment, &payment.price, assets)
    }

    fn price(per_request: &str) -> PriceTable {
        PriceTable {
            per_request: Some(per_request.into()),
            ..PriceTable::default()
        }
    }

    fn asset(over: Value) -> TokenFacts {
        let mut asset = json!({
            "network": "eip155:84532", "address": "0x036cbd53842c5426634e7929541ec2318f3dcf7e",
            "name": "USDC", "version": "2", "decimals": 6,
        });
        crate::registration::fixtures::merge(&mut asset, over);
        serde_json::from_value(asset).unwrap()
    }

    /// A token that answers DOMAIN_SEPARATOR() as one of that name and version.
    fn asset_in_domain(name: &str, version: &str) -> TokenFacts {
        let mut asset = asset(json!({}));
        let token = asset.address.parse().unwrap();
        asset.domain_separator = Some(domain_separator(84532, token, name, version));
        asset
    }

    #[test]
    fn token_is_the_one_that_a_payment_names_or_usdc() {
        let token = |over: Value| token_of(&payment(over));
        assert_eq!(token(json!({})).unwrap().0, 84532);
        assert_eq!(token(json!({ "asset": { "symbol": "EURC" } })), None);
        assert_eq!(token(json!({ "network": "eip155:31337" })), None);
        assert_eq!(token(json!({ "method": "card" })), None);
        let own = json!({ "asset": { "symbol": "EURC", "address": PAY_TO } });
        assert_eq!(token(own), Some((84532, PAY_TO.parse().unwrap())));
    }

    #[test]
    fn payment_in_the_default_token_has_all_terms() {
        let terms = terms_of(json!({}), &[]).unwrap();
        assert_eq!(
            (terms.network().as_str(), terms.v1_network()),
            ("eip155:84532", Some("base-sepolia"))
        );
        assert_eq!(terms.network_name(), "base-sepolia");
        assert_eq!(terms.amount, U256::from(2000));
        assert_eq!(terms.pay_to, PAY_TO.parse::<Address>().unwrap());
        assert_eq!(
            (terms.max_timeout_seconds, terms.flow),
            (300, PaymentFlow::Authorization)
        );
        let token = terms.token;
        assert_eq!(Some(token.address), address_of(84532, None));
        assert_eq!((token.name.as_str(), token.version.as_str()), ("USDC", "2"));
        assert_eq!((token.decimals, token.is_verified), (6, false));
    }

    #[test]
    fn price_is_converted_exactly() {
        for (text, decimals, atomic) in [
            ("1", 6, 1_000_000),
            ("0.000001", 6, 1),
            ("0.0020", 6, 2000),
            ("0.00100000000", 6, 1000),
            ("100", 0, 100),
            ("12.50", 2, 1250),
            ("3000", 3, 3_000_000),
        ] {
            let expected = Ok(U256::from(atomic));
            assert_eq!(amount(&price(text), decimals), expected, "{text}");
        }
    }

    #[test]
    fn price_agrees_with_a_sum_of_digits_for_random_decimals() {
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for _ in 0..20_000 {
            let (whole, fraction) = (random(1_000_000), random(1_000_000));
            let (width, decimals) = (6_u32, random(12) as u8);
            let text = format!("{whole}.{fraction:06}");
            let units = u128::from(whole) * 10_u128.pow(width) + u128::from(fraction);
            let scaled = units * 10_u128.pow(u32::from(decimals));
            let exact = scaled.is_multiple_of(10_u128.pow(width)) && units > 0;
            let expected = exact.then(|| U256::from(scaled / 10_u128.pow(width)));
            assert_eq!(amount(&price(&text), decimals).ok(), expected, "{text}");
        }
    }

    #[test]
    fn price_that_is_not_exact_is_refused() {
        let fine = |price: &str| Unpayable::PriceTooFine {
            price: price.into(),
            decimals: 6,
        };
        assert_eq!(amount(&price("0.0000001"), 6), Err(fine("0.0000001")));
        let per_mtok = PriceTable {
            per_mtok: Some("0.0001".into()),
            ..PriceTable::default()
        };
        assert_eq!(amount(&per_mtok, 6), Err(fine("0.0001 / 1000")));
        let huge = "9".repeat(36);
        assert_eq!(
            amount(&price(&huge), 255),
            Err(Unpayable::PriceTooLarge(huge.clone()))
        );
        for text in ["0", "0.0", "", ".5", "1,5", "-1", "1e3", "1.2.3"] {
            let invalid = Err(Unpayable::InvalidPrice(text.into()));
            assert_eq!(amount(&price(text), 6), invalid, "{text}");
        }
    }

    #[test]
    fn price_per_million_tokens_is_charged_by_the_thousand() {
        let per_mtok = PriceTable {
            per_mtok: Some("2".into()),
            ..PriceTable::default()
        };
        assert_eq!(amount(&per_mtok, 6), Ok(U256::from(2000)));
        let none = PriceTable::default();
        assert_eq!(amount(&none, 6), Err(Unpayable::NoRequestPrice));
    }

    #[test]
    fn token_of_the_chain_is_verified() {
        let terms = terms_of(
            json!({ "asset": { "eip712Name": "USDC" } }),
            &[asset_in_domain("USDC", "2")],
        );
        assert!(terms.unwrap().token.is_verified);
        let elsewhere = asset(json!({ "network": "eip155:1" }));
        assert!(!terms_of(json!({}), &[elsewhere]).unwrap().token.is_verified);
    }

    #[test]
    fn version_that_the_chain_does_not_say_is_the_offers() {
        let silent = [asset(json!({ "version": null }))];
        let version = |over: Value| terms_of(over, &silent).map(|terms| terms.token.version);
        assert_eq!(version(json!({})).as_deref(), Ok("2"));
        let own = json!({ "asset": { "eip712Version": "7" } });
        assert_eq!(version(own).as_deref(), Ok("7"));
        let elsewhere = json!({ "network": "eip155:31337", "address": PAY_TO, "version": null });
        let silent = [asset(elsewhere)];
        let own = json!({ "network": "eip155:31337", "asset": { "address": PAY_TO } });
        assert_eq!(terms_of(own, &silent).unwrap_err().reason(), "UnknownAsset");
        let other = [asset(
            json!({ "address": PAY_TO.to_ascii_lowercase(), "version": null }),
        )];
        let own = json!({ "asset": { "address": PAY_TO } });
        let refused = terms_of(own, &other).unwrap_err();
        assert_eq!(
            refused.reason(),
            "UnknownAsset",
            "only USDC has a version that is known"
        );
    }

    #[test]
    fn offer_that_contradicts_the_chain_is_refused_with_both_values() {
        let assets = [asset(json!({}))];
        for (field, value) in [
            ("eip712Name", json!("USD Coin")),
            ("eip712Version", json!("1")),
            ("decimals", json!(18)),
        ] {
            let refused = terms_of(json!({ "asset": { field: value } }), &assets).unwrap_err();
            assert_eq!(refused.reason(), "InvalidAsset");
            let message = refused.to_string();
            let actual = match field {
                "eip712Name" => "USDC",
                "eip712Version" => "2",
                _ => "6",
            };
            let offered = value.as_str().map_or("18".to_owned(), str::to_owned);
            for part in [field, &offered, actual, "eip155:84532"] {
                assert!(message.contains(part), "{message}");
            }
        }
    }

    #[test]
    fn domain_is_that_of_tokens_on_public_chains() {
        for (chain_id, token, name, separator) in [
            (
                1,
                "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48",
                "USD Coin",
                "0x06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335",
            ),
            (
                84532,
                "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                "USDC",
                "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
            ),
        ] {
            let own = domain_separator(chain_id, token.parse().unwrap(), name, "2");
            assert_eq!(own.to_string(), separator);
        }
    }

    #[test]
    fn token_in_another_domain_than_its_name_makes_is_sold_only_if_the_offer_says_so() {
        let assets = [asset_in_domain("USD Coin", "2")];
        let refused = terms_of(json!({}), &assets).unwrap_err();
        assert_eq!(refused.reason(), "OtherDomain");
        assert!(refused.to_string().contains("eip712Name"), "{refused}");
        let said = json!({ "asset": { "eip712Name": "USD Coin" } });
        let token = terms_of(said, &assets).unwrap().token;
        assert_eq!((token.name.as_str(), token.is_verified), ("USD Coin", true));
        let wrong = json!({ "asset": { "eip712Name": "Dollar" } });
        let refused = terms_of(wrong, &assets).unwrap_err();
        assert_eq!(refused.reason(), "InvalidAsset");
    }

    #[test]
    fn token_that_is_not_known_must_be_described() {
        let own = "0x9fE46736679d2D9a65F0992F2272dE9f3c7fa6e0";
        let described = json!({
            "asset": { "address": own, "eip712Name": "Own", "eip712Version": "1", "decimals": 18 },
            "network": "eip155:31337",
        });
        let terms = terms_of(described, &[]).unwrap();
        assert_eq!(terms.v1_network(), None);
        assert_eq!(terms.network_name(), "eip155:31337");
        assert_eq!(terms.token.address, own.parse::<Address>().unwrap());
        assert_eq!(terms.amount, U256::from(2_000_000_000_000_000_u64));
        for asset in [
            json!({ "address": own }),
            json!({ "address": own, "eip712Name": "Own" }),
            json!({ "address": own, "eip712Name": "Own", "eip712Version": "1" }),
            json!({ "symbol": "OBOL" }),
            json!({ "address": "0x12" }),
        ] {
            let refused = terms_of(json!({ "asset": asset }), &[]).unwrap_err();
            assert_eq!(refused.reason(), "UnknownAsset", "{asset}");
        }
        let elsewhere = terms_of(json!({ "network": "eip155:31337" }), &[]).unwrap_err();
        assert_eq!(elsewhere.reason(), "UnknownAsset");
    }

    #[test]
    fn payment_that_cannot_be_taken_is_refused() {
        for (over, reason) in [
            (json!({ "method": "card" }), "NotSupported"),
            (
                json!({ "asset": { "transferMethod": "permit2" } }),
                "NotSupported",
            ),
            (json!({ "payTo": null }), "NotSupported"),
            (json!({ "network": "solana" }), "UnknownNetwork"),
            (json!({ "network": null }), "UnknownNetwork"),
            (json!({ "maxTimeoutSeconds": 44 }), "TimeoutTooShort"),
            (json!({ "price": { "perRequest": null } }), "NoRequestPrice"),
        ] {
            let refused = terms_of(over.clone(), &[]).unwrap_err();
            assert_eq!(refused.reason(), reason, "{over}");
        }
    }
}
