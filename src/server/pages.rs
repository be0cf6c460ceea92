//! The pages, embedded in the program: all of `web/` but what only its makers need.

use std::borrow::Cow;

use rust_embed::Embed;

use crate::protocol::http::FileType;

/// What a page of ours may do: its own scripts (an encoder in WebAssembly among them) and workers, streams from
/// anywhere, no inline code.
pub(super) const POLICY: &str = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src * ws: wss:; \
     media-src * blob:; worker-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'; \
     form-action 'self'";

#[derive(Embed)]
#[folder = "web"]
#[exclude = "demo/*"]
#[exclude = "*.md"]
#[exclude = "*.sh"]
struct Web;

/// The file at `path`: its type and its bytes.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name,
    };
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
            assert_eq!(find(path), None, "{path} is no page");
        }
    }
}
