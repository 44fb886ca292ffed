//! How a node answers that is some blocks behind the chain.
//!
//! Its head is older, it does not know later blocks, transactions and logs, and it says so as nodes
//! do: `null`, an empty list, or "header not found".

use serde_json::{Value, json};

use crate::call::{Call, number};

/// How many blocks the finalized block is behind the head of a chain with a slot per epoch.
const FINALITY: u64 = 2;

/// What becomes of a call at a node whose head this is.
#[derive(Debug, PartialEq)]
pub(crate) enum Lagged {
    /// The node answers on its own.
    Answered(Value),
    /// The node answers as the chain does to these parameters.
    Asked(Value),
}

/// Judges a call at a node that is `lag` blocks behind.
pub(crate) fn judge(call: &Call, lag: u64) -> Lagged {
    let head = call.head.saturating_sub(lag);
    match call.method.as_str() {
        "eth_blockNumber" => return answered(json!(hex(head))),
        "eth_getLogs" => return logs(call, head),
        _ => {}
    }
    let Some(position) = call.block_position() else {
        return Lagged::Asked(call.params.clone());
    };
    if call.block().is_some_and(|block| block > head) {
        return Lagged::Answered(match call.method.as_str() {
            "eth_getBlockByNumber" => json!({ "result": null }),
            _ => json!({ "error": { "code": -32000, "message": "header not found" } }),
        });
    }
    let mut params = call.params.clone();
    let block = match params[position].as_str() {
        Some("finalized") => head.saturating_sub(FINALITY),
        Some("safe") => head.saturating_sub(FINALITY / 2),
        Some("latest" | "pending") | None => head,
        Some(_) => return Lagged::Asked(params),
    };
    // A call may end before the block.
    if let Value::Array(params) = &mut params
        && params.len() >= position
        && !params.get(position).is_some_and(Value::is_object)
    {
        params.truncate(position);
        params.push(json!(hex(block)));
        params.extend(
            call.params
                .as_array()
                .into_iter()
                .flatten()
                .skip(position + 1)
                .cloned(),
        );
    }
    Lagged::Asked(params)
}

/// Whether an answer names a block that the node does not know.
pub(crate) fn is_unknown(call: &Call, lag: u64, result: &Value) -> bool {
    let by_hash = ["eth_getTransactionReceipt", "eth_getTransactionByHash"];
    let head = call.head.saturating_sub(lag);
    by_hash.contains(&call.method.as_str())
        && number(&result["blockNumber"]).is_some_and(|block| block > head)
}

fn logs(call: &Call, head: u64) -> Lagged {
    let Some((from, to)) = call.range() else {
        return Lagged::Asked(call.params.clone());
    };
    if from > head {
        return answered(json!([]));
    }
    let mut params = call.params.clone();
    params[0]["toBlock"] = json!(hex(to.min(head)));
    Lagged::Asked(params)
}

fn answered(result: Value) -> Lagged {
    Lagged::Answered(json!({ "result": result }))
}

fn hex(block: u64) -> String {
    format!("{block:#x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, params: Value) -> Call {
        Call {
            method: method.to_owned(),
            params,
            head: 100,
        }
    }

    fn asked(method: &str, params: Value) -> Value {
        match judge(&call(method, params), 5) {
            Lagged::Asked(params) => params,
            Lagged::Answered(answer) => panic!("{answer}"),
        }
    }

    #[test]
    fn tags_mean_blocks_of_the_lagging_node() {
        let block = |tag: &str| asked("eth_getBlockByNumber", json!([tag, false]));
        assert_eq!(block("latest"), json!(["0x5f", false]));
        assert_eq!(block("finalized"), json!(["0x5d", false]));
        assert_eq!(block("0x10"), json!(["0x10", false]));
        assert_eq!(
            asked("eth_estimateGas", json!([{ "to": "0x00" }])),
            json!([{ "to": "0x00" }, "0x5f"])
        );
        assert_eq!(asked("eth_chainId", json!([])), json!([]));
    }

    #[test]
    fn later_blocks_and_logs_are_unknown() {
        let later = |method: &str, params: Value| judge(&call(method, params), 5);
        assert_eq!(
            later("eth_getBlockByNumber", json!(["0x60", false])),
            answered(Value::Null)
        );
        let state = later("eth_call", json!([{}, "0x60"]));
        assert!(matches!(state, Lagged::Answered(answer) if answer["error"]["code"] == -32000));
        let logs = |from: &str| {
            later(
                "eth_getLogs",
                json!([{ "fromBlock": from, "toBlock": "0x64" }]),
            )
        };
        assert_eq!(logs("0x60"), answered(json!([])));
        let clipped = json!([{ "fromBlock": "0x0", "toBlock": "0x5f" }]);
        assert_eq!(logs("0x0"), Lagged::Asked(clipped));
        let receipt = call("eth_getTransactionReceipt", json!(["0x00"]));
        assert!(is_unknown(&receipt, 5, &json!({ "blockNumber": "0x60" })));
        assert!(!is_unknown(&receipt, 5, &json!({ "blockNumber": "0x5f" })));
    }
}
