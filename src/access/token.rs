//! Signed tokens: JSON Web Tokens (RFC 7519) in the compact form of RFC 7515, with HMAC-SHA256 (`HS256`) alone.
//!
//! `HEADER.CLAIMS.SIGNATURE`, each in base64url without padding. The header is `{"alg":"HS256","kid":…}`; `kid` names
//! the secret. Any library for such tokens can sign one. Other algorithms, encryption and `crit` are refused.

use std::net::IpAddr;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::config::Action;

/// The longest token, in bytes.
const TOKEN_MAX: usize = 2048;
const ALGORITHM: &str = "HS256";

/// Why a token is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token.
    #[error("is malformed")]
    Form,
    /// It is signed with another algorithm.
    #[error("is not signed with HS256")]
    Algorithm,
    /// No secret of this server has signed it.
    #[error("is not signed with a secret of this server")]
    Signature,
    /// It is not valid any more.
    #[error("has expired")]
    Expired,
    /// It is not valid yet.
    #[error("is not valid yet")]
    NotYet,
    /// It is for publishing, and not for playing, or the other way round.
    #[error("is for another action")]
    Action,
    /// It is for another stream.
    #[error("is for another stream")]
    Stream,
    /// It is for another client address.
    #[error("is for another address")]
    Address,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What it allows.
    pub action: Action,
    /// `app/name`, `app/*` or `*`.
    pub stream: String,
    /// It is not valid from this second on.
    pub exp: u64,
    /// It is not valid before this second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The connection ends at this second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// Who it was given to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
}

impl Claims {
    /// Allows an action until `exp`.
    pub fn new(action: Action, stream: &str, exp: u64) -> Self {
        Self { action, stream: stream.to_owned(), exp, nbf: None, ip: None, end: None, sub: None }
    }

    /// Whether they allow an action to a client.
    ///
    /// # Errors
    /// [`TokenError::Action`] and [`TokenError::Address`].
    pub(super) fn holds(&self, action: Action, address: Option<IpAddr>) -> Result<(), TokenError> {
        if self.action != action {
            return Err(TokenError::Action);
        }
        match self.ip {
            Some(ip) if address.map(|address| address.to_canonical()) != Some(ip.to_canonical()) => {
                Err(TokenError::Address)
            }
            _ => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

/// A secret that signs.
#[derive(Clone, Debug)]
pub struct SigningKey {
    id: Option<String>,
    key: hmac::Key,
}

impl SigningKey {
    /// A secret, with its name if it has one.
    pub fn new(id: Option<&str>, secret: &[u8]) -> Self {
        Self { id: id.map(str::to_owned), key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }
}

/// Whether a text has the form of a token, so that it is no key.
pub fn has_form(text: &str) -> bool {
    text.split('.').count() == 3
}

/// Signs a token.
pub fn sign(key: &SigningKey, claims: &Claims) -> String {
    let part =
        |json: Result<Vec<u8>, _>| BASE64.encode(json.unwrap_or_else(|_: serde_json::Error| Vec::new()));
    let header = Header { alg: ALGORITHM.to_owned(), kid: key.id.clone(), crit: None };
    let text = format!("{}.{}", part(serde_json::to_vec(&header)), part(serde_json::to_vec(claims)));
    let signature = hmac::sign(&key.key, text.as_bytes());
    format!("{text}.{}", BASE64.encode(signature))
}

/// Reads a token that one of the keys has signed.
///
/// # Errors
/// [`TokenError`]. What the token says is not looked at before its signature is known to be good.
pub(super) fn verify<'a>(
    keys: impl Iterator<Item = &'a SigningKey>,
    token: &str,
    now: u64,
) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Form);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Form)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Form)?;
    let decode = |part: &str| BASE64.decode(part).map_err(|_| TokenError::Form);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Form)?;
    if header.alg != ALGORITHM || header.crit.is_some() {
        return Err(TokenError::Algorithm);
    }
    let (claims, signature) = (decode(claims)?, decode(signature)?);
    let is_named = |key: &&SigningKey| header.kid.is_none() || key.id == header.kid;
    let signs = |key: &SigningKey| hmac::verify(&key.key, signed.as_bytes(), &signature).is_ok();
    if !keys.filter(is_named).any(signs) {
        return Err(TokenError::Signature);
    }
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| TokenError::Form)?;
    match claims.nbf {
        _ if claims.exp <= now || claims.end.is_some_and(|end| end <= now) => Err(TokenError::Expired),
        Some(from) if now < from => Err(TokenError::NotYet),
        _ => Ok(claims),
    }
}
