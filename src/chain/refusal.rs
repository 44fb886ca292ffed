//! What an endpoint means when it refuses a call. Pure.
//!
//! Nodes and providers agree on neither error codes nor messages, and one code means different
//! things to different clients. So words decide first, and codes only where the words say nothing.
//! It decides no reaction: [`super::error`] names the reason, the callers react.

use serde_json::Value;

use crate::metrics::RpcMethod;

/// Meaning of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The contract refused the call.
    Reverted,
    /// The endpoint limits the rate of requests.
    RateLimited,
    /// The request covers too many blocks or logs.
    RangeLimited,
    /// The endpoint does not have the state or the block that was asked for.
    HistoryMissing,
    /// The endpoint does not serve the method.
    MethodMissing,
    /// The account cannot pay for the transaction.
    InsufficientFunds,
    /// The transaction offers too little per gas.
    Underpriced,
    /// The endpoint has the transaction already.
    AlreadyKnown,
    /// The account has used the nonce.
    NonceTooLow,
    /// Anything else.
    Other,
}

/// A limit on requests, or on what an account has paid the provider for.
const RATE: &[&str] = &[
    "rate limit",
    "rate-limit",
    "ratelimit",
    "rate exceeded",
    "rate is exceeded",
    "exceeded the rate",
    "too many requests",
    "too many concurrent requests",
    "capacity limit",
    "capacity exceeded",
    "throughput",
    "over capacity",
    "per second capacity",
    "exceeded its compute units",
    "compute units per second",
    "daily request count",
    "daily limit",
    "monthly capacity",
    "request limit",
    "requests limit",
    "request count exceeded",
    "requests per second",
    "quota",
    "throttl",
    "credits",
    "call limit",
    "slow down",
];

/// The contract ran and refused, in the words of each client.
const REVERTED: &[&str] = &[
    "revert",
    "vm execution error",
    "evm execution error",
    "vm exception while processing transaction",
    "invalid opcode",
    "bad instruction",
    "bad jump destination",
    "invalid jump",
];

const FUNDS: &[&str] = &[
    "insufficient funds",
    "insufficientfunds",
    "insufficient balance",
    "insufficient account balance",
    "insufficient sender balance",
    "insufficient eth",
    "not enough funds",
    "enough funds",
    "not enough balance",
    "balance too low",
    "balance is too low",
    "lack of funds",
    "lackoffund",
    "upfront cost exceeds",
    "exceeds account balance",
    "exceeds transaction sender account balance",
    "exceeds the balance of the account",
    "exceeds balance",
];

const UNDERPRICED: &[&str] = &[
    "underpriced",
    "fee too low",
    "feetoolow",
    "fee is too low",
    "gas price too low",
    "gas price is too low",
    "gasprice too low",
    "less than block base fee",
    "less than the block base fee",
    "lower than the block base fee",
    "below base fee",
    "below current base fee",
    "below the base fee",
    "below configured minimum",
    "below minimum",
    "below the minimum",
    "less than minimum",
    "less than the minimum",
    "minimum needed",
    "tip needed",
    "cover base fee",
    "fee cap less than",
    "insufficient fee",
    "not enough gas price",
];

/// The nonce is used. Words about a gap ("nonce too high") are not among them.
const NONCE: &[&str] = &[
    "nonce too low",
    "nonce is too low",
    "noncetoolow",
    "nonce_too_low",
    "nonce has already been used",
    "nonce already used",
    "nonce already been used",
    "nonce was already used",
    "nonce expired",
    "nonce_expired",
    "old nonce",
    "oldnonce",
    "lower than the current nonce",
    "lower than current nonce",
    "nonce below",
];

const KNOWN: &[&str] = &[
    "already known",
    "alreadyknown",
    "already_known",
    "already_exists",
    "already imported",
    "already exists",
    "already in mempool",
    "already in the mempool",
    "already in cache",
    "already in the pool",
    "already in pool",
    "already in the transaction pool",
    "already in the txpool",
    "already pending",
    "already submitted",
    "already received",
    "duplicate transaction",
];

