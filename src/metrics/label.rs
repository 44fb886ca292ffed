//! Labels whose values are all known when the program is built.

/// A label with a name and a closed set of values.
pub trait Label: Copy + 'static {
    /// Name of the label; empty for none.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];
    /// The value as it stands in a series.
    fn as_str(self) -> &'static str;
}

/// No label.
impl Label for () {
    const NAME: &'static str = "";
    const ALL: &'static [Self] = &[()];

    fn as_str(self) -> &'static str {
        ""
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $name:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)* }
            }
        }
    };
}

label!(
    /// A reconcile loop.
    Loop, "loop" {
        /// ServiceOffers.
        Offer = "offer",
        /// IdentityRegistries.
        Registry = "registry",
    }
);

label!(
    /// How a replica came to lead.
    Takeover, "cause" {
        /// There was no Lease.
        Creation = "creation",
        /// The holder had released it.
        Release = "release",
        /// The holder had let it run out.
        Expiry = "expiry",
        /// The kubelet had reported that the holder's container terminated.
        Termination = "termination",
        /// The holder was an earlier container of the same Pod.
        Reclaim = "reclaim",
    }
);

label!(
    /// Why the Lease was not written.
    RenewError, "reason" {
        /// It had been changed meanwhile.
        Conflict = "Conflict",
        /// The API server refused.
        Refused = "Refused",
        /// The API server cannot be reached.
        Unreachable = "Unreachable",
        /// The API server did not answer in time.
        Timeout = "Timeout",
    }
);

label!(
    /// How a reconciliation ended.
    ReconcileResult, "result" {
        /// Nothing is left to do.
        Success = "success",
        /// It goes on by itself.
        Requeue = "requeue",
        /// It is tried again.
        Error = "error",
        /// It was cut short, because the process ends or the term is over.
        Aborted = "aborted",
    }
);

label!(
    /// Why a reconciliation failed.
    FailureReason, "reason" {
        /// Another replica wrote first.
        Conflict = "Conflict",
        /// The API server did not do as asked.
        Kubernetes = "Kubernetes",
        /// An RPC endpoint did not answer as it should.
        Chain = "Chain",
        /// This replica no longer leads.
        NotLeading = "NotLeading",
        /// What is stored contradicts itself.
        Inconsistent = "Inconsistent",
    }
);

label!(
    /// A kind that is watched.
    WatchedKind, "kind" {
        /// AgentRegistration.
        AgentRegistration = "AgentRegistration",
        /// IdentityRegistry.
        IdentityRegistry = "IdentityRegistry",
        /// Namespace.
        Namespace = "Namespace",
        /// Service.
        Service = "Service",
        /// ServiceOffer.
        ServiceOffer = "ServiceOffer",
    }
);

label!(
    /// A condition of an offer.
    OfferCondition, "condition" {
        /// Whether the offer can be acted on.
        Accepted = "Accepted",
        /// Whether it is listed.
        Registered = "Registered",
        /// Whether all that this version covers is done.
        Ready = "Ready",
    }
);

label!(
    /// Status of a condition.
    Status, "status" {
        /// It holds.
        True = "True",
        /// It does not hold.
        False = "False",
        /// It is not known, or not there.
        Unknown = "Unknown",
    }
);

label!(
    /// A method of HTTP.
    HttpMethod, "method" {
        /// GET.
        Get = "GET",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// Any other.
        Other = "other",
    }
);

impl HttpMethod {
    /// The label of a method.
    #[must_use]
    pub fn of(method: &http::Method) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|label| label.as_str() == method.as_str())
            .unwrap_or(Self::Other)
    }
}

label!(
    /// How a request was answered: by class, and by itself where that says more.
    Code, "code" {
        /// Success.
        Success = "2xx",
        /// Redirections, and 304 Not Modified.
        Redirection = "3xx",
        /// 404 Not Found.
        NotFound = "404",
        /// 409 Conflict.
        Conflict = "409",
        /// 429 Too Many Requests.
        TooManyRequests = "429",
        /// Any other mistake of the caller.
        ClientError = "4xx",
        /// A mistake of the server.
        ServerError = "5xx",
        /// No answer.
        None = "none",
    }
);

