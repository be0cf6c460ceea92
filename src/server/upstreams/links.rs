//! All connections of a loop that the server itself opens: pulls, relays, and probes of upstreams.

use std::sync::Arc;

use super::link::{ANSWER, Link, LinkError, LinkEvent, Speech, Timeouts, connect};
use super::pull::{Pulls, upstreams};
use super::relay::Relays;
use crate::live::key::StreamKey;
use crate::live::stream::Stream;
use crate::server::core::{Core, Task};
use crate::server::head::{ConnHead, LinkId, Next};
use crate::server::viewers::audience::Viewers;
use crate::server::viewers::viewer::Farewell;
use crate::uring::{Engine, Sock};

/// See the module.
#[derive(Debug, Default)]
pub(in crate::server) struct Upstreams {
    pulls: Pulls,
    relays: Relays,
    /// Probes under way, by role and index of the upstream.
    probes: Vec<((usize, usize), Link)>,
}

impl Upstreams {
    /// Starts or finds the pull of a stream, in roles that pull.
    pub(in crate::server) fn pull<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        role: usize,
        key: &StreamKey,
    ) -> Option<Arc<Stream>> {
        self.pulls.begin(core, role, key)
    }

    /// A stream is published: forwards it if the configuration says so.
    pub(in crate::server) fn forward<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        role: usize,
        stream: &Arc<Stream>,
    ) {
        self.relays.forward(core, role, stream);
    }

    /// The result of a connection attempt.
    pub(in crate::server) fn connected<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        head: &mut ConnHead,
        link: LinkId,
        result: Result<(), rustix::io::Errno>,
    ) -> Next {
        if let Err(error) = result {
            if let LinkId::Pull(id) = link {
                self.pulls.failed(core, id, &error.into());
            }
            return Next::close(error.to_string());
        }
        let link = match link {
            LinkId::Pull(id) => self.pulls.link(id),
            LinkId::Relay(id) => self.relays.link(id),
            LinkId::Probe(..) => self.probe(head.sock),
        };
        let Some(link) = link else { return Next::close("what it was opened for is over") };
        let hello = link.connected(core.now());
        core.say(head, hello)
    }

    /// Bytes from the other server.
    pub(in crate::server) fn received<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        link: LinkId,
        data: &[u8],
    ) -> Next {
        match link {
            LinkId::Pull(id) => self.pulls.received(core, id, data),
            LinkId::Relay(id) => self.relays.received(core, viewers, head, id, data),
            LinkId::Probe(..) => self.probe_received(core, head, data),
        }
    }

    /// All queued bytes have been sent.
    pub(in crate::server) fn drained<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        link: LinkId,
    ) {
        if let LinkId::Relay(id) = link {
            self.relays.join(core, viewers, head, id);
        }
    }

    /// The fan-out has removed a forward.
    pub(in crate::server) fn farewell<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        link: LinkId,
        farewell: Farewell,
    ) -> Next {
        match link {
            LinkId::Relay(id) => self.relays.farewell(core, viewers, head, id, farewell),
            LinkId::Pull(_) | LinkId::Probe(..) => Next::close(farewell.to_string()),
        }
    }

    /// A connection is closed.
    pub(in crate::server) fn closed<E: Engine>(
        &mut self,
        core: &mut Core<E>,
        viewers: &mut Viewers,
        head: &mut ConnHead,
        link: LinkId,
        reason: &str,
    ) {
        viewers.leave(core, head);
        match link {
            LinkId::Pull(id) => {
                let fault = core.net.tls_fault(head.sock).cloned();
                self.pulls.closed(core, id, &fault.map_or(LinkError::HungUp, LinkError::Tls));
            }
            LinkId::Relay(id) => self.relays.closed(core, id, head.sock, reason),
            LinkId::Probe(role, place) => {
                let Some(at) = self.probes.iter().position(|(_, probe)| probe.sock == head.sock) else {
                    return;
                };
                self.probes.swap_remove(at);
                upstreams(core.role(role))[place].health.failed(core.now());
            }
        }
    }

    /// Memory is short: pulled streams keep less.
    pub(in crate::server) fn shorten<E: Engine>(&mut self, core: &mut Core<E>) {
        self.pulls.shorten(core);
    }

    /// Checks all of them for what is due.
    pub(in crate::server) fn sweep<E: Engine>(&mut self, core: &mut Core<E>) {
        self.pulls.sweep(core);
        self.relays.sweep(core);
        if !core.is_draining() {
            self.send_probes(core);
        }
        let now = core.now();
        for ((role, _), probe) in &self.probes {
            let timeouts = Timeouts { connect: core.role(*role).connect, answer: ANSWER, silence: None };
            let late = probe.overdue(now, &timeouts);
            core.tasks.extend(late.map(|error| Task::Close(probe.sock, error.to_string().into())));
        }
    }

    /// Probes the upstreams that are not known to be up.
    fn send_probes<E: Engine>(&mut self, core: &mut Core<E>) {
        let (now, shared) = (core.now(), Arc::clone(&core.shared));
        for (role, state) in shared.roles.iter().enumerate() {
            for (place, upstream) in upstreams(state).iter().enumerate() {
                if !upstream.health.take_probe(now) {
                    continue;
                }
                let round = usize::try_from(now).unwrap_or(0) / 1000;
                let to = upstream.address(round).map(|address| (address, upstream.url.secure));
                let sock = match to.map(|to| connect(core, to, &upstream.url.host)) {
                    Some(Ok(sock)) => sock,
                    Some(Err(_)) | None => {
                        upstream.health.failed(now);
                        continue;
                    }
                };
                let target = format!("{}/healthz", upstream.url.prefix);
                let speech = Speech::probe(&upstream.url.authority(), &target);
                self.probes.push(((role, place), Link::new(sock, speech, now)));
                core.tasks.push(Task::Opened(ConnHead::new(sock, role), LinkId::Probe(role, place)));
            }
        }
    }

    fn probe(&mut self, sock: Sock) -> Option<&mut Link> {
        self.probes.iter_mut().find(|(_, probe)| probe.sock == sock).map(|(_, probe)| probe)
    }

    fn probe_received<E: Engine>(&mut self, core: &mut Core<E>, head: &ConnHead, data: &[u8]) -> Next {
        let Some(at) = self.probes.iter().position(|(_, probe)| probe.sock == head.sock) else {
            return Next::Stay;
        };
        let mut answered = false;
        let result = self.probes[at].1.take(core.now(), data, |event| {
            answered |= matches!(event, LinkEvent::Answered(_));
            Ok::<(), LinkError>(())
        });
        if answered {
            let ((role, place), _) = self.probes.swap_remove(at);
            upstreams(core.role(role))[place].health.answered();
            return Next::close("it has answered");
        }
        result.map_or_else(|error| Next::close(error.to_string()), |()| Next::Stay)
    }
}
