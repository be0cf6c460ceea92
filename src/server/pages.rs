//! The pages, embedded in the program.

/// What a page of ours may do: its own scripts, streams from anywhere, no inline code.
pub(super) const POLICY: &str = "default-src 'self'; connect-src * ws: wss:; media-src 'self' blob:; \
     worker-src 'self' blob:; img-src 'self' data:; object-src 'none'; base-uri 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The file at `path`: its type and its bytes.
pub(super) fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    Some(match path {
        "/" | "/index.html" => (HTML, include_bytes!("../../web/index.html")),
        "/index.js" => (SCRIPT, include_bytes!("../../web/index.js")),
        "/style.css" => (STYLE, include_bytes!("../../web/style.css")),
        "/vendor/mpegts.js" => (SCRIPT, include_bytes!("../../web/vendor/mpegts.js")),
        _ => return None,
    })
}
