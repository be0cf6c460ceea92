//! Listening sockets: one for each loop on every address of a listener, so that the kernel spreads new connections over the loops.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use super::reception::Listener;
use super::start::StartError;
use crate::config::{Listen, ListenerOptions};

/// All listeners, and their sockets by loop.
pub(super) struct Plan {
    /// The listeners, indexed by their tags.
    pub(super) listeners: Vec<Listener>,
    /// The sockets of each loop, with their tags.
    pub(super) sockets: Vec<Vec<(u32, TcpListener)>>,
}

impl Plan {
    /// An empty plan for `loops` loops.
    pub(super) fn new(loops: usize) -> Self {
        Self { listeners: Vec::new(), sockets: std::iter::repeat_with(Vec::new).take(loops).collect() }
    }

    /// Binds all addresses of a listener once for each loop and returns those that it got, ports included. `name` is
    /// the flag that sets them.
    ///
    /// # Errors
    /// [`StartError`], whose message says what to do.
    pub(super) fn bind(
        &mut self,
        name: &'static str,
        listen: &Listen,
        listener: Listener,
        options: &ListenerOptions,
    ) -> Result<Vec<SocketAddr>, StartError> {
        let bind = |address: &SocketAddr| {
            self.bind_address(name, (*address, listen.is_v6_only(*address)), listener, options)
        };
        listen.iter().map(bind).collect()
    }

    fn bind_address(
        &mut self,
        name: &'static str,
        (address, v6_only): (SocketAddr, bool),
        listener: Listener,
        options: &ListenerOptions,
    ) -> Result<SocketAddr, StartError> {
        let tag = u32::try_from(self.listeners.len()).expect("a handful of listeners");
        self.listeners.push(listener);
        let why = |error, address| StartError::listen(name, address, error);
        // SO_REUSEPORT would share a port with a second instance: find that out first.
        drop(bind_one((address, v6_only), options, false).map_err(|error| why(error, address))?);
        let mut bound = address;
        for sockets in &mut self.sockets {
            let socket = bind_one((bound, v6_only), options, true).map_err(|error| why(error, bound))?;
            bound = socket.local_addr()?;
            sockets.push((tag, socket));
        }
        Ok(bound)
    }
}

/// A socket to be bound to an address, which may be in use by connections of an earlier process.
///
/// # Errors
/// Those of the kernel.
pub fn socket_for(address: SocketAddr, v6_only: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(v6_only)?; // whatever net.ipv6.bindv6only says
    }
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// Options are set on the listener: accepted sockets inherit them.
fn bind_one(
    (address, v6_only): (SocketAddr, bool),
    options: &ListenerOptions,
    listen: bool,
) -> io::Result<TcpListener> {
    let socket = socket_for(address, v6_only)?;
    socket.set_reuse_port(listen)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.set_tcp_user_timeout(Some(options.user_timeout))?;
    if let Some(bytes) = options.send_buffer {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(lowat) = options.notsent_lowat {
        socket.set_tcp_notsent_lowat(lowat)?;
    }
    socket.bind(&address.into())?;
    if listen {
        socket.listen(options.backlog)?;
    }
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_kernel_times_a_peer_out_later_than_the_server() {
        for stall in [1, 20, 60].map(Duration::from_secs) {
            let mut config = Config::default();
            config.live.stall = stall;
            let listener =
                bind_one((([127, 0, 0, 1], 0).into(), false), &config.stream_listener(), false).unwrap();
            let timeout = socket2::SockRef::from(&listener).tcp_user_timeout().unwrap().unwrap();
            assert!(timeout > stall && timeout >= Duration::from_secs(20));
        }
    }
}
