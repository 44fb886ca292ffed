//! Reads the target of a request into one view of its path. Pure.
//!
//! The route table matches a [`CanonicalPath`], and the upstream receives the same bytes. So no
//! spelling of a path can be a free route to the gate and a paid one to the upstream. What two
//! servers may read differently is refused, not repaired: this file must never resolve a dot
//! segment, merge slashes, or decode a character that may separate something.
//!
//! Which routes exist is the table's matter. [`super::headers`] does the same work for fields.

use http::header::HOST;
use http::uri::Authority;
use http::{HeaderMap, Method, Uri, Version};

use crate::metrics::Label;

/// Maximum bytes of a path as it was sent.
const LONGEST: usize = 8 * 1024;

/// The rule that a request target breaks. Each of them is answered 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathRefusal {
    #[error("the request target must be a path, or a URL of the host that the request names")]
    TargetForm,
    #[error("the request must name one host")]
    Host,
    #[error("the path is longer than 8 KiB")]
    TooLong,
    #[error("the path contains a character that must be percent-encoded")]
    Character,
    #[error("the path contains a backslash")]
    Backslash,
    #[error("the path contains % without two hexadecimal digits")]
    MalformedEscape,
    #[error("the path contains an encoded control character")]
    EncodedControl,
    #[error("the path contains an encoded slash")]
    EncodedSlash,
    #[error("the path contains an encoded backslash")]
    EncodedBackslash,
    #[error("the path contains a character that is encoded in more bytes than it has in UTF-8")]
    Overlong,
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    #[error("the path contains an empty segment")]
    EmptySegment,
    #[error("the path contains the segment . or ..")]
    DotSegment,
}

impl Label for PathRefusal {
    const NAME: &'static str = "rule";
    const ALL: &'static [Self] = &[
        Self::TargetForm,
        Self::Host,
        Self::TooLong,
        Self::Character,
        Self::Backslash,
        Self::MalformedEscape,
        Self::EncodedControl,
        Self::EncodedSlash,
        Self::EncodedBackslash,
        Self::Overlong,
        Self::DoubleEncoding,
        Self::EmptySegment,
        Self::DotSegment,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::TargetForm => "target_form",
            Self::Host => "host",
            Self::TooLong => "too_long",
            Self::Character => "character",
            Self::Backslash => "backslash",
            Self::MalformedEscape => "malformed_escape",
            Self::EncodedControl => "encoded_control",
            Self::EncodedSlash => "encoded_slash",
            Self::EncodedBackslash => "encoded_backslash",
            Self::Overlong => "overlong",
            Self::DoubleEncoding => "double_encoding",
            Self::EmptySegment => "empty_segment",
            Self::DotSegment => "dot_segment",
        }
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RequestTarget {
    /// `OPTIONS *`: the server itself.
    Server,
    Path {
        /// Host and port as the request names them, in lower case; empty only before HTTP/1.1.
        host: String,
        path: CanonicalPath,
    },
}

impl RequestTarget {
    /// Reads the target of a request. The query is no part of it: it passes untouched.
    ///
    /// # Errors
    /// If clients and servers may disagree on what the target means.
    pub(crate) fn of(
        method: &Method,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, PathRefusal> {
        let host = host_of(version, uri, headers)?;
        let is_foreign = |authority: &Authority| !authority.as_str().eq_ignore_ascii_case(host);
        if method == Method::CONNECT || uri.authority().is_some_and(is_foreign) {
            return Err(PathRefusal::TargetForm);
        }
        if method == Method::OPTIONS && uri.path() == "*" {
            return Ok(Self::Server);
        }
        let path = CanonicalPath::new(uri.path())?;
        let host = host.to_ascii_lowercase();
        Ok(Self::Path { host, path })
    }
}

/// The one host that a request names. HTTP/2 may name it by `:authority` alone.
fn host_of<'a>(
    version: Version,
    uri: &'a Uri,
    headers: &'a HeaderMap,
) -> Result<&'a str, PathRefusal> {
    let mut fields = headers.get_all(HOST).iter();
    match (fields.next(), fields.next(), uri.authority()) {
        (Some(host), None, _) => {
            let host = host.to_str().ok().filter(|host| is_authority(host));
            host.ok_or(PathRefusal::Host)
        }
        (None, _, Some(authority)) if version >= Version::HTTP_2 => Ok(authority.as_str()),
        (None, _, None) if version < Version::HTTP_11 => Ok(""),
        _ => Err(PathRefusal::Host),
    }
}