/// The state or block is missing, in words that no limit of a range uses.
const HISTORY: &[&str] = &[
    "missing trie node",
    "missing node",
    "pruned",
    "pruning",
    "prune",
    "historical state",
    "historic state",
    "historical data",
    "state is not available",
    "state not available",
    "state unavailable",
    "no state available",
    "state is unavailable",
    "state does not exist",
    "state histories",
    "missing state",
    "header not found",
    "header for hash not found",
    "unknown block",
    "unknown header",
    "block not found",
    "blocknotfound",
    "could not find block",
    "cannot find block",
    "block does not exist",
    "distance to target block exceeds",
    "block is out of range",
    "blockoutofrange",
    "block number out of range",
    "beyond current head",
    "beyond the current head",
    "greater than latest",
    "greater than the latest",
    "higher than the latest",
    "after last accepted block",
    "unfinalized data",
    "archive",
    "world state",
    "history is not available",
    "history not available",
    "history has been",
    "before the earliest",
    "earliest available",
    "first available block",
    "older than the oldest",
    "resource not found",
    "is not yet available",
    "no historical rpc",
];

/// The method is missing. The words "not supported" alone are not enough: a type of transaction or
/// a tag may be what is not supported.
const METHOD: &[&str] = &[
    "method not found",
    "method is not found",
    "unknown method",
    "unsupported method",
    "no such method",
    "invalid method",
    "method not supported",
    "method is not supported",
    "method not available",
    "method is not available",
    "method not allowed",
    "method is not allowed",
    "method is not whitelisted",
    "method not whitelisted",
    "not whitelisted",
    "method is disabled",
    "method disabled",
    "method not implemented",
    "method is not implemented",
    "does not exist/is not available",
    "no backends available for method",
];

/// A request for logs that covers too much.
const RANGE: &[&str] = &[
    "range",
    "too many blocks",
    "too many results",
    "too many logs",
    "too many log",
    "returned more than",
    "max results",
    "maximum results",
    "response size",
    "result size",
    "result set",
    "response too large",
    "response is too big",
    "response too big",
    "too large",
    "max limit",
    "maximum number of blocks",
    "number of blocks",
    "blocks distance",
    "at most",
    "limited to",
    "limit exceeded",
    "exceeds the limit",
    "exceeds limit",
    "query exceeds",
    "query timeout",
    "timed out",
    "timeout",
    "deadline exceeded",
    "canceled",
    "cancelled",
];

/// Reads the meaning of a refusal from everything that the endpoint said.
#[must_use]
pub fn classify(
    call: RpcMethod,
    http_status: Option<u16>,
    code: Option<i64>,
    message: &str,
    data: Option<&Value>,
) -> Refusal {
    let words = words(message, data);
    let says = |phrases: &[&str]| phrases.iter().any(|phrase| words.contains(phrase));
    let is_logs = call == RpcMethod::Logs;
    let runs_contract = matches!(call, RpcMethod::Call | RpcMethod::EstimateGas);

    // A limit of a range often comes with the status or the code of a rate limit.
    if is_logs && !says(RATE) && !says(HISTORY) && (says(RANGE) || http_status == Some(413)) {
        return Refusal::RangeLimited;
    }
    if http_status == Some(429) {
        return Refusal::RateLimited;
    }
    // The words of a contract may contain any other phrase.
    if !is_logs && (words.starts_with("execution reverted") || code == Some(3) && says(REVERTED)) {
        return Refusal::Reverted;
    }
    if says(RATE) {
        return Refusal::RateLimited;
    }
    if !is_logs && says(REVERTED) || runs_contract && data.is_some_and(is_revert_data) {
        return Refusal::Reverted;
    }
    if says(METHOD) {
        return Refusal::MethodMissing;
    }
    if says(FUNDS)
        || call == RpcMethod::EstimateGas && words.contains("gas required exceeds allowance")
    {
        return Refusal::InsufficientFunds;
    }
    if says(UNDERPRICED) {
        return Refusal::Underpriced;
    }
    if says(NONCE) || nonce_is_behind(&words) {
        return Refusal::NonceTooLow;
    }
    if is_known(&words) {
        return Refusal::AlreadyKnown;
    }
    if says(HISTORY) {
        return Refusal::HistoryMissing;
    }
    by_code(call, code, &words)
}

