//! How many blocks one request for logs covers. Pure.
//!
//! Endpoints limit the blocks or logs of one request, each with its own limit and error message, and
//! slow ones just do not answer. So the step adapts: a request that fails halves it, or takes the
//! limit that the message names, and an answered one grows it, but never up to a size that failed.
//! [`super::error`] says which failures are a matter of size.

/// Blocks of the first request.
const INITIAL: u64 = 10_000;
/// Maximum blocks of one request.
const MAX: u64 = 1_000_000;

/// Number of blocks that the next request of a scan covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanStep {
    blocks: u64,
    /// Smallest number of blocks that failed.
    failed: Option<u64>,
}

impl Default for ScanStep {
    fn default() -> Self {
        Self {
            blocks: INITIAL,
            failed: None,
        }
    }
}

impl ScanStep {
    /// The next range of blocks, both ends included; `None` after `last`.
    #[must_use]
    pub fn range(self, next: u64, last: u64) -> Option<(u64, u64)> {
        (next <= last).then(|| (next, last.min(next.saturating_add(self.blocks - 1))))
    }

    /// The step after an answered request: twice the blocks, or half of the way to the smallest size
    /// that failed. Close to that size it stays: a request that fails costs more than a few blocks
    /// gain.
    #[must_use]
    pub fn grown(self) -> Self {
        let blocks = match self.failed {
            None => (self.blocks * 2).min(MAX),
            Some(failed) => {
                let room = failed.saturating_sub(self.blocks);
                if room > self.blocks / 4 {
                    self.blocks + room / 2
                } else {
                    self.blocks
                }
            }
        };
        Self {
            blocks: blocks.min(MAX),
            ..self
        }
    }

    /// The step after a failed request for `(from, to)`, which may have covered fewer blocks than
    /// the step allows; `None` if it was one block. `limit` is the number of blocks that the
    /// endpoint says it allows.
    #[must_use]
    pub fn refused(self, (from, to): (u64, u64), limit: Option<u64>) -> Option<Self> {
        let asked = to.saturating_sub(from).saturating_add(1);
        if asked <= 1 {
            return None;
        }
        let failed = self.failed.map_or(asked, |failed| failed.min(asked));
        let half = failed / 2;
        let named = limit.filter(|limit| (1..failed).contains(limit));
        Some(match named {
            // The endpoint names its own ceiling, so no size in between is worth a request.
            Some(limit) => Self {
                blocks: limit,
                failed: Some(limit.saturating_add(1)),
            },
            None => Self {
                blocks: half.min(self.blocks).max(1),
                failed: Some(failed),
            },
        })
    }
}

/// Number of blocks that an endpoint's message allows in one request; `None` if it names none.
///
/// A message may name a range that would work (`[0x1, 0xa]` or `5930000-5949999`), or a maximum. It
/// is only a hint: the next request decides.
#[must_use]
pub fn hinted_limit(message: &str) -> Option<u64> {
    let lower = message.to_lowercase();
    named_range(&lower).or_else(|| named_maximum(&lower))
}

/// Reads a range that the message proposes.
fn named_range(lower: &str) -> Option<u64> {
    let bracket = lower.split_once('[').and_then(|(_, rest)| {
        let (range, _) = rest.split_once(']')?;
        let (from, to) = range.split_once(',')?;
        span(hex_or_decimal(from)?, hex_or_decimal(to)?)
    });
    bracket.or_else(|| {
        let (_, rest) = lower.split_once("with the range ")?;
        let (from, rest) = rest.split_once('-')?;
        let to: String = rest
            .trim_start()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        span(hex_or_decimal(from)?, to.parse().ok()?)
    })
}

fn span(from: u64, to: u64) -> Option<u64> {
    to.checked_sub(from)?.checked_add(1)
}

