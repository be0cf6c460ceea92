//! Requests: the head, its target and the properties of the connection.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use percent_encoding::percent_decode_str;

use super::BodyLength;
use super::head::{FIELDS_MAX, HeadBuffer, HeadFault, Headers};
use super::response::{error_page, error_page_with};

/// Why a request is refused; [`HttpError::status`] is the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    /// The head cannot be read.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// A version other than HTTP/1.0 and HTTP/1.1.
    #[error("a version other than HTTP/1.0 and HTTP/1.1 was asked for")]
    Version,
    /// A target that cannot be served.
    #[error("the request target {0}")]
    Target(&'static str),
    /// A `Host` that is not a host name (RFC 9110, 7.2).
    #[error("the Host field is neither a name nor an address")]
    HostName,
    /// Not exactly one `Host` in HTTP/1.1 (RFC 9112, 3.2).
    #[error("{count} Host fields were sent, one is needed")]
    Host {
        /// How many there were.
        count: usize,
    },
    /// A known method that the resource does not support.
    #[error("{method:?} is not allowed here: {allowed} is")]
    MethodNotAllowed {
        /// The method.
        method: Method,
        /// The value of `Allow`.
        allowed: &'static str,
    },
    /// An unknown method.
    #[error("the method is not known")]
    NotImplemented,
    /// A WebSocket version other than 13 (RFC 6455, 4.4).
    #[error("a WebSocket version other than 13 was asked for")]
    WebSocketVersion,
    /// An incomplete WebSocket upgrade (RFC 6455, 4.2.1).
    #[error("the WebSocket upgrade {0}")]
    WebSocket(&'static str),
}

impl HttpError {
    /// The status of the response; the connection is closed after it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Head(HeadFault::TooLarge { .. } | HeadFault::TooManyFields) => 431,
            Self::Head(HeadFault::LineTooLong { .. }) => 414,
            Self::Head(HeadFault::UnknownCoding) | Self::NotImplemented => 501,
            Self::Version => 505,
            Self::MethodNotAllowed { .. } => 405,
            Self::WebSocketVersion => 426,
            Self::Head(_) | Self::Target(_) | Self::Host { .. } | Self::HostName | Self::WebSocket(_) => 400,
        }
    }

    /// The whole response, which says what was wrong; the connection must be closed after it.
    pub fn page(&self) -> Vec<u8> {
        let allow = match self {
            Self::MethodNotAllowed { allowed, .. } => [("Allow", *allowed)],
            _ => return error_page(self.status(), &self.to_string(), false, false),
        };
        error_page_with(self.status(), &self.to_string(), &allow, false, false)
    }
}

/// A request's method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD: like GET, without a body.
    Head,
    /// OPTIONS: a browser's preflight.
    Options,
    /// POST: an HTTP-FLV push, or a call of the API.
    Post,
    /// PUT: an HTTP-FLV push.
    Put,
    /// DELETE: a call of the API.
    Delete,
    /// Any other.
    Other,
}

impl Method {
    /// The name in a request; `-` for unknown methods.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Options => "OPTIONS",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Other => "-",
        }
    }

    fn from_name(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "OPTIONS" => Self::Options,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            _ => Self::Other,
        }
    }
}

/// Limits of a request, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// The whole head.
    pub head: usize,
    /// The request line.
    pub line: usize,
}

impl RequestLimits {
    /// Half of the head may be its first line.
    pub fn new(head: usize) -> Self {
        Self { head, line: head / 2 }
    }
}

/// Reads requests, however their bytes are split.
#[derive(Debug)]
pub struct RequestReader {
    buffer: HeadBuffer,
}

impl RequestReader {
    /// A reader at the start of a connection.
    pub fn new(limits: RequestLimits) -> Self {
        Self { buffer: HeadBuffer::new(limits.head, limits.line) }
    }

