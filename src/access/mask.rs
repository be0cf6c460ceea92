//! Request targets in the form in which logs may show them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A target or a URL without tokens: the part of the path that begins with `~`, and the parameters `token`, in any
/// encoding.
pub fn without_tokens(target: &str) -> Cow<'_, str> {
    if !target.contains(['~', '%', '?']) {
        return Cow::Borrowed(target);
    }
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut shown = parts(path, '/', |part| decoded(part).starts_with('~').then(|| "~***".to_owned()));
    if let Some(query) = query {
        shown.push('?');
        shown.push_str(&parts(query, '&', |pair| {
            let (name, _) = pair.split_once('=')?;
            (decoded(name) == "token").then(|| format!("{name}=***"))
        }));
    }
    Cow::Owned(shown)
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy()
}

fn parts(text: &str, between: char, masked: impl Fn(&str) -> Option<String>) -> String {
    let shown = text.split(between).map(|part| masked(part).map_or(Cow::Borrowed(part), Cow::Owned));
    shown.collect::<Vec<_>>().join(&between.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_not_shown() {
        for (target, shown) in [
            ("/live/a.flv", "/live/a.flv"),
            ("/live/a.flv?token=SECRET&x=1", "/live/a.flv?token=***&x=1"),
            ("/live/a.flv?t%6Fken=SECRET", "/live/a.flv?t%6Fken=***"),
            ("/~SECRET/hls/a/b/index.m3u8?x", "/~***/hls/a/b/index.m3u8?x"),
            ("/%7eSECRET/hls/a", "/~***/hls/a"),
            ("http://h/~SECRET/play.html?token=SECRET", "http://h/~***/play.html?token=***"),
            ("/a?tokens=1&token", "/a?tokens=1&token"),
            ("?", "?"),
        ] {
            assert_eq!(without_tokens(target), shown, "{target}");
        }
    }
}
