//! Which stream a publisher or viewer means, from the three places where encoders put its name.

/// A stream as named by a peer. Nothing is validated or percent-decoded: that is up to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The application; may have slashes in it.
    pub app: String,
    /// The stream's name: no slash in it, empty if the peer gave none.
    pub name: String,
    /// The query string without its `?`.
    pub query: Option<String>,
}

impl Target {
    /// Determines the stream from the app and `tcUrl` of `connect` and the name of `publish` or `play`.
    ///
    /// App and name form one path, and its last segment is the name. So `live/key` entered in the server field
    /// with an empty name is the stream `key` of `live`, and of a name with slashes all but the last segment
    /// belongs to the app. Empty segments are dropped. An empty app is taken from `tcUrl`. The query is taken
    /// from the name and the app, joined by `&`, or from the `tcUrl` if neither has one.
    pub fn resolve(app: &str, tc_url: &str, name: &str) -> Self {
        let (url_path, url_query) = split_query(path_of(tc_url));
        let (app, app_query) = split_query(app);
        let (name, name_query) = split_query(name);
        let app = if app.trim_matches('/').is_empty() { url_path } else { app };
        let mut segments: Vec<&str> =
            app.split('/').chain(name.split('/')).filter(|segment| !segment.is_empty()).collect();
        // A single segment from the app is an app without a name.
        let nameless = segments.len() == 1 && name.trim_matches('/').is_empty();
        let last = if nameless { None } else { segments.pop() };
        let sent: Vec<&str> = [name_query, app_query].into_iter().flatten().collect();
        let query = if sent.is_empty() { url_query.map(str::to_owned) } else { Some(sent.join("&")) };
        Self { app: segments.join("/"), name: last.unwrap_or_default().to_owned(), query }
    }
}

impl Target {
    /// The first parameter of that name in the query, percent-decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.as_deref()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = pairs.into_iter().find(|(key, _)| *key == name)?;
        Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned())
    }
}

/// The text before the first `?`, and what follows if it is not empty.
fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((front, query)) => (front, Some(query).filter(|query| !query.is_empty())),
        None => (text, None),
    }
}

/// What follows the host in `rtmp://host:port/path`; empty if there is nothing.
fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_query() {
        let target = Target::resolve("live", "", "x?a=1&token=b%2Fc&token=d&e");
        let of = |name| target.parameter(name);
        assert_eq!((of("token").as_deref(), of("e").as_deref(), of("x")), (Some("b/c"), Some(""), None));
        assert_eq!(Target::resolve("live", "", "x").parameter("a"), None);
    }

    #[test]
    fn what_encoders_send() {
        // app, tcUrl, name -> app, name, query
        let cases: &[([&str; 3], &str, &str, Option<&str>)] = &[
            (["live", "rtmp://h/live", "x"], "live", "x", None),
            (["live/", "rtmp://h/live/", "x"], "live", "x", None),
            (["live", "rtmp://h/live", "x?token=a/b?c"], "live", "x", Some("token=a/b?c")),
            (["live?token=a", "rtmp://h/live?token=a", "x"], "live", "x", Some("token=a")),
            (["live?a=1", "rtmp://h/live?a=1", "x?b=2"], "live", "x", Some("b=2&a=1")),
            (["live", "rtmp://h/live?token=a", "x"], "live", "x", Some("token=a")),
            (["live", "rtmp://h/live", "x?"], "live", "x", None),
            (["live/key", "rtmp://h/live/key", ""], "live", "key", None),
            (["live/key?t=1", "rtmp://h/live/key?t=1", ""], "live", "key", Some("t=1")),
            (["live/key/", "rtmp://h/live/key/", ""], "live", "key", None),
            (["a/b", "rtmp://h/a/b", "c"], "a/b", "c", None),
            (["a", "rtmp://h/a", "b/c"], "a/b", "c", None),
            (["/a//b/", "rtmp://h/a//b/", "/c/"], "a/b", "c", None),
            (["live", "rtmp://h/live", ""], "live", "", None),
            (["live", "rtmp://h/live", "/"], "live", "", None),
            (["", "rtmp://h:1935/live", "x"], "live", "x", None),
            (["", "rtmp://h", "x"], "", "x", None),
            (["", "", ""], "", "", None),
            (["..", "rtmp://h/..", "../x"], "../..", "x", None),
            (["live", "not a url", "x"], "live", "x", None),
        ];
        for ([app, tc_url, name], want_app, want_name, want_query) in cases {
            let want = Target {
                app: (*want_app).to_owned(),
                name: (*want_name).to_owned(),
                query: want_query.map(str::to_owned),
            };
            assert_eq!(Target::resolve(app, tc_url, name), want, "{app:?} {tc_url:?} {name:?}");
        }
    }
}
