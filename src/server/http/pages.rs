//! The pages, embedded in the program: all of `web/` except the sources needed only to build it.

use std::borrow::Cow;

use rust_embed::Embed;

use crate::protocol::http::FileType;

/// The content security policy of the embedded pages: their own scripts (one includes an encoder in
/// WebAssembly) and workers, streams from anywhere, no inline code.
pub(in crate::server) const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src * ws: wss:; \
     media-src * blob:; worker-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'";

#[derive(Embed)]
#[folder = "web"]
#[exclude = "demo/*"]
#[exclude = "*.md"]
#[exclude = "*.sh"]
struct Web;

/// The folder that only the admin listener serves: the operator's part of the status page.
const OPERATOR: &str = "operator/";

/// The file at `path`: its type and its bytes.
pub(in crate::server) fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    match path.strip_prefix('/')? {
        "" => get("index.html"),
        name if name.starts_with(OPERATOR) => None,
        name => get(name),
    }
}

/// The file at `path` of the admin listener: the status page, including the operator's part.
pub fn find_operator(path: &str) -> Option<(&'static str, &'static [u8])> {
    match path.strip_prefix('/')? {
        "" => get("status.html"),
        name @ ("status.html" | "status.js" | "style.css") => get(name),
        name if name.starts_with("lib/") || name.starts_with(OPERATOR) => get(name),
        _ => None,
    }
}

fn get(name: &str) -> Option<(&'static str, &'static [u8])> {
    let Cow::Borrowed(bytes) = Web::get(name)?.data else { unreachable!("embedded in every profile") };
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    Some((FileType::of(extension).media_type, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_found_by_their_paths_and_nothing_else_is() {
        for (path, kind) in [
            ("/", "text/html; charset=utf-8"),
            ("/index.html", "text/html; charset=utf-8"),
            ("/index.js", "text/javascript; charset=utf-8"),
            ("/style.css", "text/css; charset=utf-8"),
            ("/vendor/mpegts.js", "text/javascript; charset=utf-8"),
        ] {
            let (media_type, bytes) = find(path).expect(path);
            assert_eq!(media_type, kind, "{path}");
            assert!(!bytes.is_empty(), "{path}");
        }
        for path in ["", "index.html", "//index.html", "/../Cargo.toml", "/vendor", "/vendor/", "/no.html"] {
            assert_eq!(find(path), None, "{path}");
        }
        for path in ["/demo/clip.flv", "/demo/make.sh", "/vendor/refresh.sh", "/vendor/README.md"] {
            assert_eq!(find(path), None, "{path} is not a page");
        }
    }

    #[test]
    fn only_operators_have_the_controls_of_the_status_page() {
        for path in ["/", "/status.html", "/status.js", "/style.css", "/lib/dom.js", "/operator/viewers.js"] {
            assert!(find_operator(path).is_some(), "{path}");
        }
        for path in
            ["/index.html", "/push.html", "/vendor/hls.js", "/demo/clip.flv", "/operator/", "/lib/../x"]
        {
            assert_eq!(find_operator(path), None, "{path}");
        }
        assert_eq!(find("/operator/viewers.js"), None);
    }
}
