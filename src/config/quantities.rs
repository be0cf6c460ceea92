//! What the defaults are written in.

use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
pub(super) const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;
