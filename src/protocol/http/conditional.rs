//! Conditional requests (RFC 9110, 13): the response for a client that already knows a version of a file.

use super::Headers;
use super::date::parse_date;

/// What distinguishes one version of a file from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validators<'a> {
    /// A strong entity tag, with its quotes.
    pub etag: &'a str,
    /// When it was last changed, in seconds since 1970.
    pub modified: Option<u64>,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Normally.
    Proceed,
    /// 304: the client has it.
    NotModified,
    /// 412: the client required another version.
    Failed,
}

/// Evaluates the preconditions in the order of RFC 9110, 13.2.2; for GET and HEAD.
pub fn evaluate(headers: &Headers, validators: Validators<'_>) -> Verdict {
    let mut known = headers.values("if-match").peekable();
    if known.peek().is_some() {
        if !known.any(|list| names(list, validators.etag, Comparison::Strong)) {
            return Verdict::Failed;
        }
    } else if date(headers, "if-unmodified-since")
        .zip(validators.modified)
        .is_some_and(|(since, modified)| modified > since)
    {
        return Verdict::Failed;
    }
    let mut known = headers.values("if-none-match").peekable();
    let unchanged = if known.peek().is_some() {
        known.any(|list| names(list, validators.etag, Comparison::Weak))
    } else {
        let since = date(headers, "if-modified-since");
        since.zip(validators.modified).is_some_and(|(since, modified)| modified <= since)
    };
    if unchanged { Verdict::NotModified } else { Verdict::Proceed }
}

/// Whether a `Range` applies: `If-Range` names this version, or is absent (RFC 9110, 13.1.5).
pub fn range_holds(headers: &Headers, validators: Validators<'_>) -> bool {
    let Some(value) = headers.values("if-range").next() else { return true };
    let Ok(value) = std::str::from_utf8(value) else { return false };
    let value = value.trim();
    if value.ends_with('"') {
        return value == validators.etag; // a weak tag never matches
    }
    parse_date(value).is_some_and(|since| validators.modified == Some(since))
}

fn date(headers: &Headers, name: &str) -> Option<u64> {
    headers.get(name).and_then(|text| parse_date(text.trim()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, or `*`, names `etag`. Reading stops at the first syntax error.
fn names(list: &[u8], etag: &str, comparison: Comparison) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let weak = rest.starts_with(b"W/");
        let tag = if weak { &rest[2..] } else { rest };
        if tag.first() != Some(&b'"') {
            return false;
        }
        let Some(len) = tag[1..].iter().position(|byte| *byte == b'"').map(|at| at + 2) else {
            return false;
        };
        if &tag[..len] == etag.as_bytes() && !(weak && comparison == Comparison::Strong) {
            return true;
        }
        rest = tag[len..].trim_ascii_start();
        while let Some(next) = rest.strip_prefix(b",") {
            rest = next.trim_ascii_start();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::http::request::{RequestLimits, RequestReader};

    const CHANGED: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
    const THIS: Validators<'static> = Validators { etag: "\"5-a\"", modified: Some(CHANGED) };

    fn headers(fields: &str) -> Headers {
        let mut reader = RequestReader::new(RequestLimits::new(4096));
        let text = format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
        reader.push(text.as_bytes()).unwrap().unwrap().headers
    }

    fn verdict(fields: &str) -> Verdict {
        evaluate(&headers(fields), THIS)
    }

    #[test]
    fn entity_tags() {
        assert_eq!(verdict(""), Verdict::Proceed);
        assert_eq!(verdict("If-None-Match: \"5-a\"\r\n"), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: W/\"5-a\"\r\n"), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: \"x\", \"5-a\"\r\n"), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: \"a,b\",, W/\"5-a\"\r\n"), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: *\r\n"), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: \"x\"\r\nIf-None-Match: \"5-a\"\r\n"), Verdict::NotModified);
        assert_eq!(verdict("If-None-Match: \"5\"\r\n"), Verdict::Proceed);
        assert_eq!(verdict("If-None-Match: 5-a\r\n"), Verdict::Proceed);
        assert_eq!(verdict("If-None-Match: \"5-a\r\n"), Verdict::Proceed);
        assert_eq!(verdict("If-Match: \"5-a\"\r\n"), Verdict::Proceed);
        assert_eq!(verdict("If-Match: *\r\n"), Verdict::Proceed);
        assert_eq!(verdict("If-Match: W/\"5-a\"\r\n"), Verdict::Failed);
        assert_eq!(verdict("If-Match: \"x\"\r\n"), Verdict::Failed);
    }

    #[test]
    fn dates() {
        let (same, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        assert_eq!(verdict(&format!("If-Modified-Since: {same}\r\n")), Verdict::NotModified);
        assert_eq!(verdict(&format!("If-Modified-Since: {before}\r\n")), Verdict::Proceed);
        assert_eq!(verdict("If-Modified-Since: yesterday\r\n"), Verdict::Proceed);
        assert_eq!(verdict(&format!("If-Unmodified-Since: {same}\r\n")), Verdict::Proceed);
        assert_eq!(verdict(&format!("If-Unmodified-Since: {before}\r\n")), Verdict::Failed);
        // The tag is more precise: if there is one, the date is ignored.
        let both = format!("If-None-Match: \"x\"\r\nIf-Modified-Since: {same}\r\n");
        assert_eq!(verdict(&both), Verdict::Proceed);
        let both = format!("If-Match: \"5-a\"\r\nIf-Unmodified-Since: {before}\r\n");
        assert_eq!(verdict(&both), Verdict::Proceed);
    }

    #[test]
    fn ranges_of_another_version() {
        let holds = |value: &str| range_holds(&headers(&format!("If-Range: {value}\r\n")), THIS);
        assert!(range_holds(&headers(""), THIS));
        assert!(holds("\"5-a\"") && holds("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert!(!holds("W/\"5-a\"") && !holds("\"x\"") && !holds("nonsense"));
        assert!(!holds("Sun, 06 Nov 1994 08:49:38 GMT"));
    }

    proptest! {
        #[test]
        fn lists_never_panic(list in proptest::collection::vec(any::<u8>(), 0..40)) {
            names(&list, THIS.etag, Comparison::Weak);
        }

        #[test]
        fn a_listed_tag_is_found(others in "(W?/?\"[a-z,]{0,5}\", ?){0,3}") {
            let list = format!("{}{}", others.replace("W\"", "W/\"").replace("/\"", "W/\"").replace("WW/", "W/"), THIS.etag);
            prop_assert!(names(list.as_bytes(), THIS.etag, Comparison::Strong), "{}", list);
        }
    }
}