    /// Takes all of `bytes` and returns the next request whose head is complete.
    ///
    /// Bytes after the head stay in the reader: [`RequestReader::take_rest`] gives the start of a body; if
    /// there is no body, another `push(&[])` gives the next pipelined request.
    ///
    /// # Errors
    /// [`HttpError`]; the reader must not be used any further.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Request>, HttpError> {
        self.buffer.extend(bytes);
        let Some(head) = self.buffer.take_head()? else { return Ok(None) };
        Request::parse(&head).map(Some)
    }

    /// Stores bytes for later: the request before them is still being answered.
    pub fn hold(&mut self, bytes: &[u8]) {
        self.buffer.extend(bytes);
    }

    /// Bytes that were not read yet, or that wait for the rest of their request.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Whether no bytes are waiting.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes the bytes after the last head out of the reader.
    pub fn take_rest(&mut self) -> Bytes {
        self.buffer.take_rest()
    }
}

/// One request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path without a token in front of it, percent-decoded once: begins with `/`, contains no control character, no backslash and no `..`
    /// between slashes. It is not a file name yet.
    pub path: String,
    /// What stood in front of the path, as `/~TOKEN/path`.
    path_token: Option<String>,
    /// The target as sent, including the query and a token in front of the path.
    pub target: String,
    /// HTTP/1.1; otherwise HTTP/1.0.
    pub version11: bool,
    /// The fields.
    pub headers: Headers,
    query: Vec<(String, String)>,
    body: BodyLength,
}

impl Request {
    fn parse(head: &Bytes) -> Result<Self, HttpError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(HeadFault::Syntax("incomplete line").into()),
            Err(httparse::Error::Version) => return Err(HttpError::Version),
            Err(error) => return Err(HeadFault::from(error).into()),
        }
        let headers = Headers::new(head, parsed.headers);
        let version11 = parsed.version == Some(1);
        let method = Method::from_name(parsed.method.unwrap_or_default());
        let target = parsed.path.unwrap_or_default();
        if method == Method::Other && !target.starts_with('/') {
            return Err(HttpError::NotImplemented); // CONNECT has another form of target
        }
        let (path, query) = split_target(method, target)?;
        let hosts = headers.values("host").count();
        if hosts > 1 || (version11 && hosts == 0) {
            return Err(HttpError::Host { count: hosts });
        }
        if headers.values("host").any(|host| !is_host(host)) {
            return Err(HttpError::HostName);
        }
        // A length of zero means that there is no body.
        let body = match headers.body_length(version11)? {
            BodyLength::Length(0) => BodyLength::None,
            other => other,
        };
        let (path_token, path) = split_token(decode_path(path)?);
        Ok(Self {
            method,
            path,
            path_token,
            target: target.to_owned(),
            version11,
            query: decode_query(query),
            body,
            headers,
        })
    }

    /// The first value of a header; the name is compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The first value of a query parameter; a parameter without `=` has an empty one.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The key or the token that the client shows: in front of the path, as a bearer (RFC 6750, 2.1), or as the
    /// parameter `token`.
    pub fn token(&self) -> Option<&str> {
        let bearer = || {
            let (scheme, token) = self.header("authorization")?.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        };
        self.path_token.as_deref().or_else(bearer).or_else(|| self.query("token"))
    }

    /// All query parameters in order, decoded.
    pub fn query_pairs(&self) -> &[(String, String)] {
        &self.query
    }

    /// How the body is delimited.
    pub fn body_length(&self) -> BodyLength {
        self.body
    }

    /// Whether a body follows the head.
    pub fn has_body(&self) -> bool {
        self.body != BodyLength::None
    }

    /// Whether the connection stays open after the response (RFC 9112, 9.3).
    pub fn keep_alive(&self) -> bool {
        let close = self.headers.has_token("connection", "close");
        !close && (self.version11 || self.headers.has_token("connection", "keep-alive"))
    }

    /// Whether the peer waits for [`super::response::CONTINUE`] before its body (RFC 9110, 10.1.1).
    pub fn expects_continue(&self) -> bool {
        self.version11 && self.headers.has_token("expect", "100-continue")
    }

    /// Refuses methods that a resource does not support. `allowed` is the value of `Allow`: `GET, HEAD`.
    ///
    /// # Errors
    /// [`HttpError::NotImplemented`] for unknown methods, otherwise [`HttpError::MethodNotAllowed`].
    pub fn allow(&self, methods: &[Method], allowed: &'static str) -> Result<(), HttpError> {
        match self.method {
            method if methods.contains(&method) => Ok(()),
            Method::Other => Err(HttpError::NotImplemented),
            method => Err(HttpError::MethodNotAllowed { method, allowed }),
        }
    }

    /// The key of a WebSocket upgrade, checked (RFC 6455, 4.2.1); `None`: no upgrade is requested.
    ///
    /// # Errors
    /// [`HttpError::WebSocketVersion`] and [`HttpError::WebSocket`].
    pub fn websocket_key(&self) -> Result<Option<String>, HttpError> {
        if !self.headers.has_token("upgrade", "websocket") {
            return Ok(None);
        }
        if self.method != Method::Get || !self.version11 {
            return Err(HttpError::WebSocket("is not a GET in HTTP/1.1"));
        }
        if !self.headers.has_token("connection", "upgrade") {
            return Err(HttpError::WebSocket("lacks \"Connection: Upgrade\": a proxy in between drops it"));
        }
        if self.header("sec-websocket-version") != Some("13") {
            return Err(HttpError::WebSocketVersion);
        }
        let mut keys = self.headers.values("sec-websocket-key");
        let (Some(key), None) = (keys.next(), keys.next()) else {
            return Err(HttpError::WebSocket("has no Sec-WebSocket-Key, or several"));
        };
        if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
            return Err(HttpError::WebSocket("has a key that is not 16 bytes in base64"));
        }
        Ok(Some(String::from_utf8_lossy(key).into_owned()))
    }
}

