//! Patterns of `routes[].path`, and the methods that a route serves. Pure.
//!
//! A pattern is matched segment by segment, in linear time. `*` as the last segment matches
//! everything below, as another segment any one, and within a segment any letters. Patterns are
//! ordered by how specific they are: the greatest one that matches a path decides.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use crate::api::Method;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    /// The last `*`.
    Rest,
    /// Any segment.
    Any,
    /// Text around `*`.
    Glob(Vec<String>),
    Literal(String),
}

/// A pattern of paths below the prefix of an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Segment>);

/// A pattern that no path can match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pattern is relative, or has an empty segment or a dot segment")]
pub(crate) struct InvalidPattern;

impl Pattern {
    /// # Errors
    /// If no canonical path can match.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let segments: Vec<&str> = text
            .strip_prefix('/')
            .ok_or(InvalidPattern)?
            .split('/')
            .collect();
        let last = segments.len() - 1;
        let segment = |(index, text): (usize, &&str)| match *text {
            "." | ".." => Err(InvalidPattern),
            "" if index < last => Err(InvalidPattern),
            "*" if index == last => Ok(Segment::Rest),
            "*" => Ok(Segment::Any),
            text if text.contains('*') => {
                Ok(Segment::Glob(text.split('*').map(str::to_owned).collect()))
            }
            text => Ok(Segment::Literal(text.to_owned())),
        };
        let segments: Result<_, _> = segments.iter().enumerate().map(segment).collect();
        segments.map(Self)
    }

    /// A pattern that matches every path.
    pub(crate) fn everything() -> Self {
        Self(vec![Segment::Rest])
    }

    /// The pattern in lower case, for upstreams that do not distinguish the cases of letters.
    pub(crate) fn in_lower_case(&self) -> Self {
        let lower = |segment: &Segment| match segment {
            Segment::Glob(parts) => {
                Segment::Glob(parts.iter().map(|part| part.to_lowercase()).collect())
            }
            Segment::Literal(text) => Segment::Literal(text.to_lowercase()),
            other => other.clone(),
        };
        Self(self.0.iter().map(lower).collect())
    }

    /// Whether it matches a canonical path.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut texts = path.strip_prefix('/').unwrap_or(path).split('/');
        for segment in &self.0 {
            match (segment, texts.next()) {
                (Segment::Rest, text) => return text.is_some(),
                (_, None) => return false,
                (Segment::Any, Some(text)) if !text.is_empty() => {}
                (Segment::Literal(literal), Some(text)) if literal == text => {}
                (Segment::Glob(parts), Some(text)) if is_glob(parts, text) => {}
                _ => return false,
            }
        }
        texts.next().is_none()
    }
}

/// Whether a text has these parts in this order, with anything between them.
fn is_glob(parts: &[String], text: &str) -> bool {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return false;
    };
    let Some(rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    let Some(mut rest) = rest.strip_suffix(last.as_str()) else {
        return false;
    };
    for part in &parts[1..parts.len() - 1] {
        match rest.find(part.as_str()) {
            Some(begin) => rest = &rest[begin + part.len()..],
            None => return false,
        }
    }
    true
}

impl Ord for Pattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let weight = |segment: &Segment| match segment {
            Segment::Rest => 0,
            Segment::Any => 1,
            Segment::Glob(parts) => 2 + parts.iter().map(String::len).sum::<usize>(),
            Segment::Literal(_) => usize::MAX,
        };
        let weights = |pattern: &Self| pattern.0.iter().map(weight).collect::<Vec<_>>();
        weights(self).cmp(&weights(other))
    }
}

impl PartialOrd for Pattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Methods that a route serves; all of them if it lists none. HEAD is served with GET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Methods(BTreeSet<&'static str>);

impl Methods {
    /// Every method.
    pub(crate) const ALL: &'static Self = &Self(BTreeSet::new());

    /// Those that are listed, without HEAD, which goes with GET.
    pub(crate) fn listed(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied().filter(|name| *name != "HEAD")
    }

    pub(crate) fn of(methods: &[Method]) -> Self {
        let mut names: BTreeSet<_> = methods.iter().map(|method| method.as_str()).collect();
        if names.contains("GET") {
            names.insert("HEAD");
        }
        Self(names)
    }

    pub(crate) fn allow(&self, method: &http::Method) -> bool {
        self.0.is_empty() || self.0.contains(method.as_str())
    }

    /// The value of field `Allow` for routes that all list methods.
    pub(crate) fn union<'a>(all: impl Iterator<Item = &'a Self>) -> String {
        let names: BTreeSet<_> = all.flat_map(|methods| &methods.0).copied().collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn pattern_matches_segment_by_segment() {
        for (text, matching, other) in [
            ("/", &["/"][..], &["/a", "/a/b"][..]),
            ("/*", &["/", "/a", "/a/b/c"], &[]),
            (
                "/v1/*",
                &["/v1/", "/v1/a", "/v1/a/b"],
                &["/v1", "/v2/a", "/"],
            ),
            ("/v1/*/x", &["/v1/a/x"], &["/v1/x", "/v1/a/b/x", "/v1//x"]),
            (
                "/f/a*.js*n",
                &["/f/a.json", "/f/abc.jsan"],
                &["/f/a.js", "/f/b.json", "/f/an"],
            ),
            ("/a", &["/a"], &["/a/", "/A", "/ab", "/a/b"]),
            ("/a*b*c", &["/abc", "/axbyc"], &["/ac", "/abx"]),
        ] {
            for path in matching {
                assert!(pattern(text).matches(path), "{text} {path}");
            }
            for path in other {
                assert!(!pattern(text).matches(path), "{text} {path}");
            }
        }
    }

    #[test]
    fn pattern_that_no_path_can_match_is_refused() {
        for text in ["", "a", "/a//b", "//", "/../a", "/a/."] {
            assert_eq!(Pattern::parse(text), Err(InvalidPattern), "{text}");
        }
        assert!(!is_glob(&[], "a"));
    }

    #[test]
    fn more_specific_pattern_is_greater() {
        let ordered = ["/*", "/*/x", "/a*", "/abc*", "/a", "/a/*", "/a/b"];
        for pair in ordered.windows(2) {
            assert!(pattern(pair[0]) < pattern(pair[1]), "{pair:?}");
        }
        assert_eq!(pattern("/a").cmp(&pattern("/b")), Ordering::Equal);
        assert_eq!(Pattern::everything(), pattern("/*"));
    }

    #[test]
    fn head_is_served_with_get() {
        let methods = Methods::of(&[Method::Get, Method::Post]);
        assert!(methods.allow(&http::Method::HEAD) && methods.allow(&http::Method::POST));
        assert!(!methods.allow(&http::Method::DELETE));
        assert!(Methods::of(&[]).allow(&http::Method::DELETE));
        let put = Methods::of(&[Method::Put]);
        assert_eq!(
            Methods::union([&methods, &put].into_iter()),
            "GET, HEAD, POST, PUT"
        );
    }
}
