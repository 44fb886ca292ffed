//! Reads results of calls. Pure.
//!
//! Only the fields that a decision needs are read, each in every form that real nodes use. Unknown
//! fields are ignored, and a field that is needed and missing is an error, never a default: a
//! default could look like an answer.

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use alloy::sol_types::{SolCall, SolEvent, SolValue};
use serde_json::Value;

use super::{
    AccountTransaction, AuthorizedTransfer, Block, OnChainAgent, Receipt, RegisteredEvent, abi,
};
use crate::api::Nonce;

/// Maximum bytes of an agent's URI that are kept.
const URI_LENGTH: usize = 64 * 1024;
/// Factor of the operator fee scalar (OP Stack, Isthmus).
const OPERATOR_FEE_SCALE: u128 = 1_000_000;

/// The part of a result that is missing or unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Missing(pub(super) &'static str);

type Read<T> = Result<T, Missing>;

/// An unsigned number: a hex string, with or without leading zeros, or a decimal number.
pub(super) fn quantity(value: &Value) -> Option<U256> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some("") => Some(U256::ZERO),
                Some(hex) => U256::from_str_radix(hex, 16).ok(),
                None if text.is_empty() => None,
                None => U256::from_str_radix(text, 10).ok(),
            }
        }
        Value::Number(number) => match number.as_u64() {
            Some(number) => Some(U256::from(number)),
            None => number
                .as_f64()
                .filter(|number| number.fract() == 0.0 && (0.0..9.0e15).contains(number))
                .map(|number| U256::from(number as u64)),
        },
        _ => None,
    }
}

/// A number of at most 64 bits.
pub(super) fn number(value: &Value) -> Option<u64> {
    quantity(value)?.try_into().ok()
}

/// An amount in wei; one that is larger than 128 bits counts as the largest.
pub(super) fn amount(value: &Value) -> Option<u128> {
    Some(quantity(value)?.saturating_to())
}

/// Bytes in hex, with or without a prefix.
pub(super) fn bytes(value: &Value) -> Option<Bytes> {
    let text = value.as_str()?.trim();
    let hex = text.strip_prefix("0X").unwrap_or(text);
    alloy::hex::decode(hex).ok().map(Bytes::from)
}

fn hash(value: &Value) -> Option<B256> {
    B256::try_from(bytes(value)?.as_ref()).ok()
}

fn address(value: &Value) -> Option<Address> {
    Address::try_from(bytes(value)?.as_ref()).ok()
}

/// A field that is there and not null.
fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// A field that every node returns.
fn required<T>(
    object: &Value,
    name: &str,
    read: impl FnOnce(&Value) -> Option<T>,
    missing: &'static str,
) -> Read<T> {
    field(object, name).and_then(read).ok_or(Missing(missing))
}

/// A field that not every chain has. One that is there must be readable.
fn optional<T>(
    object: &Value,
    name: &str,
    read: impl FnOnce(&Value) -> Option<T>,
    missing: &'static str,
) -> Read<Option<T>> {
    field(object, name)
        .map(|value| read(value).ok_or(Missing(missing)))
        .transpose()
}

/// A block; `None` if it does not exist.
pub(super) fn block(result: &Value) -> Read<Option<Block>> {
    if result.is_null() {
        return Ok(None);
    }
    Ok(Some(Block {
        number: required(result, "number", number, "number of a block")?,
        hash: required(result, "hash", hash, "hash of a block")?,
        timestamp: required(result, "timestamp", number, "timestamp of a block")?,
        base_fee: optional(result, "baseFeePerGas", amount, "base fee of a block")?,
    }))
}

