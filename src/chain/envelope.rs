//! JSON-RPC requests and responses, read leniently. Pure.
//!
//! Nodes and gateways differ in the envelope: ids come back as strings, errors as texts, a batch is
//! answered in any order or refused with a single object. All of that is understood here. What an
//! answer means is read in [`super::decode`], and what a refusal means in [`super::refusal`].

use std::time::Duration;

use serde_json::{Value, json};

use super::error::{GATEWAY_TIMED_OUT, SERVER_ERROR, TOO_LARGE};
use crate::metrics::{Label as _, RpcMethod};

/// Maximum time that an endpoint can ask to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// Cause of a body that is not JSON-RPC.
pub(super) const NOT_JSON_RPC: &str = "the answer is not JSON-RPC";

/// One call of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RpcCall {
    pub(super) method: RpcMethod,
    pub(super) params: Value,
}

impl RpcCall {
    pub(super) fn new(method: RpcMethod, params: Value) -> Self {
        Self { method, params }
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CallFailure {
    /// The endpoint did not answer in JSON-RPC, or not at all.
    Unreachable(&'static str),
    /// The response has neither a result nor an error.
    Incomplete(&'static str),
    /// The endpoint answered with an error.
    Refused(RefusedCall),
}

/// An error that an endpoint answered with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RefusedCall {
    /// HTTP status, unless it is a success.
    pub(super) http_status: Option<u16>,
    /// Whether the error was in JSON-RPC.
    pub(super) is_json_rpc: bool,
    pub(super) code: Option<i64>,
    /// Message of the endpoint as it is: it may contain credentials.
    pub(super) message: String,
    pub(super) data: Option<Value>,
    /// How long the endpoint asks to wait.
    pub(super) retry_after: Option<Duration>,
}

/// A response as the HTTP client returns it.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpResponse<'a> {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a [u8],
}

/// Answers to the calls of a request, in their order.
pub(super) type CallResults = Vec<Result<Value, CallFailure>>;

/// Whether a request as a whole was understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Response {
    /// Every call has its own answer.
    Answered(CallResults),
    /// All calls have this one answer. The same calls sent one by one may be answered.
    Unreadable(CallFailure),
    /// All calls have this one answer, and would have it one by one.
    Failed(CallFailure),
}

/// Body of a request. A single call is sent as an object, since some endpoints accept no batch.
pub(super) fn request_body(calls: &[RpcCall]) -> Value {
    let object = |(index, call): (usize, &RpcCall)| {
        json!({
            "jsonrpc": "2.0",
            "id": index + 1,
            "method": call.method.as_str(),
            "params": call.params,
        })
    };
    match calls {
        [call] => object((0, call)),
        calls => calls.iter().enumerate().map(object).collect(),
    }
}

/// Reads the response to a request of `count` calls.
pub(super) fn read_response(count: usize, response: HttpResponse<'_>) -> Response {
    let body = serde_json::from_slice::<Value>(response.body).ok();
    match body {
        Some(Value::Array(answers)) => read_array(count, &answers, response),
        Some(Value::Object(answer)) if is_envelope(&answer) => {
            let answer = read_answer(&Value::Object(answer), response);
            match answer {
                answer if count == 1 => Response::Answered(vec![answer]),
                Err(failure) if is_rate_limit(&failure) => Response::Failed(failure),
                Err(failure) => Response::Unreadable(failure),
                Ok(_) => Response::Unreadable(CallFailure::Unreachable(NOT_JSON_RPC)),
            }
        }
        _ => read_status(response),
    }
}

fn is_envelope(answer: &serde_json::Map<String, Value>) -> bool {
    answer.contains_key("result") || answer.contains_key("error") || answer.contains_key("jsonrpc")
}

fn is_rate_limit(failure: &CallFailure) -> bool {
    let CallFailure::Refused(refused) = failure else {
        return false;
    };
    refused.http_status == Some(429)
}

/// Reads the elements of a batch, which come in any order.
fn read_array(count: usize, answers: &[Value], response: HttpResponse<'_>) -> Response {
    if let ([answer], 1) = (answers, count) {
        return Response::Answered(vec![read_answer(answer, response)]);
    }
    let mut results: Vec<Option<Result<Value, CallFailure>>> = vec![None; count];
    for answer in answers {
        let slot = id(answer).and_then(|id| results.get_mut(id.checked_sub(1)?));
        if let Some(slot @ None) = slot {
            *slot = Some(read_answer(answer, response));
        }
    }
    if results.iter().all(Option::is_none) {
        // An error without an id concerns the whole batch.
        let refusal = answers
            .iter()
            .find_map(|answer| read_answer(answer, response).err());
        let failure = refusal.unwrap_or(CallFailure::Unreachable(NOT_JSON_RPC));
        return match is_rate_limit(&failure) {
            true => Response::Failed(failure),
            false => Response::Unreadable(failure),
        };
    }
    let missing = || Err(CallFailure::Incomplete("answer to this call of a batch"));
    Response::Answered(
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(missing))
            .collect(),
    )
}