fn hex_or_decimal(text: &str) -> Option<u64> {
    let text = text.trim().trim_matches(['"', '\'']);
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Reads the first number of blocks after a word such as "maximum".
fn named_maximum(lower: &str) -> Option<u64> {
    const BEFORE: [&str; 11] = [
        "max", "maximum", "limit", "limited", "up", "most", "over", "than", "exceed", "exceeds",
        "within",
    ];
    /// What a number counts if it does not count blocks.
    const OTHER_UNITS: [&str; 9] = [
        "results", "result", "logs", "log", "seconds", "second", "ms", "mb", "requests",
    ];
    let words: Vec<&str> = lower
        .split(|letter: char| letter.is_whitespace() || ":()[]=".contains(letter))
        .map(|word| word.trim_matches(|letter: char| ".;,!?\"'".contains(letter)))
        .filter(|word| !word.is_empty())
        .collect();
    let mut is_after_word = false;
    for (index, word) in words.iter().enumerate() {
        is_after_word |= BEFORE.contains(word);
        if !is_after_word {
            continue;
        }
        let Some(number) = number(word).filter(|number| *number > 0) else {
            continue;
        };
        let before = index.checked_sub(1).and_then(|before| words.get(before));
        let counts_others = [before, words.get(index + 1)]
            .into_iter()
            .flatten()
            .any(|unit| OTHER_UNITS.contains(unit));
        if !counts_others {
            return Some(number);
        }
    }
    None
}

/// A decimal number, perhaps with separators or in thousands: `10,000`, `10_000`, `2k`.
fn number(word: &str) -> Option<u64> {
    let (digits, factor) = match word.strip_suffix('k') {
        Some(digits) => (digits, 1000),
        None => (word, 1),
    };
    if !digits.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    digits
        .replace([',', '_'], "")
        .parse::<u64>()
        .ok()?
        .checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(blocks: u64) -> ScanStep {
        ScanStep {
            blocks,
            failed: None,
        }
    }

    #[test]
    fn ranges_reach_the_last_block_without_gaps() {
        let step = step(10);
        assert_eq!(step.range(0, 25), Some((0, 9)));
        assert_eq!(step.range(10, 25), Some((10, 19)));
        assert_eq!(step.range(20, 25), Some((20, 25)));
        assert_eq!(step.range(25, 25), Some((25, 25)));
        assert_eq!(step.range(26, 25), None);
        assert_eq!(step.range(u64::MAX, u64::MAX), Some((u64::MAX, u64::MAX)));
    }

    #[test]
    fn step_halves_down_to_one_block_and_doubles_up_to_the_maximum() {
        let mut step = ScanStep::default();
        let mut halvings = 0;
        while let Some(smaller) = step.refused(step.range(0, u64::MAX).unwrap(), None) {
            assert!(smaller.blocks < step.blocks);
            step = smaller;
            halvings += 1;
        }
        assert_eq!((step.blocks, halvings), (1, 13));
        let mut step = ScanStep::default();
        for _ in 0..30 {
            step = step.grown();
        }
        assert_eq!(step.blocks, MAX);
    }

    #[test]
    fn step_never_grows_to_a_size_that_failed() {
        for limit in [1, 2, 3, 10, 500, 1_000, 9_999, 10_000, 123_456] {
            let (mut step, mut failures) = (ScanStep::default(), 0);
            for _ in 0..100 {
                let (from, to) = step.range(0, u64::MAX).unwrap();
                step = if to - from < limit {
                    step.grown()
                } else {
                    failures += 1;
                    step.refused((from, to), None).unwrap()
                };
            }
            assert!(failures <= 20, "{limit}: {failures} failures");
            let (from, to) = step.range(0, u64::MAX).unwrap();
            assert!(to - from < limit, "{limit}: it settles below the limit");
        }
    }

    #[test]
    fn short_range_at_the_end_that_fails_narrows_the_step_too() {
        let narrowed = step(10_000).refused((90, 99), None).unwrap();
        assert_eq!(narrowed.range(90, 99), Some((90, 94)));
        assert_eq!(narrowed.grown().grown().grown().blocks, 8);
        assert_eq!(step(10_000).refused((99, 99), None), None);
    }

    #[test]
    fn limit_that_the_message_names_is_taken_at_once() {
        let narrowed = step(10_000).refused((0, 9_999), Some(10)).unwrap();
        assert_eq!((narrowed.blocks, narrowed.grown().blocks), (10, 10));
        let again = narrowed.refused((0, 9), Some(10)).unwrap();
        assert_eq!(again.blocks, 5, "the hint was wrong: 10 blocks fail too");
        assert_eq!(again.grown().blocks, 7);
        for useless in [0, 10_000, u64::MAX] {
            let halved = step(10_000).refused((0, 9_999), Some(useless)).unwrap();
            assert_eq!(halved.blocks, 5_000, "{useless}");
        }
    }

    #[test]
    fn limit_is_read_from_the_words_of_every_provider() {
        let cases = [
            (
                "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range.",
                Some(10),
            ),
            (
                "Based on your parameters, this block range should work: [0x100, 0x1ff]. up to a 2K block range",
                Some(256),
            ),
            (
                "up to a 2K block range and no limit on the response size",
                Some(2000),
            ),
            ("exceed maximum block range: 50000", Some(50_000)),
            ("maximum block range: 50000", Some(50_000)),
            ("eth_getLogs is limited to a 1000 blocks range", Some(1000)),
            ("eth_getLogs is limited to a 10,000 range", Some(10_000)),
            ("eth_getLogs is limited to 0 - 50 blocks range", Some(50)),
            ("block range is too wide (maximum 1024)", Some(1024)),
            (
                "requested too many blocks from 0 to 10000, maximum is set to 2048",
                Some(2048),
            ),
            (
                "ranges over 10000 blocks are not supported on freetier",
                Some(10_000),
            ),
            ("Exceeded max range limit for eth_getLogs: 800", Some(800)),
            (
                "query returned more than 10000 results. Try with this block range [0x2, 0x5].",
                Some(4),
            ),
            ("query returned more than 10000 results", None),
            (
                "query exceeds max results 20000, retry with the range 5930000-5949999",
                Some(20_000),
            ),
            ("block range is too wide", None),
            ("Block range limit exceeded.", None),
            ("[5, 3]", None),
            ("[0xzz, 0x1]", None),
            ("[0x1, 0xzz]", None),
            ("[0x1]", None),
            ("[0x1, 0x2", None),
            ("retry with the range 5930000", None),
            ("retry with the range x-5949999", None),
            ("retry with the range 5930000-x", None),
            ("limit 99999999999999999999999", None),
            ("", None),
        ];
        for (message, limit) in cases {
            assert_eq!(hinted_limit(message), limit, "{message}");
        }
    }
}