/// A receipt; `None` if no block contains the transaction.
pub(super) fn receipt(result: &Value) -> Read<Option<Receipt>> {
    // Some nodes return a receipt for a pending transaction, without a block.
    let Some(block) = field(result, "blockNumber") else {
        return match result {
            Value::Null => Ok(None),
            Value::Object(fields) if fields.contains_key("blockNumber") => Ok(None),
            _ => Err(Missing("block of a receipt")),
        };
    };
    let gas_used = required(result, "gasUsed", amount, "gas used of a receipt")?;
    let paid = optional(
        result,
        "effectiveGasPrice",
        amount,
        "gas price of a receipt",
    )?;
    let offered = optional(result, "gasPrice", amount, "gas price of a receipt")?;
    let gas_price = paid.or(offered).ok_or(Missing("gas price of a receipt"))?;
    // Fees that OP Stack rollups charge besides gas, in fields of their own.
    let data_fee = optional(result, "l1Fee", amount, "L1 fee of a receipt")?.unwrap_or_default();
    let operator_fee = operator_fee(result, gas_used)?;
    Ok(Some(Receipt {
        succeeded: required(result, "status", status, "status of a receipt")?,
        block: number(block).ok_or(Missing("block of a receipt"))?,
        block_hash: optional(result, "blockHash", hash, "block hash of a receipt")?,
        cost: gas_price
            .saturating_mul(gas_used)
            .saturating_add(data_fee)
            .saturating_add(operator_fee),
    }))
}

/// Fee of the operator of an OP Stack rollup since its upgrade Isthmus.
fn operator_fee(receipt: &Value, gas_used: u128) -> Read<u128> {
    let part = |name| optional(receipt, name, amount, "operator fee of a receipt");
    let scalar = part("operatorFeeScalar")?.unwrap_or_default();
    let constant = part("operatorFeeConstant")?.unwrap_or_default();
    Ok((gas_used.saturating_mul(scalar) / OPERATOR_FEE_SCALE).saturating_add(constant))
}

/// Status of a receipt: a number, or a truth value at some nodes.
fn status(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(succeeded) => Some(*succeeded),
        value => match number(value)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
    }
}

/// Transactions of an account in a block that lists whole transactions.
pub(super) fn transactions_of(result: &Value, account: Address) -> Read<Vec<AccountTransaction>> {
    const MISSING: &str = "transactions of a block";
    let transactions = field(result, "transactions").and_then(Value::as_array);
    let mut found = Vec::new();
    for transaction in transactions.ok_or(Missing(MISSING))? {
        if required(transaction, "from", address, MISSING)? != account {
            continue;
        }
        let input = field(transaction, "input").or_else(|| field(transaction, "data"));
        found.push(AccountTransaction {
            hash: required(transaction, "hash", hash, MISSING)?,
            nonce: Nonce(required(transaction, "nonce", number, MISSING)?),
            to: optional(transaction, "to", address, MISSING)?,
            input: input.and_then(bytes).ok_or(Missing(MISSING))?,
        });
    }
    Ok(found)
}

/// Sender and nonce of a transaction; `None` if the endpoint does not know it.
pub(super) fn transaction(result: &Value) -> Read<Option<(Address, Nonce)>> {
    if result.is_null() {
        return Ok(None);
    }
    let sender = required(result, "from", address, "sender of a transaction")?;
    let nonce = required(result, "nonce", number, "nonce of a transaction")?;
    Ok(Some((sender, Nonce(nonce))))
}

/// Keccak-256 of code; `None` if there is no code.
pub(super) fn code_hash(result: &Value) -> Read<Option<B256>> {
    let code = match result {
        Value::Null => Bytes::new(),
        result => bytes(result).ok_or(Missing("code"))?,
    };
    Ok((!code.is_empty()).then(|| keccak256(code)))
}

/// An address in a storage slot; `None` if the slot is empty.
pub(super) fn address_in_slot(result: &Value) -> Read<Option<Address>> {
    let slot = quantity(result).ok_or(Missing("storage slot"))?;
    let address = Address::from_word(slot.into());
    Ok((!address.is_zero()).then_some(address))
}