/// Whether a value of `Host` has the form of `uri-host [ ":" port ]` (RFC 9110, 7.2; RFC 3986, 3.2.2). An empty
/// one is sent for a target without an authority.
fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", rest)
        }
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte);
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    name.bytes().all(plain) && (port.is_empty() || port.strip_prefix(':').is_some_and(digits))
}

/// Path and query of a target: origin form, absolute form, and `*` for OPTIONS (RFC 9112, 3.2).
fn split_target(method: Method, target: &str) -> Result<(&str, &str), HttpError> {
    if target.contains('#') {
        return Err(HttpError::Target("contains a fragment"));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.starts_with('/') {
        return Ok((path, query));
    }
    if path == "*" && method == Method::Options {
        return Ok(("/", query));
    }
    let scheme = path.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if !scheme || path.len() == 7 {
        return Err(HttpError::Target("is neither a path nor an http:// URL"));
    }
    let authority = path.get(7..).unwrap_or_default();
    Ok((authority.find('/').and_then(|at| authority.get(at..)).unwrap_or("/"), query))
}

/// Decodes a path once and refuses paths that could leave a folder or end a name early.
fn decode_path(raw: &str) -> Result<String, HttpError> {
    if !escapes_are_whole(raw) {
        return Err(HttpError::Target("contains a % without two hexadecimal digits"));
    }
    let decoded = percent_decode_str(raw).decode_utf8();
    let path = decoded.map_err(|_| HttpError::Target("is not UTF-8"))?.into_owned();
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(HttpError::Target("contains a control character or a backslash"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(HttpError::Target("contains \"..\""));
    }
    Ok(path)
}

/// Takes a token off the front of a path: `/~TOKEN/path`.
fn split_token(path: String) -> (Option<String>, String) {
    let parts = path.strip_prefix("/~").and_then(|rest| rest.split_once('/'));
    let parts = parts.map(|(token, rest)| (token.to_owned(), format!("/{rest}")));
    parts.map_or((None, path), |(token, rest)| (Some(token), rest))
}

fn escapes_are_whole(raw: &str) -> bool {
    let hex = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    raw.split('%').skip(1).all(|rest| {
        let mut bytes = rest.bytes();
        hex(bytes.next()) && hex(bytes.next())
    })
}

/// Parameters as sent by forms: `+` is a space; text that is not UTF-8 is replaced, not refused.
fn decode_query(raw: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = raw.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