/// Everything that an endpoint said, in lower case: some nodes put their words into `data`.
fn words(message: &str, data: Option<&Value>) -> String {
    let mut words = message.trim().to_lowercase();
    let texts = match data {
        Some(Value::String(text)) => vec![text.as_str()],
        Some(Value::Object(fields)) => ["message", "reason", "error", "details"]
            .iter()
            .filter_map(|name| fields.get(*name)?.as_str())
            .collect(),
        _ => vec![],
    };
    for text in texts.iter().filter(|text| !text.starts_with("0x")) {
        words.push(' ');
        words.push_str(&text.to_lowercase());
    }
    words
}

/// Whether data is what a contract returned with its refusal: in hex, in Parity's "Reverted 0x..",
/// or inside an object.
fn is_revert_data(data: &Value) -> bool {
    match data {
        Value::String(text) => {
            let hex = text.strip_prefix("Reverted ").unwrap_or(text);
            hex.strip_prefix("0x").is_some_and(|hex| {
                hex.len() >= 8 && hex.bytes().all(|digit| digit.is_ascii_hexdigit())
            })
        }
        Value::Object(fields) => fields.values().any(|value| match value {
            // Ganache nests the refusal of each transaction under its hash.
            Value::Object(inner) => inner.get("error").is_some_and(|error| error == "revert"),
            value => value.is_string() && is_revert_data(value),
        }),
        _ => false,
    }
}

/// Whether the endpoint has the transaction. "unknown transaction type" is the opposite.
fn is_known(words: &str) -> bool {
    KNOWN.iter().any(|phrase| words.contains(phrase))
        || words
            .match_indices("known transaction")
            .any(|(at, _)| !words[..at].ends_with("un"))
}