/// Median of the rewards of recent blocks that are not zero; `None` if all are.
pub(super) fn median_reward(fee_history: &Value) -> Option<u128> {
    let rewards = field(fee_history, "reward")?.as_array()?;
    let mut rewards: Vec<u128> = rewards
        .iter()
        .filter_map(|block| amount(block.as_array()?.first()?))
        .filter(|reward| *reward > 0)
        .collect();
    rewards.sort_unstable();
    let upper = *rewards.get(rewards.len() / 2)?;
    // The same one if their number is odd.
    let lower = rewards[(rewards.len() - 1) / 2];
    Some(lower + (upper - lower) / 2)
}

/// What a call of a view function returned.
pub(super) fn returns<C: SolCall>(result: &Value, missing: &'static str) -> Read<C::Return> {
    let data = bytes(result).ok_or(Missing(missing))?;
    C::abi_decode_returns(&data).map_err(|_| Missing(missing))
}

/// An agent by its owner and the result of `tokenURI`, whose text anyone may have written: a URI
/// that is not text is kept as an empty one, and a huge one is cut.
pub(super) fn agent(owner: Address, token_uri: Option<&Value>) -> OnChainAgent {
    let data = token_uri.and_then(bytes).unwrap_or_default();
    let uri = Bytes::abi_decode(&data).unwrap_or_default();
    let text = std::str::from_utf8(&uri).unwrap_or_default();
    OnChainAgent {
        owner,
        uri: text[..text.floor_char_boundary(URI_LENGTH)].to_owned(),
        uri_hash: keccak256(&uri),
    }
}

/// One event of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnerEvent {
    /// An agent was registered for the owner.
    Registered(RegisteredEvent),
    /// An agent was minted to the owner.
    Minted(U256),
    /// Another account transferred an agent to the owner.
    Received,
}

/// Agents that came to an owner between two blocks.
pub(super) fn incoming(
    result: &Value,
    registry: Address,
    owner: Address,
    range: (u64, u64),
) -> Read<Vec<OwnerEvent>> {
    let owner = B256::left_padding_from(owner.as_slice());
    let mut events = Vec::new();
    for log in logs(result, registry, range)? {
        let [signature, second, third, rest @ ..] = &log.topics[..] else {
            continue;
        };
        if *third != owner {
            continue;
        }
        if *signature == abi::Registered::SIGNATURE_HASH {
            events.push(OwnerEvent::Registered(registered(&log, *second)?));
        } else if *signature == abi::Transfer::SIGNATURE_HASH {
            let agent_id = *rest.first().ok_or(Missing("topics of a log"))?;
            events.push(match *second {
                B256::ZERO => OwnerEvent::Minted(agent_id.into()),
                _ => OwnerEvent::Received,
            });
        }
    }
    Ok(events)
}

/// The transaction that made an authorized transfer between two blocks. A payer can use the nonce for
/// another transfer: only one that shows both is this one.
pub(super) fn transfer_transaction(
    result: &Value,
    token: Address,
    transfer: &AuthorizedTransfer,
    range: (u64, u64),
) -> Read<Option<B256>> {
    let logs = logs(result, token, range)?;
    let word = |address: Address| B256::left_padding_from(address.as_slice());
    let (from, to) = (word(transfer.from), word(transfer.to));
    let uses = [abi::AuthorizationUsed::SIGNATURE_HASH, from, transfer.nonce];
    let moves = [abi::Transfer::SIGNATURE_HASH, from, to];
    let value = B256::from(transfer.value);
    let has_moved = |transaction: B256| {
        let mut logs = logs.iter().filter(|log| log.transaction == transaction);
        logs.any(|log| log.topics == moves && log.data[..] == value[..])
    };
    let mut used = logs.iter().filter(|log| log.topics == uses);
    let transaction = used.find(|log| has_moved(log.transaction));
    Ok(transaction.map(|log| log.transaction))
}

/// Registrations of agents between two blocks, each with the account that it was made for.
pub(super) fn registrations(
    result: &Value,
    registry: Address,
    range: (u64, u64),
) -> Read<Vec<(Address, RegisteredEvent)>> {
    let mut found = Vec::new();
    for log in logs(result, registry, range)? {
        let [abi::Registered::SIGNATURE_HASH, agent_id, owner] = &log.topics[..] else {
            continue;
        };
        let event = registered(&log, *agent_id)?;
        found.push((Address::from_word(*owner), event));
    }
    Ok(found)
}