/// Id of an answer: its position in the batch, from one.
fn id(answer: &Value) -> Option<usize> {
    match answer.get("id")? {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => match number.as_u64() {
            Some(number) => number.try_into().ok(),
            // Some JSON libraries write every number with a fraction.
            None => number
                .as_f64()
                .filter(|number| number.fract() == 0.0 && (1.0..1e6).contains(number))
                .map(|number| number as usize),
        },
        _ => None,
    }
}

/// Reads one answer: its result, or the error that it contains.
fn read_answer(answer: &Value, response: HttpResponse<'_>) -> Result<Value, CallFailure> {
    let refused = |code, message: &str, data| {
        Err(CallFailure::Refused(RefusedCall {
            http_status: error_status(response),
            is_json_rpc: true,
            code,
            message: message.to_owned(),
            data,
            retry_after: response.retry_after,
        }))
    };
    match answer.get("error") {
        None | Some(Value::Null) => {}
        Some(Value::String(message)) => return refused(None, message, None),
        Some(Value::Object(error)) => {
            let code = error.get("code").and_then(code);
            let message = match error.get("message") {
                Some(Value::String(message)) => message.clone(),
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            };
            let data = error.get("data").filter(|data| !data.is_null()).cloned();
            return refused(code, &message, data);
        }
        Some(other) => return refused(None, &other.to_string(), None),
    }
    match answer.get("result") {
        Some(result) if error_status(response).is_none() => Ok(result.clone()),
        Some(_) => Err(status_failure(response)),
        None => Err(CallFailure::Incomplete("result")),
    }
}

/// An error code: a number, or a number in a string.
fn code(code: &Value) -> Option<i64> {
    match code {
        Value::String(text) => text.trim().parse().ok(),
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64().filter(|number| number.abs() < 1e9);
            number.map(|number| number as i64)
        }),
        _ => None,
    }
}

fn error_status(response: HttpResponse<'_>) -> Option<u16> {
    Some(response.status).filter(|status| !(200..300).contains(status))
}

/// Reads a response without JSON-RPC by its HTTP status.
fn read_status(response: HttpResponse<'_>) -> Response {
    let failure = status_failure(response);
    match response.status {
        // These statuses are about the endpoint or its load, and not about a batch.
        401 | 403 | 404 | 408 | 429 | 502..=504 | 524 => Response::Failed(failure),
        _ => Response::Unreadable(failure),
    }
}

