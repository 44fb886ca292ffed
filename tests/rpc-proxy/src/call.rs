//! One JSON-RPC call as rules see it: what is asked, and about which blocks.

use serde_json::Value;

/// A call that arrived, alone or in a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The method.
    pub method: String,
    /// The parameters.
    pub params: Value,
    /// Number of the chain's latest block.
    pub head: u64,
}

impl Call {
    /// The block whose state or header is asked for, unless a tag or a hash names it.
    #[must_use]
    pub fn block(&self) -> Option<u64> {
        let block = &self.params[self.block_position()?];
        number(block.get("blockNumber").unwrap_or(block))
    }

    /// First and last block of `eth_getLogs`. Tags other than `earliest` mean the latest block.
    #[must_use]
    pub fn range(&self) -> Option<(u64, u64)> {
        if self.method != "eth_getLogs" {
            return None;
        }
        let end = |name| match &self.params[0][name] {
            Value::String(tag) if tag == "earliest" => 0,
            block => number(block).unwrap_or(self.head),
        };
        Some((end("fromBlock"), end("toBlock")))
    }

    /// How many blocks `eth_getLogs` searches; 0 for other methods.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.range()
            .map_or(0, |(from, to)| (to + 1).saturating_sub(from))
    }

    /// Position of the parameter that names a block.
    pub(crate) fn block_position(&self) -> Option<usize> {
        match self.method.as_str() {
            "eth_getBlockByNumber" => Some(0),
            "eth_call"
            | "eth_estimateGas"
            | "eth_getBalance"
            | "eth_getCode"
            | "eth_getTransactionCount" => Some(1),
            "eth_getStorageAt" => Some(2),
            _ => None,
        }
    }
}

/// A quantity in hex.
pub(crate) fn number(value: &Value) -> Option<u64> {
    u64::from_str_radix(value.as_str()?.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(method: &str, params: Value) -> Call {
        let method = method.to_owned();
        Call {
            method,
            params,
            head: 100,
        }
    }

    #[test]
    fn block_is_read_where_each_method_has_it() {
        for (method, params) in [
            ("eth_getBlockByNumber", json!(["0xa", false])),
            ("eth_call", json!([{ "to": "0x00" }, "0xa"])),
            ("eth_call", json!([{}, { "blockNumber": "0xa" }])),
            ("eth_getTransactionCount", json!(["0x00", "0xa"])),
            ("eth_getStorageAt", json!(["0x00", "0x0", "0xa"])),
        ] {
            assert_eq!(call(method, params).block(), Some(10), "{method}");
        }
        let tag = call("eth_call", json!([{}, "latest"]));
        assert_eq!(tag.block(), None);
        assert_eq!(call("eth_chainId", json!([])).block(), None);
    }

    #[test]
    fn range_of_logs_counts_both_ends_and_tags() {
        let logs = call(
            "eth_getLogs",
            json!([{ "fromBlock": "0xa", "toBlock": "0x13" }]),
        );
        assert_eq!((logs.range(), logs.span()), (Some((10, 19)), 10));
        let tags = call(
            "eth_getLogs",
            json!([{ "fromBlock": "earliest", "toBlock": "latest" }]),
        );
        assert_eq!((tags.range(), tags.span()), (Some((0, 100)), 101));
        assert_eq!(call("eth_call", json!([])).span(), 0);
    }
}