/// Number of agents that an owner transferred away between two blocks.
pub(super) fn outgoing(
    result: &Value,
    registry: Address,
    owner: Address,
    range: (u64, u64),
) -> Read<u64> {
    let wanted = [
        abi::Transfer::SIGNATURE_HASH,
        B256::left_padding_from(owner.as_slice()),
    ];
    let logs = logs(result, registry, range)?;
    Ok(logs
        .iter()
        .filter(|log| log.topics.starts_with(&wanted))
        .count() as u64)
}

struct Log {
    topics: Vec<B256>,
    data: Bytes,
    block: u64,
    block_hash: B256,
    transaction: B256,
}

/// Logs of a contract between two blocks. A node may return more than the filter asks for, which is
/// left out.
fn logs(result: &Value, contract: Address, (from, to): (u64, u64)) -> Read<Vec<Log>> {
    let logs = match result {
        // Some nodes return null instead of an empty list. It is not taken for one: a log that is
        // overlooked is a registration that looks absent.
        Value::Array(logs) => logs,
        _ => return Err(Missing("list of logs")),
    };
    let mut found = Vec::with_capacity(logs.len());
    for log in logs {
        if log.get("removed").and_then(Value::as_bool) == Some(true)
            || required(log, "address", address, "address of a log")? != contract
        {
            continue;
        }
        let block = required(log, "blockNumber", number, "block of a log")?;
        if !(from..=to).contains(&block) {
            continue;
        }
        let topics = required(log, "topics", topics, "topics of a log")?;
        found.push(Log {
            topics,
            data: required(log, "data", bytes, "data of a log")?,
            block,
            block_hash: required(log, "blockHash", hash, "block hash of a log")?,
            transaction: required(log, "transactionHash", hash, "transaction of a log")?,
        });
    }
    Ok(found)
}

fn topics(value: &Value) -> Option<Vec<B256>> {
    value.as_array()?.iter().map(hash).collect()
}

