//! The RTMP handshake (RTMP 1.0, clause 5.2), simple and with digests.
//!
//! The standard's handshake exchanges blocks that no side has to verify. Flash Player 9 and its imitators hide
//! an HMAC-SHA256 digest in C1 and expect digests in S1 and S2; that form is not in the standard. The encrypted
//! variant (version 6) is refused.
//!
//! Nothing here is secret: the blocks are filled by a small generator seeded from the peer's bytes.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The only protocol version in use (clause 5.2.2).
pub const VERSION: u8 = 3;
/// Bytes of C1, C2, S1 and S2.
pub const BLOCK: usize = 1536;
const DIGEST: usize = 32;
/// The version field of S1 for a peer that uses digests.
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];

/// The last 32 bytes of both well-known keys.
const KEY_TAIL: [u8; 32] = [
    0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57, 0x6e,
    0xec, 0x5d, 0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
];
const PLAYER_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
const SERVER_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";

/// What was wrong with the peer's handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// C0 or S0 asks for another protocol: 6 is RTMPE, 22 TLS, 71 the `G` of an HTTP GET.
    #[error("protocol version {got}, only {VERSION} is spoken")]
    Version {
        /// The version byte.
        got: u8,
    },
}

/// The position of the digest in a block: after the 8 bytes of time and version, or after the 764 bytes of key
/// that follow them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// Key block first: the four offset bytes are at 772.
    KeyFirst = 772,
    /// Digest block first: the four offset bytes are at 8.
    DigestFirst = 8,
}

impl Scheme {
    /// The digest's position: the sum of the four offset bytes modulo 728, counted from the end of these bytes.
    fn position(self, block: &[u8; BLOCK]) -> usize {
        let base = self as usize;
        let sum: usize = block[base..base + 4].iter().map(|byte| usize::from(*byte)).sum();
        base + 4 + sum % 728
    }

    /// The block's digest, if it is correct for `key`.
    fn verify(self, block: &[u8; BLOCK], key: &[u8]) -> Option<[u8; DIGEST]> {
        let at = self.position(block);
        let want = hmac(key, &[&block[..at], &block[at + DIGEST..]]);
        (block[at..at + DIGEST] == want).then_some(want)
    }

    fn sign(self, block: &mut [u8; BLOCK], key: &[u8]) {
        let at = self.position(block);
        let digest = hmac(key, &[&block[..at], &block[at + DIGEST..]]);
        block[at..at + DIGEST].copy_from_slice(&digest);
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST] {
    let mut mac: Hmac<Sha256> = match Hmac::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of any length"),
    };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// Fills `block` with bytes that look random (splitmix64), seeded from `seed`.
fn fill(block: &mut [u8], seed: &[u8]) {
    let mut state = seed.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    for piece in block.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        piece.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..piece.len()]);
    }
}

/// The answer to C1: S1 and S2.
fn answer(c1: &[u8; BLOCK]) -> ([u8; BLOCK], [u8; BLOCK]) {
    let mut s1 = [0; BLOCK];
    fill(&mut s1[8..], c1);
    // A zero version means the standard's handshake; the time field is not used either way.
    let schemes = if c1[4..8] == [0; 4] { &[][..] } else { &[Scheme::KeyFirst, Scheme::DigestFirst] };
    let found = schemes.iter().find_map(|scheme| Some((*scheme, scheme.verify(c1, PLAYER_KEY)?)));
    let Some((scheme, digest)) = found else {
        return (s1, *c1); // S2 echoes C1 (clause 5.2.4)
    };
    s1[4..8].copy_from_slice(&SERVER_VERSION);
    scheme.sign(&mut s1, SERVER_KEY);
    let mut s2 = [0; BLOCK];
    fill(&mut s2, &digest);
    let key = hmac(&[SERVER_KEY, &KEY_TAIL].concat(), &[&digest]);
    let (text, place) = s2.split_at_mut(BLOCK - DIGEST);
    place.copy_from_slice(&hmac(&key, &[text]));
    (s1, s2)
}

/// Takes from the start of `input` what `stash` lacks to hold `want` bytes; true once it does.
fn collect(stash: &mut Vec<u8>, want: usize, input: &mut &[u8]) -> bool {
    let (front, rest) = input.split_at((want - stash.len()).min(input.len()));
    stash.extend_from_slice(front);
    *input = rest;
    stash.len() == want
}

/// The server side. C2 is counted, not verified: encoders fill it with arbitrary bytes.
#[derive(Debug, Default)]
pub struct ServerHandshake {
    /// C0 and C1, then C2.
    stash: Vec<u8>,
    answered: bool,
}

impl ServerHandshake {
    /// Takes handshake bytes from the start of `input` and appends the answer to `out` once C1 is complete.
    /// True when C2 is complete; the rest of `input` is chunks.
    ///
    /// # Errors
    /// [`HandshakeError::Version`], as soon as the first byte has come.
    pub fn input(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        if !self.answered {
            let whole = collect(&mut self.stash, 1 + BLOCK, input);
            check_version(&self.stash)?;
            let Some(c1) = self.stash[..].last_chunk().filter(|_| whole) else { return Ok(false) };
            let (s1, s2) = answer(c1);
            out.push(VERSION);
            out.extend_from_slice(&s1);
            out.extend_from_slice(&s2);
            self.stash.clear();
            self.answered = true;
        }
        Ok(collect(&mut self.stash, BLOCK, input))
    }
}

