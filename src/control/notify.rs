//! Notifications to the service manager (sd_notify(3)): ready, stopping, alive.
//!
//! The protocol is one datagram of text to the socket that `NOTIFY_SOCKET` names: a path, or an abstract name
//! that is written with a leading "@". Other address families (vsock) are not supported.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

/// A notification to the service manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Connections are accepted.
    Ready,
    /// The shutdown has begun.
    Stopping,
    /// Resets the watchdog.
    Alive,
}

impl Word {
    const fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
            Self::Alive => "WATCHDOG=1",
        }
    }
}

/// Why the service manager cannot be notified.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotifyError {
    /// Neither a path nor an abstract name.
    #[error("this is neither a path nor \"@name\"")]
    Name,
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The service manager's socket; it holds nothing open.
#[derive(Clone, Debug, Default)]
pub(super) struct Notifier {
    /// `None`: there is no service manager.
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From the environment of this process.
    pub(super) fn from_environment() -> Self {
        Self {
            socket: std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()),
            watchdog: watchdog(
                std::env::var("WATCHDOG_USEC").ok().as_deref(),
                std::env::var("WATCHDOG_PID").ok().as_deref(),
                std::process::id(),
            ),
        }
    }

    /// How long the service manager waits for [`Word::Alive`]; `None`: it has no watchdog.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// Notifies the service manager, if there is one. A failure is logged: the unit may be killed if it hears
    /// nothing.
    pub(super) fn tell(&self, word: Word) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, word) {
            warn!(socket = %socket.display(), word = word.text(), %error, "cannot tell the service manager");
        }
    }
}

fn send(socket: &OsStr, word: Word) -> Result<(), NotifyError> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        _ => return Err(NotifyError::Name),
    };
    UnixDatagram::unbound()?.send_to_addr(word.text().as_bytes(), &address)?;
    Ok(())
}

/// The watchdog's timeout (sd_watchdog_enabled(3)), if it is meant for process `own`.
fn watchdog(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(address: &SocketAddr, name: &OsStr) {
        let manager = UnixDatagram::bind_addr(address).unwrap();
        let notifier = Notifier { socket: Some(name.to_owned()), watchdog: None };
        for word in [Word::Ready, Word::Stopping, Word::Alive] {
            notifier.tell(word);
            let mut text = [0; 100];
            let len = manager.recv(&mut text).unwrap();
            assert_eq!(&text[..len], word.text().as_bytes());
        }
    }

    #[test]
    fn paths_and_abstract_names_are_notified() {
        let name = format!("uringcast-notify-{}", std::process::id());
        heard(&SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}").as_ref());
        let path = std::env::temp_dir().join(&name);
        heard(&SocketAddr::from_pathname(&path).unwrap(), path.as_os_str());
        std::fs::remove_file(&path).unwrap();
        assert!(
            matches!(send(path.as_os_str(), Word::Ready), Err(NotifyError::Io(_))),
            "nothing listens there"
        );
        assert!(matches!(send("vsock:2:1234".as_ref(), Word::Ready), Err(NotifyError::Name)));
    }

    #[test]
    fn the_watchdog_is_the_one_of_this_process() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), 7), None);
        for none in [None, Some("0"), Some("x"), Some("-1")] {
            assert_eq!(watchdog(none, None, 7), None);
        }
    }
}
