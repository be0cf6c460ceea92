//! The keys of one direction, and the nonces that are used with them.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use rustls::{CipherSuite, ConnectionTrafficSecrets};

/// The version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Bytes of a nonce.
const NONCE_LEN: usize = 12;
/// Bytes of the nonce that stand in a record of AES-GCM in TLS 1.2 (RFC 5288, 3).
pub(super) const EXPLICIT_LEN: usize = 8;
/// Bytes of the authentication tag, the same for all suites.
pub(super) const TAG_LEN: usize = 16;
/// The longest secret of a direction: a SHA-384 hash.
const SECRET_MAX: usize = 48;
/// How many records a key of TLS 1.3 protects (RFC 8446, 5.5: 2^24.5 full ones). The sender then updates it.
const RECORDS_MAX: u64 = 1 << 23;

/// A secret that the keys of a direction are derived from (RFC 8446, 7.2). TLS 1.2 has none.
#[derive(Clone)]
pub(super) struct Secret {
    bytes: [u8; SECRET_MAX],
    len: usize,
    hash: hkdf::Algorithm,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.fill(0);
        std::hint::black_box(&mut self.bytes);
    }
}

/// A length for HKDF.
struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

impl Secret {
    /// `None`: it has not the length of the suite's hash.
    pub(super) fn new(secret: &[u8], suite: CipherSuite) -> Option<Self> {
        let (hash, len) = match suite {
            CipherSuite::TLS13_AES_256_GCM_SHA384 => (hkdf::HKDF_SHA384, 48),
            _ => (hkdf::HKDF_SHA256, 32),
        };
        let mut bytes = [0; SECRET_MAX];
        bytes.get_mut(..secret.len())?.copy_from_slice(secret);
        (secret.len() == len).then_some(Self { bytes, len, hash })
    }

    /// HKDF-Expand-Label with an empty context (RFC 8446, 7.1).
    fn expand(&self, label: &str, out: &mut [u8]) {
        let prk = hkdf::Prk::new_less_safe(self.hash, &self.bytes[..self.len]);
        let wide = u16::try_from(out.len()).expect("a key or a hash");
        let name_len = u8::try_from(b"tls13 ".len() + label.len()).expect("a short label");
        let info: [&[u8]; 5] = [&wide.to_be_bytes(), &[name_len], b"tls13 ", label.as_bytes(), &[0]];
        let okm = prk.expand(&info, Len(out.len())).expect("far below 255 hashes");
        okm.fill(out).expect("the length that was asked for");
    }

    /// The secret after this one (RFC 8446, 7.2).
    fn next(&self) -> Self {
        let mut next = self.clone();
        self.expand("traffic upd", &mut next.bytes[..self.len]);
        next
    }
}

/// The keys of one direction. Each nonce is used once: the sequence number only rises, and a new key begins a
/// new row of them.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) version: Version,
    algorithm: &'static aead::Algorithm,
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    secret: Option<Secret>,
}

impl Keys {
    /// As a handshake has agreed on them; `None`: a suite that is not supported. `secret`: that of TLS 1.3.
    pub(super) fn new(
        (sequence, secrets): (u64, &ConnectionTrafficSecrets),
        version: Version,
        secret: Option<Secret>,
    ) -> Option<Self> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return None,
        };
        let key = key.as_ref().get(..algorithm.key_len())?;
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self { version, algorithm, key, iv: iv.as_ref().try_into().ok()?, sequence, secret })
    }

    /// Whether a part of the nonce stands in each record.
    pub(super) fn is_explicit(&self) -> bool {
        self.version == Version::Tls12 && *self.algorithm != aead::CHACHA20_POLY1305
    }

    /// Whether the sender has to update the key before its next record.
    pub(super) fn is_spent(&self) -> bool {
        self.secret.is_some() && self.sequence >= RECORDS_MAX
    }

    /// The next keys of this direction (RFC 8446, 4.6.3); only in TLS 1.3.
    pub(super) fn update(&mut self) {
        let secret = self.secret.as_ref().expect("only TLS 1.3 updates keys").next();
        let mut key = [0; 32];
        let key = &mut key[..self.algorithm.key_len()];
        secret.expand("key", key);
        secret.expand("iv", &mut self.iv);
        let unbound = UnboundKey::new(self.algorithm, key).expect("a key of the algorithm's length");
        (self.key, self.sequence, self.secret) = (LessSafeKey::new(unbound), 0, Some(secret));
    }

    /// The next nonce and its number.
    fn nonce(&mut self) -> ([u8; NONCE_LEN], u64) {
        let sequence = self.sequence;
        assert!(sequence < u64::MAX, "a nonce is used once");
        self.sequence += 1;
        let mut nonce = self.iv;
        nonce[4..].iter_mut().zip(sequence.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        (nonce, sequence)
    }

    /// The additional data of a record of TLS 1.2 (RFC 5246, 6.2.3.3).
    fn additional(sequence: u64, kind: u8, len: usize) -> [u8; 13] {
        let mut data = [0; 13];
        data[..8].copy_from_slice(&sequence.to_be_bytes());
        let len = u16::try_from(len).expect("at most 2^14");
        data[8..].copy_from_slice(&[kind, 3, 3, (len >> 8) as u8, (len & 0xff) as u8]);
        data
    }

    /// Encrypts `text` in place; the end of the record, its inner type included in TLS 1.3, is appended to
    /// `tail`, which has exactly that length. Returns the explicit part of the nonce.
    pub(super) fn seal(
        &mut self,
        header: &[u8],
        kind: u8,
        text: &mut [u8],
        tail: &mut [u8],
    ) -> [u8; EXPLICIT_LEN] {
        let (nonce, sequence) = self.nonce();
        let explicit = nonce[NONCE_LEN - EXPLICIT_LEN..].try_into().expect("the end of a nonce");
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = match self.version {
            Version::Tls13 => self.key.seal_in_place_scatter(nonce, Aad::from(header), text, &[kind], tail),
            Version::Tls12 => {
                let additional = Self::additional(sequence, kind, text.len());
                self.key.seal_in_place_scatter(nonce, Aad::from(additional), text, &[], tail)
            }
        };
        sealed.expect("the lengths are right");
        explicit
    }

    /// Decrypts a record's body in place and returns the length of its text; `None`: it is forged or damaged.
    pub(super) fn open(
        &mut self,
        (header, kind): (&[u8], u8),
        explicit: Option<[u8; EXPLICIT_LEN]>,
        body: &mut [u8],
    ) -> Option<usize> {
        let (mut nonce, sequence) = self.nonce();
        if let Some(explicit) = explicit {
            nonce[NONCE_LEN - EXPLICIT_LEN..].copy_from_slice(&explicit);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = match self.version {
            Version::Tls13 => self.key.open_in_place(nonce, Aad::from(header), body),
            Version::Tls12 => {
                let len = body.len().checked_sub(TAG_LEN)?;
                self.key.open_in_place(nonce, Aad::from(Self::additional(sequence, kind, len)), body)
            }
        };
        opened.ok().map(|text| text.len())
    }
}