impl Code {
    /// The label of an answer; `None` means that there was none.
    #[must_use]
    pub fn of(code: Option<http::StatusCode>) -> Self {
        match code.map(|code| code.as_u16()) {
            Some(404) => Self::NotFound,
            Some(409) => Self::Conflict,
            Some(429) => Self::TooManyRequests,
            Some(300..=399) => Self::Redirection,
            Some(400..=499) => Self::ClientError,
            Some(500..) => Self::ServerError,
            Some(_) => Self::Success,
            None => Self::None,
        }
    }
}

label!(
    /// A method of an RPC endpoint.
    RpcMethod, "method" {
        /// eth_chainId.
        ChainId = "eth_chainId",
        /// eth_getBlockByNumber.
        Block = "eth_getBlockByNumber",
        /// eth_getCode.
        Code = "eth_getCode",
        /// eth_call.
        Call = "eth_call",
        /// eth_getTransactionCount.
        TransactionCount = "eth_getTransactionCount",
        /// eth_getBalance.
        Balance = "eth_getBalance",
        /// eth_feeHistory.
        FeeHistory = "eth_feeHistory",
        /// eth_estimateGas.
        EstimateGas = "eth_estimateGas",
        /// eth_getLogs.
        Logs = "eth_getLogs",
        /// eth_getTransactionByHash.
        Transaction = "eth_getTransactionByHash",
        /// eth_getTransactionReceipt.
        Receipt = "eth_getTransactionReceipt",
        /// eth_sendRawTransaction.
        Send = "eth_sendRawTransaction",
    }
);

label!(
    /// How a request to an RPC endpoint ended.
    RpcResult, "result" {
        /// With a result.
        Ok = "ok",
        /// With an error of the chain's software.
        Refused = "refused",
        /// Without an answer that can be understood.
        Unreachable = "unreachable",
    }
);

label!(
    /// How far a registration came.
    RegistrationOutcome, "outcome" {
        /// Signed and stored.
        Signed = "signed",
        /// Sent, repeats included.
        Sent = "sent",
        /// Registered, final.
        Registered = "registered",
        /// An agent that existed was taken over into the records.
        Adopted = "adopted",
        /// The registry was frozen over it.
        Frozen = "frozen",
    }
);

label!(
    /// A route of the HTTP servers.
    Route, "route" {
        /// The document of one agent.
        Agent = "/agents/{file}",
        /// The well-known document.
        WellKnown = "/.well-known/agent-registration.json",
        /// /livez.
        Livez = "/livez",
        /// /readyz.
        Readyz = "/readyz",
        /// /metrics.
        Metrics = "/metrics",
        /// /log-level.
        LogLevel = "/log-level",
        /// Anything else.
        Other = "other",
    }
);

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn every_answer_has_a_class_and_those_that_say_more_have_their_own() {
        let label = |code| Code::of(Some(StatusCode::from_u16(code).unwrap())).as_str();
        for (codes, expected) in [
            (&[101, 200, 201, 299][..], "2xx"),
            (&[300, 304, 399], "3xx"),
            (&[404], "404"),
            (&[409], "409"),
            (&[429], "429"),
            (&[400, 403, 422, 499], "4xx"),
            (&[500, 503, 599], "5xx"),
        ] {
            assert!(
                codes.iter().all(|code| label(*code) == expected),
                "{codes:?}"
            );
        }
        assert_eq!(Code::of(None).as_str(), "none");
    }

    #[test]
    fn every_method_of_this_operator_has_a_label_and_others_share_one() {
        for (method, label) in [
            (http::Method::GET, "GET"),
            (http::Method::POST, "POST"),
            (http::Method::PUT, "PUT"),
            (http::Method::PATCH, "PATCH"),
            (http::Method::DELETE, "other"),
        ] {
            assert_eq!(HttpMethod::of(&method).as_str(), label);
        }
    }

    #[test]
    fn no_label_has_two_values_of_one_name() {
        fn check<L: Label>() {
            let values: std::collections::BTreeSet<&str> =
                L::ALL.iter().map(|value| value.as_str()).collect();
            assert_eq!(values.len(), L::ALL.len(), "{}", L::NAME);
        }
        check::<Loop>();
        check::<Takeover>();
        check::<RenewError>();
        check::<ReconcileResult>();
        check::<FailureReason>();
        check::<WatchedKind>();
        check::<OfferCondition>();
        check::<Status>();
        check::<HttpMethod>();
        check::<Code>();
        check::<RpcMethod>();
        check::<RpcResult>();
        check::<RegistrationOutcome>();
        check::<Route>();
    }
}