/// The client side, simple form only.
#[derive(Debug, Default)]
pub struct ClientHandshake {
    /// S0 and S1, then S2.
    stash: Vec<u8>,
    begun: bool,
    answered: bool,
}

impl ClientHandshake {
    /// Appends C0 and C1 to `out`; call it once, before any input.
    pub fn start(&mut self, seed: &[u8], out: &mut Vec<u8>) {
        assert!(!self.begun, "a handshake starts once");
        self.begun = true;
        let mut c1 = [0; BLOCK];
        fill(&mut c1[8..], seed);
        out.push(VERSION);
        out.extend_from_slice(&c1);
    }

    /// Takes handshake bytes from the start of `input` and appends C2 to `out` once S1 is complete. True when
    /// S2 is complete; the rest of `input` is chunks.
    ///
    /// # Errors
    /// [`HandshakeError::Version`].
    pub fn input(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<bool, HandshakeError> {
        if !self.answered {
            let whole = collect(&mut self.stash, 1 + BLOCK, input);
            check_version(&self.stash)?;
            if !whole {
                return Ok(false);
            }
            out.extend_from_slice(&self.stash[1..]);
            self.stash.clear();
            self.answered = true;
        }
        Ok(collect(&mut self.stash, BLOCK, input))
    }
}

fn check_version(stash: &[u8]) -> Result<(), HandshakeError> {
    match stash.first() {
        Some(&got) if got != VERSION => Err(HandshakeError::Version { got }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn c1(scheme: Option<Scheme>) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        fill(&mut block[8..], b"a client");
        block[..4].copy_from_slice(&[0xde, 0xad, 0xbe, 0xef]); // the time field may hold anything
        if let Some(scheme) = scheme {
            block[4..8].copy_from_slice(&[9, 0, 124, 2]);
            scheme.sign(&mut block, PLAYER_KEY);
        }
        block
    }

    fn serve(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), HandshakeError> {
        let mut handshake = ServerHandshake::default();
        let (mut out, mut rest) = (Vec::new(), Vec::new());
        let mut done = false;
        for mut piece in pieces.iter().copied() {
            done = done || handshake.input(&mut piece, &mut out)?;
            rest.extend_from_slice(piece);
        }
        assert!(done);
        Ok((out, rest))
    }

    #[test]
    fn hmac_agrees_with_rfc_4231() {
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let got: String = hmac(b"Jefe", &[b"what do ya want ", b"for nothing?"])
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(got, want);
    }

    #[test]
    fn the_simple_form_echoes() {
        let c1 = c1(None);
        let all = [&[3][..], &c1, &[7; BLOCK], b"chunks"].concat();
        let (out, rest) = serve(&[&all]).expect("version 3");
        assert_eq!(out.len(), 1 + 2 * BLOCK);
        assert_eq!((out[0], &out[5..9], &out[1 + BLOCK..]), (3, &[0; 4][..], &c1[..]));
        assert_eq!(rest, b"chunks");
    }

    #[test]
    fn digests_are_answered_in_the_scheme_they_came_in() {
        for scheme in [Scheme::KeyFirst, Scheme::DigestFirst] {
            let c1 = c1(Some(scheme));
            let digest = scheme.verify(&c1, PLAYER_KEY).expect("signed");
            let (out, _) = serve(&[&[3], &c1, &[0; BLOCK]]).expect("version 3");
            let s1: &[u8; BLOCK] = out[1..].first_chunk().expect("S1");
            assert!(scheme.verify(s1, SERVER_KEY).is_some(), "{scheme:?}");
            let (text, mac) = out[1 + BLOCK..].split_at(BLOCK - DIGEST);
            let key = hmac(&[SERVER_KEY, &KEY_TAIL].concat(), &[&digest]);
            assert_eq!(mac, hmac(&key, &[text]));
        }
    }

    #[test]
    fn a_version_without_a_digest_gets_the_simple_form() {
        let mut c1 = c1(None);
        c1[4..8].copy_from_slice(&[9, 0, 124, 2]);
        let (out, _) = serve(&[&[3], &c1, &[0; BLOCK]]).expect("version 3");
        assert_eq!(out[1 + BLOCK..], c1);
    }

    #[test]
    fn a_handshake_split_at_any_point_is_answered_the_same() {
        let all = [&[3][..], &c1(Some(Scheme::DigestFirst)), &[7; BLOCK], b"chunks"].concat();
        let whole = serve(&[&all]);
        for at in 0..=all.len() {
            let (front, back) = all.split_at(at);
            assert_eq!(serve(&[front, back]), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(serve(&single), whole);
    }

    #[test]
    fn other_protocols_are_recognised_by_the_first_byte() {
        for got in [0, 6, 22, b'G'] {
            let mut handshake = ServerHandshake::default();
            let result = handshake.input(&mut &[got][..], &mut Vec::new());
            assert_eq!(result, Err(HandshakeError::Version { got }));
        }
    }

    #[test]
    fn client_and_server_agree() {
        let (mut client, mut server) = (ClientHandshake::default(), ServerHandshake::default());
        let (mut up, mut down) = (Vec::new(), Vec::new());
        client.start(b"seed", &mut up);
        assert_eq!(server.input(&mut &up[..], &mut down), Ok(false));
        up.clear();
        assert_eq!(client.input(&mut &down[..], &mut up), Ok(true));
        assert_eq!(up[..], down[1..=BLOCK]);
        assert_eq!(server.input(&mut &up[..], &mut down), Ok(true));
    }
}
