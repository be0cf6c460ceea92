//! The socket options of a listener, which the connections that it accepts inherit.

use std::time::Duration;

use super::Config;

/// Connections that may wait to be accepted; the kernel takes the smaller of this and `net.core.somaxconn`.
const BACKLOG: i32 = 65_535;
/// The kernel drops a peer after this time without an acknowledgement, or with a closed window.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// The kernel drops a peer this much later than the server does, so that the server can log the reason.
const AFTER_STALL: Duration = Duration::from_secs(5);

/// Options of a listening socket. In addition, all listeners send small writes at once (`TCP_NODELAY`) and
/// probe silent peers (`SO_KEEPALIVE`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerOptions {
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// `TCP_USER_TIMEOUT`.
    pub user_timeout: Duration,
    /// `SO_SNDBUF` in bytes; `None`: the kernel chooses it, and adapts it to the connection.
    pub send_buffer: Option<usize>,
    /// `TCP_NOTSENT_LOWAT` in bytes; `None`: the kernel's default.
    pub notsent_lowat: Option<u32>,
}

impl Config {
    /// For viewers and publishers of live streams.
    pub fn stream_listener(&self) -> ListenerOptions {
        self.listener(self.live.stall)
    }

    /// For the origin's pages and files, on a port that also plays live streams: clients may take nothing for
    /// as long as file clients may.
    pub fn web_listener(&self) -> ListenerOptions {
        self.listener(self.live.stall.max(self.limits.send_time))
    }

    /// For the file gateway. Of a file the kernel holds only references to its pages, and no viewer lags: the
    /// kernel chooses its buffers.
    pub fn file_listener(&self) -> ListenerOptions {
        ListenerOptions { send_buffer: None, notsent_lowat: None, ..self.web_listener() }
    }

    fn listener(&self, stall: Duration) -> ListenerOptions {
        ListenerOptions {
            backlog: BACKLOG,
            user_timeout: USER_TIMEOUT.max(stall.saturating_add(AFTER_STALL)),
            send_buffer: Some(self.limits.sndbuf).filter(|bytes| *bytes > 0),
            notsent_lowat: u32::try_from(self.limits.notsent_lowat).ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_listener_has_its_options() {
        let mut config = Config::default();
        let stream = config.stream_listener();
        assert_eq!((stream.user_timeout, stream.send_buffer), (Duration::from_secs(25), Some(512 << 10)));
        assert_eq!(stream.notsent_lowat, Some(128 << 10));
        let web = config.web_listener();
        assert_eq!(web, ListenerOptions { user_timeout: Duration::from_secs(65), ..stream });
        let files = config.file_listener();
        assert_eq!((files.send_buffer, files.notsent_lowat), (None, None));
        config.live.stall = Duration::from_secs(1);
        assert_eq!(config.stream_listener().user_timeout, USER_TIMEOUT);
    }
}