/// Reads "invalid nonce; got 3, expected 5" and its like: the account has used the nonce if the
/// expected one is higher.
fn nonce_is_behind(words: &str) -> bool {
    if !words.contains("nonce") && !words.contains("sequence") {
        return false;
    }
    let number_after = |name: &str| -> Option<u64> {
        let (_, rest) = words.split_once(name)?;
        let digits = rest.trim_start_matches([' ', ':', '=', 'o', 'f']);
        let end = digits
            .find(|digit: char| !digit.is_ascii_digit())
            .unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    let pairs = [
        ("expected", "got"),
        ("account has nonce", "tx has nonce"),
        ("current nonce", "provided nonce"),
    ];
    pairs.iter().any(
        |(own, sent)| match (number_after(own), number_after(sent)) {
            (Some(own), Some(sent)) => sent < own,
            _ => false,
        },
    )
}

/// Reads a refusal whose words say nothing.
fn by_code(call: RpcMethod, code: Option<i64>, words: &str) -> Refusal {
    // Besu's code for a transaction above the block's gas limit is that of a rate limit elsewhere.
    let is_gas = words.contains("gas limit") || words.contains("block gas");
    let is_timeout = words.contains("timeout") || words.contains("timed out");
    match code {
        Some(429 | -32005 | -32016) if !is_gas && !is_timeout => Refusal::RateLimited,
        Some(-32601) => Refusal::MethodMissing,
        Some(-39001) => Refusal::HistoryMissing,
        Some(3 | -32015) if call != RpcMethod::Logs => Refusal::Reverted,
        _ => Refusal::Other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(call: RpcMethod, expected: Refusal, cases: &[(i64, &str)]) {
        for (code, message) in cases {
            assert_eq!(
                classify(call, None, Some(*code), message, None),
                expected,
                "{code} {message}"
            );
        }
    }

    #[test]
    fn revert_is_read_from_the_words_of_every_client() {
        let cases = [
            (3, "execution reverted"),
            (3, "execution reverted: ERC721NonexistentToken"),
            (3, "execution reverted: rate limit exceeded"),
            (-32000, "execution reverted: rate limit exceeded"),
            (3, "VM execution error: rate limit exceeded"),
            (-32000, "execution reverted"),
            (-32000, "evm: execution reverted"),
            (-32000, "execution reverted: insufficient balance"),
            (-32015, "VM execution error."),
            (-32015, "VM execution error"),
            (-32000, "VM Exception while processing transaction: revert"),
            (-32000, "Execution reverted (0x7e273289)"),
            (
                -32603,
                "Error: VM Exception while processing transaction: reverted with custom error",
            ),
            (-32000, "Reverted"),
            (-32000, "invalid opcode: INVALID"),
            (-32015, "Bad instruction fe"),
            (3, ""),
            (-32015, ""),
        ];
        check(RpcMethod::Call, Refusal::Reverted, &cases);
        check(RpcMethod::EstimateGas, Refusal::Reverted, &cases);
    }

    #[test]
    fn revert_is_read_from_data_where_the_message_says_nothing() {
        let selector = format!("0x7e273289{}", "0".repeat(64));
        for data in [
            json!(selector),
            json!(format!("Reverted {selector}")),
            json!("Reverted 0x"),
            json!({ "data": selector }),
            json!({ "0xabc": { "error": "revert", "program_counter": 7 }, "stack": "" }),
        ] {
            let refusal = classify(
                RpcMethod::Call,
                None,
                Some(-32000),
                "call failed",
                Some(&data),
            );
            assert_eq!(refusal, Refusal::Reverted, "{data}");
        }
        for data in [
            json!("0x"),
            json!("0x1"),
            json!("trace"),
            json!(7),
            json!({ "a": 1 }),
            json!({ "a": "b" }),
        ] {
            let refusal = classify(
                RpcMethod::Call,
                None,
                Some(-32000),
                "call failed",
                Some(&data),
            );
            assert_eq!(refusal, Refusal::Other, "{data}");
        }
    }

    #[test]
    fn rate_limit_is_never_read_as_a_revert() {
        let cases = [
            (-32005, "rate limit exceeded"),
            (-32016, "rate limit exceeded"),
            (-32016, "over rate limit"),
            (429, "rate limit exceeded"),
            (429, ""),
            (-32005, "limit exceeded"),
            (-32005, "project ID request rate exceeded"),
            (-32005, "daily request count exceeded, request rate limited"),
            (
                429,
                "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can safely ignore this message.",
            ),
            (-32000, "Too Many Requests"),
            (-32007, "15/second request limit reached"),
            (-32097, "Rate limit exceeded"),
            (
                -32029,
                "Too many requests, reason: call rate limit exhausted",
            ),
            (-32000, "Monthly capacity limit exceeded."),
            (-32003, "daily request count exceeded"),
            (
                -32001,
                "You've exceeded the RPS limit available on the current plan: quota",
            ),
            (3, "rate limit exceeded"),
        ];
        for call in [
            RpcMethod::Call,
            RpcMethod::EstimateGas,
            RpcMethod::Send,
            RpcMethod::Logs,
        ] {
            for (code, message) in cases {
                if call == RpcMethod::Logs && message == "limit exceeded" {
                    continue;
                }
                assert_eq!(
                    classify(call, None, Some(code), message, None),
                    Refusal::RateLimited,
                    "{call:?} {code} {message}"
                );
            }
        }
        let with_data = json!("0x0000000000000000");
        assert_eq!(
            classify(
                RpcMethod::EstimateGas,
                None,
                Some(-32005),
                "rate limit exceeded",
                Some(&with_data)
            ),
            Refusal::RateLimited
        );
        assert_eq!(
            classify(RpcMethod::Call, Some(429), Some(-32000), "later", None),
            Refusal::RateLimited
        );
    }

    #[test]
    fn range_limit_of_logs_is_read_whatever_its_code() {
        let cases = [
            (
                -32600,
                "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. Based on your parameters, this block range should work: [0x1, 0xa].",
            ),
            (-32600, "block range is too wide"),
            (
                -32005,
                "query returned more than 10000 results. Try with this block range [0x1, 0x2].",
            ),
            (-32000, "exceed maximum block range: 50000"),
            (-32614, "eth_getLogs is limited to a 10,000 range"),
            (-32000, "eth_getLogs is limited to a 1000 blocks range"),
            (
                -32602,
                "Log response size exceeded. You can make requests with up to a 2K block range",
            ),
            (
                -32000,
                "requested too many blocks from 0 to 10000, maximum is set to 2048",
            ),
            (-32005, "limit exceeded"),
            (-32005, "Requested range exceeds maximum RPC range limit"),
            (35, "ranges over 10000 blocks are not supported on freetier"),
            (
                -32602,
                "query exceeds max results 20000, retry with the range 5930000-5949999",
            ),
            (
                -32000,
                "query timeout exceeded. Consider reducing your block range.",
            ),
            (-32000, "context deadline exceeded"),
            (-32002, "request timed out"),
            (-32016, "Timeout"),
            (-32008, "backend response too large"),
            (
                -32701,
                "Please specify an address in your request or, to remove restrictions, order a dedicated full node: max block range 1024",
            ),
        ];
        check(RpcMethod::Logs, Refusal::RangeLimited, &cases);
        for status in [400, 413, 429] {
            assert_eq!(
                classify(
                    RpcMethod::Logs,
                    Some(status),
                    Some(-32000),
                    "block range is too wide",
                    None
                ),
                Refusal::RangeLimited,
                "{status}"
            );
        }
        assert_eq!(
            classify(RpcMethod::Logs, Some(413), None, "", None),
            Refusal::RangeLimited
        );
        assert_eq!(
            classify(RpcMethod::Call, None, Some(-32000), "out of range", None),
            Refusal::Other
        );
    }

    #[test]
    fn missing_history_is_read_from_the_words_of_every_client() {
        let cases = [
            (-32000, "missing trie node 1a2b3c (path ) <nil>"),
            (
                -32000,
                "missing trie node 1a2b3c (path ) state 0x1 is not available",
            ),
            (-32000, "header not found"),
            (
                -32000,
                "distance to target block exceeds maximum proof window",
            ),
            (-32001, "block not found: 0x10"),
            (-39001, "Unknown block"),
            (-39001, ""),
            (-32000, "historical state 1a2b is not available"),
            (4444, "pruned history unavailable"),
            (-32000, "old data not available due to pruning"),
            (-32000, "state at block #5 is pruned"),
            (-32002, "No state available for block 0x1"),
            (-32000, "world state unavailable"),
            (-32603, "state 0x1 is not available, state is not available"),
            (
                -32000,
                "This request requires an archive node: upgrade your plan",
            ),
            (
                -32602,
                "BlockOutOfRangeError: block height is 5 but requested was 9",
            ),
            (-32000, "required historical state unavailable (reexec=128)"),
        ];
        check(RpcMethod::Call, Refusal::HistoryMissing, &cases);
        check(RpcMethod::TransactionCount, Refusal::HistoryMissing, &cases);
        let of_logs = [
            (-32000, "history has been pruned for this block"),
            (-32000, "block range extends beyond current head block"),
            (-32000, "requested from block 5 after last accepted block 3"),
            (4444, "pruned history unavailable"),
            (-32000, "header not found"),
        ];
        check(RpcMethod::Logs, Refusal::HistoryMissing, &of_logs);
    }

    #[test]
    fn missing_method_is_read_from_code_or_words() {
        let cases = [
            (-32601, "method not found"),
            (-32601, ""),
            (
                -32601,
                "the method eth_feeHistory does not exist/is not available",
            ),
            (-32004, "Method not supported"),
            (-32000, "unsupported method: eth_feeHistory"),
            (-32000, "rpc method is not whitelisted"),
            (-32601, "rpc error"),
        ];
        check(RpcMethod::FeeHistory, Refusal::MethodMissing, &cases);
        check(RpcMethod::EstimateGas, Refusal::MethodMissing, &cases);
        check(RpcMethod::Send, Refusal::MethodMissing, &cases);
    }

    #[test]
    fn refused_sends_are_read_by_phrase_for_every_client() {
        let funds = [
            (
                -32000,
                "insufficient funds for gas * price + value: balance 1000, tx cost 1010, overshot 10",
            ),
            (-32000, "insufficient funds for transfer"),
            (-32003, "Insufficient funds for gas * price + value"),
            (-32004, "Upfront cost exceeds account balance"),
            (
                -32010,
                "InsufficientFunds, Account balance: 1, cumulative cost: 2",
            ),
            (-32000, "sender doesn't have enough funds to send tx"),
            (-32003, "lack of funds (0) for max fee (1)"),
        ];
        check(RpcMethod::Send, Refusal::InsufficientFunds, &funds);
        let underpriced = [
            (-32000, "transaction underpriced"),
            (
                -32000,
                "transaction underpriced: tip needed 25000000000, tip permitted 1",
            ),
            (
                -32000,
                "transaction underpriced: gas tip cap 1, minimum needed 25000000000",
            ),
            (-32000, "replacement transaction underpriced"),
            (-32010, "FeeTooLow, MaxFeePerGas too low"),
            (-32009, "Gas price below configured minimum gas price"),
            (
                -32000,
                "max fee per gas less than block base fee: address 0x1, maxFeePerGas: 1",
            ),
            (-32000, "insufficient fee; got: 1 required: 2"),
            (
                -32010,
                "Transaction gas price is too low. There is another transaction with same nonce in the queue: gas price too low",
            ),
        ];
        check(RpcMethod::Send, Refusal::Underpriced, &underpriced);
        let known = [
            (-32000, "already known"),
            (-32000, "ALREADY_EXISTS: already known"),
            (-32010, "AlreadyKnown"),
            (
                -32010,
                "Transaction with the same hash was already imported.",
            ),
            (-32000, "Known transaction: 0x1"),
            (-32000, "Known transaction"),
            (
                -32000,
                "known transaction. transaction with hash 0x1 is already in the system",
            ),
            (-32000, "tx already in mempool"),
            (-32603, "tx already exists in cache"),
            (-32000, "already imported"),
        ];
        check(RpcMethod::Send, Refusal::AlreadyKnown, &known);
        let nonce = [
            (-32000, "nonce too low"),
            (-32000, "nonce too low: address 0x, tx: 1 state: 2"),
            (-32001, "Nonce too low"),
            (-32010, "OldNonce"),
            (
                -32010,
                "OldNonce, Current nonce: 5, nonce of rejected tx: 4",
            ),
            (-32000, "Nonce is too low: next 5"),
            (-32003, "nonce has already been used"),
            (-32000, "NONCE_EXPIRED"),
            (-32000, "invalid nonce; got 3, expected 5: invalid sequence"),
            (-32000, "account sequence mismatch, expected 5, got 3"),
            (
                -32000,
                "the tx doesn't have the correct nonce. account has nonce of: 5 tx has nonce of: 4",
            ),
            (
                -32000,
                "nonce too low. allowed nonce range: 5 - 45, actual: 4",
            ),
        ];
        check(RpcMethod::Send, Refusal::NonceTooLow, &nonce);
        let other = [
            (-32000, "unknown transaction type"),
            (-32000, "transaction type not supported"),
            (-32000, "txpool is full"),
            (-32000, "nonce too high"),
            (-32000, "invalid nonce; got 6, expected 5: invalid sequence"),
            (-32000, "invalid nonce; got 5, expected 5"),
            (-32000, "invalid chain id: expected 5, got 3"),
            (-32000, "exceeds block gas limit"),
            (-32005, "Transaction gas limit exceeds block gas limit"),
            (-32000, "intrinsic gas too low"),
            (
                -32000,
                "in-flight transaction limit reached for delegated accounts",
            ),
            (-32000, "invalid sender"),
            (-32000, ""),
        ];
        check(RpcMethod::Send, Refusal::Other, &other);
    }

    #[test]
    fn code_alone_decides_only_what_it_can_mean() {
        let timeouts = [(-32005, "request timed out"), (-32005, "request timeout")];
        check(RpcMethod::Call, Refusal::Other, &timeouts);
        check(RpcMethod::Logs, Refusal::Other, &[(3, ""), (-32015, "")]);
    }

    #[test]
    fn estimate_that_lacks_funds_is_not_a_revert() {
        let cases = [
            (-32000, "gas required exceeds allowance (21000)"),
            (-32000, "insufficient funds for gas * price + value"),
            (-32000, "insufficient funds for transfer"),
        ];
        check(RpcMethod::EstimateGas, Refusal::InsufficientFunds, &cases);
    }

    #[test]
    fn words_in_data_count_as_words() {
        for data in [
            json!("insufficient funds"),
            json!({ "message": "Insufficient funds" }),
        ] {
            assert_eq!(
                classify(
                    RpcMethod::Send,
                    None,
                    Some(-32603),
                    "Internal error",
                    Some(&data)
                ),
                Refusal::InsufficientFunds,
                "{data}"
            );
        }
    }

    #[test]
    fn no_text_panics() {
        for message in [
            "",
            " ",
            "é",
            "nonce expected",
            "expected é got",
            "unknown transaction",
            "\u{0}",
        ] {
            for call in [RpcMethod::Call, RpcMethod::Logs, RpcMethod::Send] {
                let _ = classify(call, None, None, message, None);
            }
        }
    }
}
