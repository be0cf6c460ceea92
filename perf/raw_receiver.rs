//! The baseline for ingest: receives any number of connections into one buffer and discards everything.
//!
//! No protocol, no answer, no log: `epoll` and a `recv` for each readable socket. The ingest cost of a real
//! server is compared with this, in the same run on the same machine.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use clap::Parser;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

const LISTENER: u64 = u64::MAX;

/// Receives from every client that connects, and does nothing else.
#[derive(Parser)]
struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Most bytes taken by one receive
    #[arg(long, default_value_t = 64 << 10)]
    buffer: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let listener = TcpListener::bind(args.listen)?;
    eprintln!("ready role=raw-receiver listen={}", listener.local_addr()?);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut senders: HashMap<u64, TcpStream> = HashMap::new();
    let mut buffer = vec![0; args.buffer];
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(&poll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in &events {
            let id = event.data.u64();
            if id == LISTENER {
                let (sender, _) = listener.accept()?;
                let id = u64::try_from(sender.as_raw_fd())?;
                epoll::add(&poll, &sender, EventData::new_u64(id), EventFlags::IN)?;
                senders.insert(id, sender);
                continue;
            }
            match recv(&senders[&id], &mut buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => drop(senders.remove(&id)),
                Ok(_) | Err(Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