fn status_failure(response: HttpResponse<'_>) -> CallFailure {
    let wait = |message: &str| {
        CallFailure::Refused(RefusedCall {
            // An endpoint that says when to come back limits requests, whichever status it uses.
            http_status: Some(429),
            message: message.to_owned(),
            retry_after: response.retry_after,
            ..RefusedCall::default()
        })
    };
    CallFailure::Unreachable(match response.status {
        200..300 => NOT_JSON_RPC,
        401 | 403 => "the endpoint rejects the credentials (HTTP 401 or 403)",
        404 => "the endpoint has no such path (HTTP 404)",
        408 | 504 | 524 => GATEWAY_TIMED_OUT,
        413 => TOO_LARGE,
        429 => return wait("HTTP 429"),
        503 if response.retry_after.is_some() => return wait("HTTP 503"),
        503 => "the endpoint is not available (HTTP 503)",
        500.. => SERVER_ERROR,
        _ => "the endpoint does not serve JSON-RPC at this URL",
    })
}

/// Reads the header `Retry-After`: seconds, or an HTTP date. `now` is in Unix seconds.
pub(super) fn retry_after(header: &str, now: u64) -> Option<Duration> {
    let seconds = match header.trim().parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds >= 0.0 => seconds.ceil().min(1e6) as u64,
        Ok(_) => return None,
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(header.trim()).ok()?;
            let date = u64::try_from(date.timestamp().as_second()).ok()?;
            date.saturating_sub(now)
        }
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, body: &str) -> HttpResponse<'_> {
        HttpResponse {
            status,
            retry_after: None,
            body: body.as_bytes(),
        }
    }

    fn one(body: &str) -> Response {
        read_response(1, response(200, body))
    }

    fn answered(result: Value) -> Response {
        Response::Answered(vec![Ok(result)])
    }

    fn failed(failure: CallFailure) -> Response {
        Response::Answered(vec![Err(failure)])
    }

    fn two(status: u16, body: &str) -> Response {
        read_response(2, response(status, body))
    }

    fn refused(code: Option<i64>, message: &str) -> RefusedCall {
        RefusedCall {
            is_json_rpc: true,
            code,
            message: message.to_owned(),
            ..RefusedCall::default()
        }
    }

    #[test]
    fn single_call_is_an_object_and_several_are_an_array() {
        let call = |method| RpcCall::new(method, json!(["latest"]));
        assert_eq!(
            request_body(&[call(RpcMethod::ChainId)]),
            json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": ["latest"] })
        );
        let batch = request_body(&[call(RpcMethod::ChainId), call(RpcMethod::Code)]);
        assert_eq!((&batch[0]["id"], &batch[1]["id"]), (&json!(1), &json!(2)));
        assert_eq!(batch[1]["method"], "eth_getCode");
    }

    #[test]
    fn result_is_read_whatever_the_rest_of_the_envelope() {
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"result":"0x1"}"#,
            r#"{"id":1,"result":"0x1"}"#,
            r#"{"jsonrpc":"1.0","id":"1","result":"0x1","error":null}"#,
            r#"{"jsonrpc":2,"id":null,"result":"0x1","extra":{}}"#,
            r#"{"result":"0x1"}"#,
            r#"[{"id":7,"result":"0x1"}]"#,
            "\n {\"result\":\"0x1\"} \n",
        ] {
            assert_eq!(one(body), answered(json!("0x1")), "{body}");
        }
        assert_eq!(one(r#"{"id":1,"result":null}"#), answered(Value::Null));
        assert_eq!(
            one(r#"{"jsonrpc":"2.0","id":1}"#),
            failed(CallFailure::Incomplete("result"))
        );
    }

    #[test]
    fn error_is_read_in_every_shape() {
        let cases = [
            (
                r#"{"error":{"code":-32000,"message":"no"}}"#,
                refused(Some(-32000), "no"),
            ),
            (
                r#"{"id":1,"error":{"code":"-32000","message":"no"}}"#,
                refused(Some(-32000), "no"),
            ),
            (
                r#"{"error":{"code":-32000.0,"message":"no"},"result":null}"#,
                refused(Some(-32000), "no"),
            ),
            (r#"{"error":{"message":"no"}}"#, refused(None, "no")),
            (r#"{"error":{"code":3}}"#, refused(Some(3), "")),
            (
                r#"{"error":{"code":3,"message":null}}"#,
                refused(Some(3), ""),
            ),
            (
                r#"{"error":{"code":{},"message":{"reason":"no"}}}"#,
                refused(None, r#"{"reason":"no"}"#),
            ),
            (
                r#"{"error":{"code":1e300,"message":"no"}}"#,
                refused(None, "no"),
            ),
            (
                r#"{"error":{"code":1e9,"message":"no"}}"#,
                refused(None, "no"),
            ),
            (r#"{"error":"no"}"#, refused(None, "no")),
            (r#"{"error":true}"#, refused(None, "true")),
            (r#"{"error":{}}"#, refused(None, "")),
        ];
        for (body, expected) in cases {
            assert_eq!(one(body), failed(CallFailure::Refused(expected)), "{body}");
        }
        let with_data = one(r#"{"error":{"code":3,"message":"m","data":{"a":[1]}}}"#);
        let expected = RefusedCall {
            data: Some(json!({ "a": [1] })),
            ..refused(Some(3), "m")
        };
        assert_eq!(with_data, failed(CallFailure::Refused(expected)));
    }

    #[test]
    fn body_that_is_not_json_rpc_is_unreachable() {
        let unreadable = Response::Unreadable(CallFailure::Unreachable(NOT_JSON_RPC));
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            "1",
            "null",
            "\"x\"",
            "{\"a\":1}",
            "\u{fffd}",
        ] {
            assert_eq!(one(body), unreadable, "{body}");
        }
        let invalid = HttpResponse {
            body: b"{\"result\":\"\xff\"}",
            ..response(200, "")
        };
        assert_eq!(read_response(1, invalid), unreadable);
    }

    #[test]
    fn batch_is_read_in_any_order_and_by_any_kind_of_id() {
        let expected = Response::Answered(vec![Ok(json!("a")), Ok(json!("b"))]);
        for body in [
            r#"[{"id":1,"result":"a"},{"id":2,"result":"b"}]"#,
            r#"[{"id":2,"result":"b"},{"id":1,"result":"a"}]"#,
            r#"[{"id":"2","result":"b"},{"id":1.5,"result":"c"},{"id":1.0,"result":"a"}]"#,
            r#"[{"id":9,"result":"x"},{"id":2,"result":"b"},{"id":1,"result":"a"},{"id":0,"result":"y"}]"#,
            r#"[{"id":2,"result":"b"},{"id":1,"result":"a"},{"id":1,"result":"late"}, 5, null]"#,
        ] {
            assert_eq!(two(200, body), expected, "{body}");
        }
    }

    #[test]
    fn failed_element_of_a_batch_concerns_itself_alone() {
        let body =
            r#"[{"id":2,"error":{"code":-32005,"message":"rate limit"}},{"id":1,"result":"a"}]"#;
        let expected = vec![
            Ok(json!("a")),
            Err(CallFailure::Refused(refused(Some(-32005), "rate limit"))),
        ];
        assert_eq!(two(200, body), Response::Answered(expected));
        assert_eq!(
            two(200, r#"[{"id":1,"result":"a"}]"#),
            Response::Answered(vec![
                Ok(json!("a")),
                Err(CallFailure::Incomplete("answer to this call of a batch"))
            ])
        );
    }

    #[test]
    fn batch_that_is_refused_as_a_whole_may_be_sent_one_by_one() {
        let no = || CallFailure::Refused(refused(Some(-32600), "no batches"));
        for body in [
            r#"{"id":null,"error":{"code":-32600,"message":"no batches"}}"#,
            r#"[{"id":null,"error":{"code":-32600,"message":"no batches"}}]"#,
        ] {
            assert_eq!(two(200, body), Response::Unreadable(no()), "{body}");
        }
        for body in [
            "<html>",
            "[]",
            r#"{"id":1,"result":"a"}"#,
            r#"[{"result":"a"},{"result":"b"}]"#,
        ] {
            assert_eq!(
                two(200, body),
                Response::Unreadable(CallFailure::Unreachable(NOT_JSON_RPC)),
                "{body}"
            );
        }
        let failure = |status| status_failure(response(status, "no"));
        for status in [400, 405, 413, 415, 500, 501] {
            let unreadable = Response::Unreadable(failure(status));
            assert_eq!(two(status, "no"), unreadable, "{status}");
        }
        for status in [401, 403, 404, 408, 429, 502, 503, 504, 524] {
            let failed = Response::Failed(failure(status));
            assert_eq!(two(status, "no"), failed, "{status}");
        }
    }

    #[test]
    fn batch_beyond_a_rate_limit_fails_as_a_whole() {
        let limited = Response::Failed(CallFailure::Refused(RefusedCall {
            http_status: Some(429),
            ..refused(Some(-32000), "slow down")
        }));
        for body in [
            r#"{"error":{"code":-32000,"message":"slow down"}}"#,
            r#"[{"id":null,"error":{"code":-32000,"message":"slow down"}}]"#,
        ] {
            assert_eq!(two(429, body), limited, "{body}");
        }
    }

    #[test]
    fn http_error_with_a_json_rpc_body_is_that_refusal() {
        let body = r#"{"error":{"code":-32000,"message":"block range too wide"}}"#;
        let expected = RefusedCall {
            http_status: Some(400),
            ..refused(Some(-32000), "block range too wide")
        };
        assert_eq!(
            read_response(1, response(400, body)),
            Response::Answered(vec![Err(CallFailure::Refused(expected))])
        );
        assert_eq!(
            read_response(1, response(500, r#"{"id":1,"result":"0x1"}"#)),
            Response::Answered(vec![Err(CallFailure::Unreachable(SERVER_ERROR))]),
            "a result of a failed request proves nothing"
        );
    }

    #[test]
    fn http_error_without_json_rpc_is_read_by_its_status() {
        for (status, cause) in [
            (302, "the endpoint does not serve JSON-RPC at this URL"),
            (
                403,
                "the endpoint rejects the credentials (HTTP 401 or 403)",
            ),
            (404, "the endpoint has no such path (HTTP 404)"),
            (413, TOO_LARGE),
            (502, SERVER_ERROR),
            (503, "the endpoint is not available (HTTP 503)"),
            (504, GATEWAY_TIMED_OUT),
        ] {
            let failure = status_failure(response(status, "<html>"));
            assert_eq!(failure, CallFailure::Unreachable(cause), "{status}");
        }
    }

    #[test]
    fn status_that_asks_to_wait_is_a_rate_limit() {
        let wait = Duration::from_secs(7);
        for (status, retry_after, message) in [
            (429, None, "HTTP 429"),
            (429, Some(wait), "HTTP 429"),
            (503, Some(wait), "HTTP 503"),
        ] {
            let later = HttpResponse {
                retry_after,
                ..response(status, "<html>")
            };
            let limited = RefusedCall {
                http_status: Some(429),
                message: message.into(),
                retry_after,
                ..RefusedCall::default()
            };
            assert_eq!(status_failure(later), CallFailure::Refused(limited));
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = 1_445_412_400;
        let cases = [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("1.5", Some(2)),
            ("999999999999", Some(3600)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(80)),
            ("Wed, 21 Oct 2015 07:20:00 GMT", Some(0)),
            ("Thu, 21 Oct 1965 07:28:00 GMT", None),
            ("-1", None),
            ("NaN", None),
            ("soon", None),
            ("", None),
        ];
        for (header, seconds) in cases {
            assert_eq!(
                retry_after(header, now),
                seconds.map(Duration::from_secs),
                "{header}"
            );
        }
    }
}
