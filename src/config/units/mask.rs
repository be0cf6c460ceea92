//! URLs in the form in which logs and messages may show them.

use std::fmt::Write;

/// Replaces a part that is not shown.
const MASK: &str = "***";

/// A URL without parts that may be secret: user name and password, the last part of the path (in
/// `rtmp://host/app/KEY` it is the stream key) and the values of the query. A placeholder such as `{name}`
/// stays.
pub fn masked(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut text = String::with_capacity(url.len());
    if !scheme.is_empty() {
        let _ = write!(text, "{scheme}://");
    }
    match authority.rsplit_once('@') {
        Some((_, host)) => {
            let _ = write!(text, "{MASK}@{host}");
        }
        None => text.push_str(authority),
    }
    text.push_str(&masked_path(path));
    if let Some(query) = query {
        text.push('?');
        text.push_str(&masked_query(query));
    }
    text
}

/// `/app/***`; a path of one part names no stream and stays. A part that begins with "~" is a token.
fn masked_path(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    let shown = match trimmed.rsplit_once('/') {
        Some((front, last)) if !front.is_empty() && !is_placeholder(last) => format!("{front}/{MASK}"),
        _ => path.to_owned(),
    };
    if !shown.contains("/~") {
        return shown;
    }
    let part = |part| if str::starts_with(part, '~') { "~***" } else { part };
    shown.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn is_placeholder(part: &str) -> bool {
    matches!(part, "{name}" | "{name}.flv" | "{app}")
}

fn masked_query(query: &str) -> String {
    let masked = |pair: &str| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={MASK}"),
        None => MASK.to_owned(),
    };
    query.split('&').map(masked).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_secrets_are_not_shown() {
        for (url, shown) in [
            ("rtmp://host/app/KEY", "rtmp://host/app/***"),
            ("rtmp://host:1935/a/b/KEY?token=SECRET&x=SECRET", "rtmp://host:1935/a/b/***?token=***&x=***"),
            ("http://host/live/KEY.flv?SECRET", "http://host/live/***?***"),
            ("rtmp://USER:PASS@host/app/KEY/", "rtmp://***@host/app/***"),
            ("rtmp://host/{app}/{name}?token=SECRET", "rtmp://host/{app}/{name}?token=***"),
            ("http://host/live", "http://host/live"),
            ("http://host", "http://host"),
            ("http://host/~TOKEN/hls/live/KEY", "http://host/~***/hls/live/***"),
            ("http://US@ER@host", "http://***@host"),
            ("", ""),
        ] {
            assert_eq!(masked(url), shown, "{url}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_key_and_a_token_never_survive(app in "[a-z]{1,5}", extra in "[a-z/?&=@:]{0,9}") {
            let shown = masked(&format!("rtmp://host/{app}/KEY?token=SECRET{extra}"));
            proptest::prop_assert!(!shown.contains("KEY") && !shown.contains("SECRET"), "{shown}");
        }
    }
}
