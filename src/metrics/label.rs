//! Labels whose values are all known when the program is built.

/// A label with a name and a closed set of values.
pub trait Label: Copy + 'static {
    /// Name of the label; empty for none.
    const NAME: &'static str;
    /// Every value.
    const ALL: &'static [Self];
    /// The value as Prometheus sees it.
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

/// Defines an enum that is a [`Label`]: `Type, "name" { Variant = "value", }`.
macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $name:literal { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($(#[$variant_doc])* $variant,)* }

        impl $crate::metrics::label::Label for $type {
            const NAME: &'static str = $name;
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)* }
            }
        }
    };
}

pub(super) use label;

label!(
    /// How an HTTP request was answered: by class, and by status code where that says more.
    ResponseCode, "code" {
        Success = "2xx",
        /// Redirections, and 304 Not Modified.
        Redirection = "3xx",
        NotFound = "404",
        Conflict = "409",
        TooManyRequests = "429",
        /// Any other 4xx.
        ClientError = "4xx",
        ServerError = "5xx",
        /// No response.
        None = "none",
    }
);

impl ResponseCode {
    /// The label of a status code; `None` means that there was no response.
    pub(super) fn of(code: Option<http::StatusCode>) -> Self {
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

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn status_codes_are_grouped_by_class_except_those_that_say_more() {
        let label = |code| ResponseCode::of(Some(StatusCode::from_u16(code).unwrap())).as_str();
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
        assert_eq!(ResponseCode::of(None).as_str(), "none");
    }
}
