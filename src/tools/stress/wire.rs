//! How a viewer's bytes travel: plain, or in TLS.

use super::args::Target;
use super::session::Fault;
use crate::protocol::tls::error::TlsError;
use crate::protocol::tls::handshake::{Established, Handshake};

/// See the module.
#[derive(Debug)]
pub(super) enum Wire {
    Plain,
    /// The handshake is under way.
    Shaking(Handshake),
    Open(Box<Established>),
}

fn fault(error: &TlsError) -> Fault {
    Fault::Tls(error.to_string())
}

impl Wire {
    /// For a connection to that target, and the first bytes of its handshake.
    pub(super) fn to(target: &Target) -> Result<(Self, Vec<u8>), Fault> {
        let mut out = Vec::new();
        let Some((config, name)) = &target.tls else { return Ok((Self::Plain, out)) };
        let mut handshake = Handshake::connect(config, name.clone()).map_err(|error| fault(&error))?;
        handshake.push(&[], &mut out).map_err(|error| fault(&error))?;
        Ok((Self::Shaking(handshake), out))
    }

    /// Whether the session can send and receive.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self, Self::Shaking(_))
    }

    /// Whether bytes arrive as they are.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self, Self::Plain)
    }

    /// The bytes to send for a session's output.
    pub(super) fn seal(&mut self, output: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Open(open) if !output.is_empty() => {
                let mut sealed = Vec::new();
                open.sealer.seal([&output, &[]], &mut sealed);
                sealed
            }
            _ => output,
        }
    }

    /// Takes bytes of the server: those for the session go to `plain`, those to send to `out`. `true`: the
    /// session can begin now.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<bool, Fault> {
        let mut begins = false;
        let mut consumed = 0;
        if let Self::Shaking(handshake) = self {
            consumed = handshake.push(bytes, out).map_err(|error| fault(&error))?;
            if !handshake.is_done() {
                return Ok(false);
            }
            let Self::Shaking(handshake) = std::mem::replace(self, Self::Plain) else { return Ok(false) };
            *self = Self::Open(Box::new(handshake.finish().map_err(|error| fault(&error))?));
            begins = true;
        }
        if let Self::Open(open) = self {
            let wants = open.opener.push(&bytes[consumed..], plain).map_err(|error| fault(&error))?;
            if wants.key_update {
                open.sealer.update_key(out);
            }
        }
        Ok(begins)
    }
}
