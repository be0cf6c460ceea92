//! Responses: a head builder, CORS, and error pages that say what to do.
//!
//! Pure: the date is an argument. Control characters are removed from values, so that nothing that a peer sent
//! can begin a new line.

use std::fmt::{Display, Write as _};

/// Answers `Expect: 100-continue` (RFC 9110, 15.2.1).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The value of the `Server` field.
pub const SERVER: &str = "uringcast";

/// The lines that let every web page read a response, and also its length and range.
pub const CORS: &str = "Access-Control-Allow-Origin: *\r\n\
    Access-Control-Expose-Headers: Content-Length, Content-Range, ETag, Date\r\n";

/// The reason phrase of a status; empty for one that is not used here.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

/// Builds the head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    text: String,
}

impl Head {
    /// Starts with the status line and `Server`.
    pub fn new(status: u16) -> Self {
        let mut text = String::with_capacity(320);
        let _ = write!(text, "HTTP/1.1 {status} {}\r\nServer: {SERVER}\r\n", reason(status));
        Self { text }
    }

    /// Appends a field. Control characters in the value become spaces; `name` is ours.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Display) -> Self {
        debug_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{name}");
        let _ = write!(self.text, "{name}: ");
        let start = self.text.len();
        let _ = write!(self.text, "{value}");
        if self.text.get(start..).is_some_and(|value| value.contains(|c: char| c.is_control())) {
            let clean = self.text.split_off(start).replace(|c: char| c.is_control(), " ");
            self.text.push_str(&clean);
        }
        self.text.push_str("\r\n");
        self
    }

    /// Appends `Date` with a text in the form of RFC 9110, 5.6.7.
    #[must_use]
    pub fn date(self, date: &str) -> Self {
        self.header("Date", date)
    }

    /// Appends `Connection: keep-alive` or `close`.
    #[must_use]
    pub fn connection(self, keep_alive: bool) -> Self {
        self.header("Connection", if keep_alive { "keep-alive" } else { "close" })
    }

    /// Appends [`CORS`].
    #[must_use]
    pub fn cors(mut self) -> Self {
        self.text.push_str(CORS);
        self
    }

    /// The encoded head, including the empty line at its end.
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = self.text.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// The whole response to a browser's preflight. `methods` is a list: `GET, HEAD, POST, OPTIONS`.
///
/// `requested_headers` is the preflight's `Access-Control-Request-Headers`; it is granted unchanged if it is a
/// plain list of names. Otherwise the fields that our own pages need are granted.
pub fn preflight(methods: &str, requested_headers: Option<&str>, keep_alive: bool) -> Vec<u8> {
    let plain = |list: &&str| {
        list.len() <= 512
            && list
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b',' | b' ' | b'_'))
    };
    Head::new(204)
        .cors()
        .header("Access-Control-Allow-Methods", methods)
        .header(
            "Access-Control-Allow-Headers",
            requested_headers.filter(plain).unwrap_or("Range, Content-Type"),
        )
        .header("Access-Control-Max-Age", 86_400)
        .header("Allow", methods)
        .connection(keep_alive)
        .encode()
}

/// A whole response in plain text; `message` says what was wrong and what to do.
///
/// Readable by pages of any origin and never cached. `head_only` leaves the body out, for HEAD.
pub fn error_page(status: u16, message: &str, head_only: bool, keep_alive: bool) -> Vec<u8> {
    error_page_with(status, message, &[], head_only, keep_alive)
}

/// As [`error_page`], with further fields: `Allow` for 405, `Location` for a redirect.
pub fn error_page_with(
    status: u16,
    message: &str,
    fields: &[(&str, &str)],
    head_only: bool,
    keep_alive: bool,
) -> Vec<u8> {
    let body = format!("{status} {}\n{message}\n", reason(status));
    let mut head = Head::new(status)
        .header("Content-Type", "text/plain; charset=utf-8")
        .header("Content-Length", body.len())
        .header("Cache-Control", "no-store")
        .header("X-Content-Type-Options", "nosniff")
        .cors()
        .connection(keep_alive);
    match status {
        426 => head = head.header("Upgrade", "websocket").header("Sec-WebSocket-Version", "13"),
        503 => head = head.header("Retry-After", 1),
        _ => {}
    }
    for (name, value) in fields {
        head = head.header(name, value);
    }
    let mut bytes = head.encode();
    if !head_only {
        bytes.extend_from_slice(body.as_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_head_is_written_line_by_line() {
        let head = Head::new(200)
            .date("Sun, 06 Nov 1994 08:49:37 GMT")
            .header("Content-Length", 5)
            .connection(true)
            .encode();
        assert_eq!(
            text(head),
            "HTTP/1.1 200 OK\r\nServer: uringcast\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Length: 5\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn values_cannot_begin_a_line() {
        let head = text(Head::new(302).header("Location", "/a\r\nSet-Cookie: b\0").encode());
        assert!(head.contains("Location: /a  Set-Cookie: b \r\n\r\n"), "{head}");
    }

    #[test]
    fn error_pages_are_whole() {
        let page = text(error_page(404, "no such stream: publish it first", false, true));
        let (head, body) = page.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, "404 Not Found\nno such stream: publish it first\n");
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        assert!(head.contains("Access-Control-Allow-Origin: *"));
        assert!(text(error_page(404, "x", true, false)).ends_with("Connection: close\r\n\r\n"));
        assert!(text(error_page(426, "x", true, false)).contains("Sec-WebSocket-Version: 13\r\n"));
    }

    #[test]
    fn preflights_grant_plain_names_only() {
        let granted = text(preflight("GET", Some("range, x-token"), true));
        assert!(granted.contains("Access-Control-Allow-Headers: range, x-token\r\n"), "{granted}");
        let odd = text(preflight("GET", Some("a\r\nb"), true));
        assert!(odd.contains("Access-Control-Allow-Headers: Range, Content-Type\r\n"), "{odd}");
    }
}