/// Whether a text is a host with or without a port, and nothing that a log, a URL or a field could
/// read as more than that.
pub(super) fn is_authority(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]".contains(&byte);
    text.bytes().all(is_allowed) && text.parse::<Authority>().is_ok()
}

/// A path that has one meaning. It starts with `/`; characters that need no escape have none, and
/// all other escapes are in upper case; no segment but the last is empty; no segment is `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CanonicalPath(String);

impl CanonicalPath {
    /// The canonical form of a path. It is its own canonical form.
    ///
    /// # Errors
    /// If two servers may read the path differently.
    pub(crate) fn new(raw: &str) -> Result<Self, PathRefusal> {
        if raw.len() > LONGEST {
            return Err(PathRefusal::TooLong);
        }
        if !raw.starts_with('/') {
            return Err(PathRefusal::TargetForm);
        }
        let canonical = decode_unreserved(raw)?;
        // Checked on the result: `%25%32f` shows only there that it is `%2f` encoded twice.
        if is_encoded_twice(&canonical) {
            return Err(PathRefusal::DoubleEncoding);
        }
        if has_overlong(&canonical) {
            return Err(PathRefusal::Overlong);
        }
        if canonical.contains("//") {
            return Err(PathRefusal::EmptySegment);
        }
        if canonical.split('/').any(is_dot_segment) {
            return Err(PathRefusal::DotSegment);
        }
        Ok(Self(canonical))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// What is between the slashes. The last one is empty if the path ends with a slash.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1)
    }

    /// The path below a prefix, which ends where a segment ends; `/` for the prefix itself, with or
    /// without a slash. It is canonical too.
    pub(crate) fn strip_prefix(&self, prefix: &str) -> Option<String> {
        let rest = self.0.strip_prefix(prefix.trim_end_matches('/'))?;
        match rest {
            "" => Some("/".to_owned()),
            rest => rest.starts_with('/').then(|| rest.to_owned()),
        }
    }
}

/// Decodes the characters that never need an escape (RFC 3986, 2.3), and writes the other escapes
/// in upper case.
fn decode_unreserved(raw: &str) -> Result<String, PathRefusal> {
    let mut canonical = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex_digit(bytes.next()), hex_digit(bytes.next()));
                let digits = high.zip(low).ok_or(PathRefusal::MalformedEscape)?;
                match digits.0 << 4 | digits.1 {
                    0..0x20 => return Err(PathRefusal::EncodedControl),
                    b'/' => return Err(PathRefusal::EncodedSlash),
                    b'\\' => return Err(PathRefusal::EncodedBackslash),
                    plain if is_unreserved(plain) => canonical.push(plain.into()),
                    other => canonical.push_str(&format!("%{other:02X}")),
                }
            }
            b'\\' => return Err(PathRefusal::Backslash),
            b'?' | b'#' => return Err(PathRefusal::Character),
            0x21..=0x7e => canonical.push(byte.into()),
            _ => return Err(PathRefusal::Character),
        }
    }
    Ok(canonical)
}