fn registered(log: &Log, agent_id: B256) -> Read<RegisteredEvent> {
    let uri = Bytes::abi_decode(&log.data).map_err(|_| Missing("URI of a registration"))?;
    Ok(RegisteredEvent {
        agent_id: agent_id.into(),
        agent_uri: String::from_utf8_lossy(&uri).into_owned(),
        transaction: log.transaction,
        block: log.block,
        block_hash: log.block_hash,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HASH: &str = "0x1111111111111111111111111111111111111111111111111111111111111111";
    const OWNER: Address = Address::repeat_byte(0x51);
    const CONTRACT: Address = Address::repeat_byte(0x80);
    /// Blocks whose logs are asked for.
    const RANGE: (u64, u64) = (5, 9);

    /// An object without one of its fields.
    fn without(object: &Value, name: &str) -> Value {
        let mut object = object.clone();
        object.as_object_mut().unwrap().remove(name);
        object
    }

    /// An object with one of its fields replaced.
    fn with(object: &Value, name: &str, value: Value) -> Value {
        let mut object = object.clone();
        object[name] = value;
        object
    }

    #[test]
    fn transactions_of_an_account_are_found_in_whole_blocks() {
        let own = Address::repeat_byte(1);
        let transaction = |from: Address, input: &str| {
            json!({
                "from": from, "to": Address::repeat_byte(2), "hash": B256::repeat_byte(3),
                "nonce": "0x7", input: "0x0102",
            })
        };
        let mut creation = transaction(own, "data");
        creation["to"] = Value::Null;
        let of_another = json!({ "from": Address::repeat_byte(9) });
        let listed = [transaction(own, "input"), of_another, creation];
        let found = transactions_of(&json!({ "transactions": listed }), own).unwrap();
        let expected = AccountTransaction {
            hash: B256::repeat_byte(3),
            nonce: Nonce(7),
            to: Some(Address::repeat_byte(2)),
            input: Bytes::from_static(&[1, 2]),
        };
        let created = AccountTransaction {
            to: None,
            ..expected.clone()
        };
        assert_eq!(found, [expected, created]);
        for lacking in ["from", "hash", "nonce", "input"] {
            let mut transaction = transaction(own, "input");
            transaction[lacking] = Value::Null;
            let block = json!({ "transactions": [transaction] });
            assert!(transactions_of(&block, own).is_err(), "{lacking}");
        }
        let mut odd = transaction(own, "input");
        odd["to"] = json!("0x01");
        let odd = json!({ "transactions": [odd] });
        for block in [json!(null), json!({ "transactions": ["0x01"] }), odd] {
            assert!(transactions_of(&block, own).is_err(), "{block}");
        }
    }

    #[test]
    fn quantity_is_read_in_every_notation() {
        for value in [
            json!("0x1f"),
            json!("0X1F"),
            json!("0x001f"),
            json!("31"),
            json!(" 0x1f "),
            json!(31),
            json!(31.0),
        ] {
            assert_eq!(number(&value), Some(31), "{value}");
        }
        assert_eq!(number(&json!("0x")), Some(0));
        for value in [
            json!(""),
            json!("0xzz"),
            json!("-1"),
            json!(-1),
            json!(1.5),
            json!(null),
            json!([]),
            json!(true),
            json!("0x10000000000000000"),
        ] {
            assert_eq!(number(&value), None, "{value}");
        }
        let huge = json!(format!("0x{}", "f".repeat(64)));
        assert_eq!(quantity(&huge), Some(U256::MAX));
        assert_eq!(amount(&huge), Some(u128::MAX));
        assert_eq!(quantity(&json!(format!("0x{}", "f".repeat(65)))), None);
    }

    #[test]
    fn block_needs_its_number_hash_and_timestamp() {
        let whole = json!({
            "number": "0x5", "hash": HASH, "timestamp": 7, "baseFeePerGas": "0x9", "extra": {},
        });
        let expected = Block {
            number: 5,
            hash: B256::repeat_byte(0x11),
            timestamp: 7,
            base_fee: Some(9),
        };
        assert_eq!(block(&whole), Ok(Some(expected)));
        assert_eq!(block(&Value::Null), Ok(None));
        let legacy = without(&whole, "baseFeePerGas");
        assert_eq!(block(&legacy).unwrap().unwrap().base_fee, None);
        for name in ["number", "hash", "timestamp"] {
            assert!(block(&without(&whole, name)).is_err(), "{name}");
        }
        for name in ["number", "hash", "timestamp", "baseFeePerGas"] {
            let odd = block(&with(&whole, name, json!("many")));
            assert!(odd.is_err(), "an unreadable {name} is not a missing one");
        }
        for other in [json!({}), json!([]), json!("0x5")] {
            assert!(block(&other).is_err(), "{other}");
        }
    }

    #[test]
    fn receipt_cost_includes_every_fee_of_a_rollup() {
        let whole = json!({
            "status": "0x1", "blockNumber": "0x5", "blockHash": HASH, "gasUsed": "0x64",
            "effectiveGasPrice": "0x2", "gasPrice": "0x9",
        });
        let expected = Receipt {
            succeeded: true,
            block: 5,
            block_hash: Some(B256::repeat_byte(0x11)),
            cost: 200,
        };
        assert_eq!(receipt(&whole), Ok(Some(expected)));
        let cost = |extra: Value| {
            let mut receipt = whole.clone();
            for (name, value) in extra.as_object().unwrap() {
                receipt[name] = value.clone();
            }
            super::receipt(&receipt).map(|receipt| receipt.unwrap().cost)
        };
        assert_eq!(
            cost(json!({ "l1Fee": "0x2386f26fc10000" })),
            Ok(10_000_000_000_000_200)
        );
        assert_eq!(cost(json!({ "l1Fee": null })), Ok(200));
        assert_eq!(
            cost(json!({ "operatorFeeScalar": "0x1e8480", "operatorFeeConstant": "0x7" })),
            Ok(200 + 200 + 7),
            "100 gas at a scalar of 2000000 millionths, and a constant"
        );
        assert_eq!(cost(json!({ "effectiveGasPrice": null })), Ok(900));
        assert_eq!(
            cost(json!({ "effectiveGasPrice": null, "gasPrice": null })),
            Err(Missing("gas price of a receipt"))
        );
        for fee in [
            "effectiveGasPrice",
            "gasPrice",
            "l1Fee",
            "operatorFeeScalar",
            "operatorFeeConstant",
        ] {
            assert!(cost(json!({ fee: "many" })).is_err(), "{fee}");
        }
        let huge = json!(format!("0x{}", "f".repeat(64)));
        assert_eq!(
            cost(json!({ "gasUsed": huge, "l1Fee": huge })),
            Ok(u128::MAX)
        );
    }

    #[test]
    fn receipt_without_status_or_block_is_no_receipt() {
        let whole = json!({
            "status": "0x0", "blockNumber": 5, "gasUsed": 1, "effectiveGasPrice": 1,
        });
        let read = receipt(&whole).unwrap().unwrap();
        assert_eq!((read.succeeded, read.block_hash), (false, None));
        for name in ["status", "blockNumber", "gasUsed", "effectiveGasPrice"] {
            assert!(receipt(&without(&whole, name)).is_err(), "{name}");
        }
        for name in ["blockNumber", "blockHash"] {
            let odd = with(&whole, name, json!("many"));
            assert!(receipt(&odd).is_err(), "{name}");
        }
        assert_eq!(receipt(&Value::Null), Ok(None));
        assert_eq!(receipt(&json!({ "blockNumber": null })), Ok(None));
        for (status, succeeded) in [
            (json!(true), Some(true)),
            (json!(false), Some(false)),
            (json!(1), Some(true)),
            (json!("0x2"), None),
            (json!("ok"), None),
        ] {
            let mut receipt = whole.clone();
            receipt["status"] = status;
            let read = super::receipt(&receipt).ok().flatten();
            assert_eq!(read.map(|read| read.succeeded), succeeded);
        }
    }

    #[test]
    fn transaction_needs_its_sender_and_nonce() {
        let whole = json!({ "from": format!("{:#x}", Address::ZERO), "nonce": "0x5" });
        assert_eq!(transaction(&whole), Ok(Some((Address::ZERO, Nonce(5)))));
        assert_eq!(transaction(&Value::Null), Ok(None));
        for name in ["from", "nonce"] {
            assert!(transaction(&without(&whole, name)).is_err(), "{name}");
            let odd = with(&whole, name, json!("many"));
            assert!(transaction(&odd).is_err(), "{name}");
        }
    }

    #[test]
    fn code_and_slot_may_be_empty() {
        assert_eq!(code_hash(&json!("0x")), Ok(None));
        assert_eq!(code_hash(&Value::Null), Ok(None));
        assert_eq!(code_hash(&json!("0x60")), Ok(Some(keccak256([0x60]))));
        assert!(code_hash(&json!("nonsense")).is_err());
        assert_eq!(address_in_slot(&json!("0x0")), Ok(None));
        assert_eq!(
            address_in_slot(&json!("0x5")),
            Ok(Some(Address::with_last_byte(5)))
        );
        assert!(address_in_slot(&Value::Null).is_err());
    }

    #[test]
    fn median_reward_leaves_out_empty_blocks() {
        let median = |rewards: &[u128]| {
            let rewards: Vec<Value> = rewards
                .iter()
                .map(|reward| json!([format!("{reward:#x}")]))
                .collect();
            median_reward(&json!({ "reward": rewards }))
        };
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[0, 0]), None);
        assert_eq!(median(&[0, 5]), Some(5));
        assert_eq!(median(&[9, 1, 5]), Some(5));
        assert_eq!(median(&[4, 0, 8]), Some(6));
        assert_eq!(median(&[u128::MAX, u128::MAX]), Some(u128::MAX));
        for odd in [
            json!({}),
            json!({ "reward": [] }),
            json!({ "reward": "0x5" }),
            json!({ "reward": [[], null, "x", ["y"]] }),
        ] {
            assert_eq!(median_reward(&odd), None, "{odd}");
        }
    }

    #[test]
    fn owner_of_an_agent_is_read_or_an_error() {
        let owner = |result: Value| returns::<abi::ownerOfCall>(&result, "owner");
        assert_eq!(owner(json!(owner_word())), Ok(OWNER));
        for odd in [json!("0x"), json!("many"), Value::Null] {
            assert_eq!(owner(odd.clone()), Err(Missing("owner")), "{odd}");
        }
    }

    fn word(number: u8) -> B256 {
        B256::with_last_byte(number)
    }

    fn owner_word() -> B256 {
        B256::left_padding_from(OWNER.as_slice())
    }

    /// A log of the contract in block 7.
    fn log(topics: &[B256]) -> Value {
        let uri = Bytes::from_static(b"data:x").abi_encode();
        json!({
            "address": CONTRACT, "topics": topics, "data": Bytes::from(uri),
            "blockNumber": "0x7", "blockHash": HASH, "transactionHash": HASH,
        })
    }

    fn registration() -> Value {
        log(&[abi::Registered::SIGNATURE_HASH, word(3), owner_word()])
    }

    fn transfer(from: B256, to: B256) -> Value {
        log(&[abi::Transfer::SIGNATURE_HASH, from, to, word(3)])
    }

    fn incoming(logs: Value) -> Read<Vec<OwnerEvent>> {
        super::incoming(&logs, CONTRACT, OWNER, RANGE)
    }

    #[test]
    fn agents_that_come_to_the_owner_are_read_from_the_logs() {
        let registered = OwnerEvent::Registered(RegisteredEvent {
            agent_id: U256::from(3),
            agent_uri: "data:x".into(),
            transaction: B256::repeat_byte(0x11),
            block: 7,
            block_hash: B256::repeat_byte(0x11),
        });
        let logs = json!([
            registration(),
            transfer(B256::ZERO, owner_word()),
            transfer(word(1), owner_word()),
        ]);
        let minted = OwnerEvent::Minted(U256::from(3));
        let expected = vec![registered, minted, OwnerEvent::Received];
        assert_eq!(incoming(logs), Ok(expected));
    }

    #[test]
    fn logs_that_do_not_concern_the_owner_are_left_out() {
        for other in [
            log(&[abi::Registered::SIGNATURE_HASH, word(3)]),
            log(&[B256::ZERO, word(1), owner_word(), word(3)]),
            transfer(B256::ZERO, word(1)),
            with(&registration(), "removed", json!(true)),
            with(&registration(), "address", json!(OWNER)),
            with(&registration(), "blockNumber", json!("0x4")),
            with(&registration(), "blockNumber", json!("0xa")),
        ] {
            assert_eq!(incoming(json!([other])), Ok(vec![]), "{other}");
        }
    }

    #[test]
    fn log_without_a_readable_field_is_an_error() {
        for name in [
            "address",
            "topics",
            "data",
            "blockNumber",
            "blockHash",
            "transactionHash",
        ] {
            for odd in [
                without(&registration(), name),
                with(&registration(), name, json!("many")),
            ] {
                assert!(incoming(json!([odd])).is_err(), "{odd}");
            }
        }
        let no_uri = with(&registration(), "data", json!("0x20"));
        let no_agent = log(&[abi::Transfer::SIGNATURE_HASH, B256::ZERO, owner_word()]);
        for odd in [json!([no_uri]), json!([no_agent]), Value::Null] {
            assert!(incoming(odd.clone()).is_err(), "{odd}");
        }
    }

    #[test]
    fn authorized_transfer_is_found_by_its_nonce_and_its_transfer_in_one_transaction() {
        let transfer = AuthorizedTransfer {
            from: OWNER,
            to: Address::with_last_byte(9),
            value: U256::from(2000),
            nonce: word(7),
        };
        let moved = |to: B256, value: u64| {
            let moved = log(&[abi::Transfer::SIGNATURE_HASH, owner_word(), to]);
            with(&moved, "data", json!(B256::from(U256::from(value))))
        };
        let used = |nonce| log(&[abi::AuthorizationUsed::SIGNATURE_HASH, owner_word(), nonce]);
        let found = |logs: Value| transfer_transaction(&logs, CONTRACT, &transfer, RANGE);
        let (paid, seller) = (moved(word(9), 2000), word(9));
        let expected = found(json!([paid, used(word(7))])).unwrap();
        assert_eq!(json!(expected), paid["transactionHash"]);
        let elsewhere = with(&paid, "transactionHash", json!(B256::repeat_byte(5)));
        for logs in [
            json!([]),
            json!([used(word(7))]),
            json!([paid, used(word(8))]),
            json!([moved(word(8), 2000), used(word(7))]),
            json!([moved(seller, 1999), used(word(7))]),
            json!([elsewhere, used(word(7))]),
        ] {
            assert_eq!(found(logs.clone()), Ok(None), "{logs}");
        }
        assert!(found(json!(null)).is_err());
    }

    #[test]
    fn registrations_come_with_their_accounts() {
        let registrations = |logs: Value| super::registrations(&logs, CONTRACT, RANGE);
        let by = |owner| log(&[abi::Registered::SIGNATURE_HASH, word(3), owner]);
        let others = [
            log(&[abi::Registered::SIGNATURE_HASH, word(3)]),
            transfer(B256::ZERO, owner_word()),
            with(&registration(), "blockNumber", json!("0xa")),
        ];
        let found = registrations(json!([by(owner_word()), others, by(word(7))]));
        assert!(found.is_err(), "a log is an object");
        let [first, second, third] = others;
        let all = json!([by(owner_word()), first, second, third, by(word(7))]);
        let found = registrations(all).unwrap();
        let owners: Vec<Address> = found.iter().map(|(owner, _)| *owner).collect();
        assert_eq!(owners, [OWNER, Address::with_last_byte(7)]);
        assert_eq!(found[0].1.agent_uri, "data:x");
        let odd = with(&registration(), "data", json!("0x20"));
        assert!(registrations(json!([odd])).is_err());
    }

    #[test]
    fn only_transfers_by_the_owner_are_outgoing() {
        let outgoing = |logs: Value| super::outgoing(&logs, CONTRACT, OWNER, RANGE);
        let logs = json!([
            transfer(owner_word(), word(1)),
            transfer(word(1), owner_word()),
            registration(),
        ]);
        assert_eq!(outgoing(logs), Ok(1));
        assert_eq!(outgoing(Value::Null), Err(Missing("list of logs")));
    }

    #[test]
    fn agent_uri_is_cut_between_characters_and_never_guessed() {
        let agent = |uri: &[u8]| {
            let data = Bytes::from(Bytes::copy_from_slice(uri).abi_encode());
            super::agent(Address::ZERO, Some(&json!(data)))
        };
        assert_eq!(agent(b"data:x").uri, "data:x");
        assert_eq!(agent(b"").uri, "");
        assert_eq!(agent(b"a\xffb").uri, "");
        let long = format!("a{}", "é".repeat(URI_LENGTH));
        let cut = agent(long.as_bytes());
        assert_eq!(cut.uri.len(), URI_LENGTH - 1);
        assert_eq!(cut.uri_hash, keccak256(&long));
        for odd in [json!("0x"), json!("0x20"), json!(5), json!("x")] {
            assert_eq!(super::agent(Address::ZERO, Some(&odd)).uri, "", "{odd}");
        }
        let hostile = format!("0x{:064x}{:064x}", 0x20, u64::MAX);
        assert_eq!(super::agent(Address::ZERO, Some(&json!(hostile))).uri, "");
    }
}