fn hex_digit(byte: Option<u8>) -> Option<u8> {
    match byte? {
        digit @ b'0'..=b'9' => Some(digit - b'0'),
        digit @ b'a'..=b'f' => Some(digit - b'a' + 10),
        digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Path of a URL, without query and fragment; empty if it has none. `None` if it has no scheme.
pub(super) fn path_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    Some(rest.find('/').map_or("", |begin| &rest[begin..]))
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Whether decoding a path once leaves an escape.
fn is_encoded_twice(path: &str) -> bool {
    let mut after_percent = path.split("%25").skip(1).map(str::as_bytes);
    after_percent.any(|rest| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit))
}

/// Whether a canonical path has bytes with which UTF-8 must not begin a character, since a shorter
/// form exists: lax decoders read `%C0%AF` as a slash, and `%C0%AE` as a dot.
fn has_overlong(path: &str) -> bool {
    ["%C0", "%C1", "%E0%8", "%E0%9", "%F0%8"]
        .iter()
        .any(|begin| path.contains(begin))
}

/// Whether a segment is `.` or `..`, also with the parameters that some servers cut off.
fn is_dot_segment(segment: &str) -> bool {
    let rest = segment.trim_start_matches('.');
    let dots = segment.len() - rest.len();
    let is_whole = rest.is_empty() || rest.starts_with(';') || rest.starts_with("%3B");
    (1..=2).contains(&dots) && is_whole
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http::HeaderValue;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    /// Pieces that servers are known to read differently, and harmless ones.
    const PIECES: [&str; 47] = [
        "/",
        "/",
        "/",
        "a",
        "B",
        "0",
        "-",
        ".",
        "..",
        "~",
        "_",
        "%",
        "%2",
        "%2f",
        "%2F",
        "%5c",
        "%5C",
        "\\",
        "%25",
        "%252f",
        "%2e",
        "%2E",
        "%00",
        "%1f",
        "%20",
        "%7f",
        "%80",
        "%c3%a9",
        "%c0%af",
        "%41",
        "%7E",
        "%3b",
        "%3B",
        ";",
        ";x=1",
        "%32",
        "%66",
        "//",
        "/.",
        "/..",
        "/./",
        "/../",
        "é",
        " ",
        "+",
        "@:",
        "!$&'()*,=",
    ];

    fn canonical(raw: &str) -> Result<String, PathRefusal> {
        CanonicalPath::new(raw).map(|path| path.as_str().to_owned())
    }

    /// What a server that decodes a path once sees.
    fn decoded(path: &str) -> Vec<u8> {
        let mut bytes = path.bytes();
        let mut decoded = Vec::new();
        while let Some(byte) = bytes.next() {
            let mut rest = bytes.clone();
            let digits = hex_digit(rest.next()).zip(hex_digit(rest.next()));
            match digits.filter(|_| byte == b'%') {
                Some((high, low)) => {
                    bytes = rest;
                    decoded.push(high << 4 | low);
                }
                None => decoded.push(byte),
            }
        }
        decoded
    }

    /// What must hold for every path that is accepted.
    fn check(raw: &str, canonical: &str) {
        assert_eq!(
            CanonicalPath::new(canonical).unwrap().as_str(),
            canonical,
            "{raw:?} is not canonical after one pass"
        );
        let seen = decoded(canonical);
        assert_eq!(seen, decoded(raw), "{raw:?} changed its meaning");
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert_eq!(
            decoded(&seen),
            seen.as_bytes(),
            "{raw:?} decodes twice to something else"
        );
        let slashes = |text: &str| text.matches('/').count();
        assert_eq!(slashes(&seen), slashes(canonical), "{raw:?}");
        assert!(!seen.contains(['\\', '\0']), "{raw:?}");
        let mut segments: Vec<&str> = seen.split('/').skip(1).collect();
        segments.pop();
        assert!(!segments.contains(&""), "{raw:?}");
        for segment in seen.split('/') {
            let name = segment.split(';').next().unwrap();
            assert!(![".", ".."].contains(&name), "{raw:?}");
        }
    }

    #[test]
    fn accepted_path_has_one_meaning() {
        let mut random = StdRng::seed_from_u64(402);
        let (mut accepted, mut refused) = (0, HashSet::new());
        for _ in 0..100_000 {
            let pieces = random.random_range(0..8);
            let mut raw = "/".to_owned();
            for _ in 0..pieces {
                raw.push_str(PIECES[random.random_range(0..PIECES.len())]);
            }
            match canonical(&raw) {
                Ok(path) => {
                    check(&raw, &path);
                    accepted += 1;
                }
                Err(refusal) => {
                    refused.insert(refusal.as_str());
                }
            }
        }
        assert!(accepted > 10_000, "only {accepted} were accepted");
        assert_eq!(refused.len(), 10, "{refused:?}");
    }

    #[test]
    fn random_bytes_are_accepted_only_with_one_meaning() {
        let mut random = StdRng::seed_from_u64(7);
        let letters: Vec<char> = ('\u{0}'..='\u{a0}').collect();
        for _ in 0..20_000 {
            let length = random.random_range(0..6);
            let pick = |_| letters[random.random_range(0..letters.len())];
            let raw: String = "/".chars().chain((0..length).map(pick)).collect();
            if let Ok(path) = canonical(&raw) {
                check(&raw, &path);
            }
        }
    }

    #[test]
    fn equal_spellings_become_equal_paths() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/A", "/A"),
            ("/%61%7e%2D%5f", "/a~-_"),
            ("/%c3%a9", "/%C3%A9"),
            (
                "/%e0%a0%80%e2%82%ac%f0%9f%98%80",
                "/%E0%A0%80%E2%82%AC%F0%9F%98%80",
            ),
            ("/a%3ab", "/a%3Ab"),
            ("/a:b@c!$&'()*+,;=", "/a:b@c!$&'()*+,;="),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/...", "/..."),
            ("/.a", "/.a"),
            ("/..a;b", "/..a;b"),
            ("/a.;b", "/a.;b"),
            ("/100%25", "/100%25"),
            ("/100%25/ab", "/100%25/ab"),
            ("/%25a/%25", "/%25a/%25"),
            ("/%7f%80%ff", "/%7F%80%FF"),
            ("/{}|^`\"<>[]", "/{}|^`\"<>[]"),
        ] {
            assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
        }
        assert!(canonical(&format!("/{}", "a".repeat(LONGEST - 1))).is_ok());
    }

    #[test]
    fn path_with_two_meanings_is_refused_by_its_rule() {
        use PathRefusal::*;
        let long = format!("/{}", "a".repeat(LONGEST));
        let cases: [(PathRefusal, &[&str]); 12] = [
            (TargetForm, &["", "a", "*", "http://a/b", "%2f"]),
            (TooLong, &[&long]),
            (
                Character,
                &[
                    "/ ",
                    "/\0",
                    "/\t",
                    "/\r\n",
                    "/\x7f",
                    "/é",
                    "/a?b",
                    "/a#b",
                    "/\u{2215}",
                ],
            ),
            (Backslash, &["/\\", "/a\\..\\b"]),
            (
                MalformedEscape,
                &["/%", "/%2", "/%2/a", "/%g0", "/%0g", "/%u002f", "/%%2f"],
            ),
            (EncodedControl, &["/%00", "/%0a", "/%0D%0A", "/a%1f"]),
            (EncodedSlash, &["/%2f", "/a%2Fb", "/..%2f"]),
            (EncodedBackslash, &["/%5c", "/a%5Cb"]),
            (
                DoubleEncoding,
                &[
                    "/%252f",
                    "/%252e%252e",
                    "/%2541",
                    "/%2525",
                    "/%25%32f",
                    "/%25%32%66",
                    "/a%25a%25ff",
                ],
            ),
            (
                Overlong,
                &[
                    "/%c0%ae%c0%ae/a",
                    "/a%C0%AFb",
                    "/a%c1%9cb",
                    "/%c0.",
                    "/%e0%80%af",
                    "/%e0%9f%bf",
                    "/%f0%80%80%af",
                ],
            ),
            (EmptySegment, &["//", "//a", "/a//b", "/a//"]),
            (
                DotSegment,
                &[
                    "/.",
                    "/..",
                    "/a/.",
                    "/a/../b",
                    "/./a",
                    "/%2e",
                    "/%2E%2e/a",
                    "/.%2e",
                    "/.;",
                    "/..;/a",
                    "/..;x=1",
                    "/.%3b/a",
                    "/%2e%2e%3Bx",
                ],
            ),
        ];
        for (refusal, paths) in cases {
            for raw in paths {
                assert_eq!(canonical(raw), Err(refusal), "{raw}");
            }
        }
    }

    #[test]
    fn prefix_ends_where_a_segment_ends() {
        let below = |path: &str, prefix: &str| {
            let stripped = CanonicalPath::new(path).unwrap().strip_prefix(prefix)?;
            assert!(
                canonical(&stripped).is_ok(),
                "{stripped} must stay canonical"
            );
            Some(stripped)
        };
        for prefix in ["/services/a", "/services/a/"] {
            assert_eq!(below("/services/a", prefix).as_deref(), Some("/"));
            assert_eq!(below("/services/a/", prefix).as_deref(), Some("/"));
            assert_eq!(below("/services/a/b/", prefix).as_deref(), Some("/b/"));
            assert_eq!(below("/services/ab", prefix), None);
            assert_eq!(below("/services/A", prefix), None);
            assert_eq!(below("/services", prefix), None);
        }
        assert_eq!(below("/", "/").as_deref(), Some("/"));
        assert_eq!(below("/a/b", "/").as_deref(), Some("/a/b"));
    }

    #[test]
    fn path_of_a_url_is_neither_its_host_nor_its_query() {
        for (url, expected) in [
            ("https://shop.example", Some("")),
            ("https://shop.example/", Some("/")),
            ("https://shop.example/a/b?c=/d#e", Some("/a/b")),
            ("https://shop.example?a=/b", Some("")),
            ("https://shop.example#/a", Some("")),
            ("shop.example/a", None),
        ] {
            assert_eq!(path_of(url), expected, "{url}");
        }
    }

    #[test]
    fn segments_show_a_trailing_slash() {
        let segments = |path: &str| -> Vec<String> {
            let path = CanonicalPath::new(path).unwrap();
            path.segments().map(str::to_owned).collect()
        };
        assert_eq!(segments("/"), [""]);
        assert_eq!(segments("/a/b"), ["a", "b"]);
        assert_eq!(segments("/a/b/"), ["a", "b", ""]);
    }

    /// The target of a request with these Host fields.
    fn target(
        method: Method,
        version: Version,
        uri: &str,
        hosts: &[&str],
    ) -> Result<RequestTarget, PathRefusal> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_bytes(host.as_bytes()).unwrap());
        }
        RequestTarget::of(&method, version, &uri.parse().unwrap(), &headers)
    }

    #[test]
    fn target_must_name_one_host() {
        let of = |version, uri, hosts: &[&str]| target(Method::GET, version, uri, hosts);
        let http11 = |uri, hosts: &[&str]| of(Version::HTTP_11, uri, hosts);
        let ok = |host: &str| {
            let (host, path) = (host.to_owned(), CanonicalPath("/a".to_owned()));
            Ok(RequestTarget::Path { host, path })
        };
        assert_eq!(
            http11("/a?b=//", &["Shop.Example:80"]),
            ok("shop.example:80")
        );
        assert_eq!(http11("/a", &["[::1]:80"]), ok("[::1]:80"));
        assert_eq!(http11("http://A.b/a", &["a.B"]), ok("a.b"));
        for hosts in [
            &[][..],
            &["a", "a"],
            &[""],
            &["a@b"],
            &["a,b"],
            &["a/b"],
            &["a b"],
            &["é"],
            &["["],
        ] {
            assert_eq!(http11("/a", hosts), Err(PathRefusal::Host), "{hosts:?}");
        }
        assert_eq!(http11("http://a/a", &[]), Err(PathRefusal::Host));
        assert_eq!(http11("http://a/a", &["b"]), Err(PathRefusal::TargetForm));
        assert_eq!(http11("http://u@a/a", &["a"]), Err(PathRefusal::TargetForm));
        assert_eq!(of(Version::HTTP_2, "https://A/a", &[]), ok("a"));
        assert_eq!(
            of(Version::HTTP_2, "https://a/a", &["b"]),
            Err(PathRefusal::TargetForm)
        );
        assert_eq!(of(Version::HTTP_2, "/a", &[]), Err(PathRefusal::Host));
        assert_eq!(of(Version::HTTP_10, "/a", &[]), ok(""));
        assert_eq!(of(Version::HTTP_10, "/a", &["a"]), ok("a"));
    }

    #[test]
    fn target_of_the_server_and_of_a_tunnel_is_no_path() {
        let http11 = |method, uri| target(method, Version::HTTP_11, uri, &["a"]);
        assert_eq!(http11(Method::OPTIONS, "*"), Ok(RequestTarget::Server));
        assert_eq!(http11(Method::GET, "*"), Err(PathRefusal::TargetForm));
        assert_eq!(http11(Method::CONNECT, "a"), Err(PathRefusal::TargetForm));
        assert_eq!(http11(Method::CONNECT, "/a"), Err(PathRefusal::TargetForm));
        assert_eq!(http11(Method::GET, "/%2f"), Err(PathRefusal::EncodedSlash));
        assert!(http11(Method::OPTIONS, "/a").is_ok());
    }

    #[test]
    fn every_rule_has_a_label_of_its_own() {
        let labels: HashSet<_> = PathRefusal::ALL.iter().map(|rule| rule.as_str()).collect();
        assert_eq!(labels.len(), PathRefusal::ALL.len());
        assert_eq!(labels.len(), 13, "list every variant in ALL");
    }
}
