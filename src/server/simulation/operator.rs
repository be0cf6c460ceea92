//! An operator that looks up a viewer in the lists and kicks it.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use super::net::{Action, World};
use crate::server::roster::{self, Kick, LIMIT_MAX, Query, ViewerList};
use crate::server::shared::Shared;

/// The operator of all processes.
#[derive(Debug)]
pub(super) struct Operator {
    peer: usize,
    /// The viewer to kick, by its index among the peers.
    pub(super) target: usize,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Begins,
    /// With the process of each answer.
    Lists(Vec<(usize, Receiver<ViewerList>)>),
    Kicks(Receiver<Kick>),
    Done,
}

impl Operator {
    pub(super) fn new(peer: usize, target: usize) -> Self {
        Self { peer, target, step: Step::Begins }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.step, Step::Done)
    }

    /// `address`: where its viewer is connected from, if it is connected. `true`: the viewer has been kicked.
    pub(super) fn on_timer(
        &mut self,
        world: &mut World,
        processes: &[Arc<Shared>],
        address: Option<SocketAddr>,
    ) -> bool {
        let again = world.now + world.rng.range(1, 300);
        self.step = match std::mem::replace(&mut self.step, Step::Done) {
            Step::Begins => {
                let query = Query { stream: None, limit: LIMIT_MAX };
                let ask = |(at, shared): (usize, &Arc<Shared>)| {
                    roster::ask(shared, &query).into_iter().map(move |answer| (at, answer))
                };
                Step::Lists(processes.iter().enumerate().flat_map(ask).collect())
            }
            Step::Lists(mut answers) => {
                let mut found = None;
                answers.retain_mut(|(at, answer)| match answer.try_recv() {
                    Ok(list) => {
                        assert_eq!(list.total, list.entries.len(), "all fit the list");
                        let mine = |peer: &str| address.is_some_and(|address| peer == address.to_string());
                        let entry = list.entries.iter().find(|entry| mine(&entry.peer));
                        found = found.take().or(entry.map(|entry| (*at, entry.id.clone())));
                        false
                    }
                    Err(TryRecvError::Empty) => true,
                    Err(TryRecvError::Closed) => panic!("a loop has dropped the request"),
                });
                let name = found.map(|(at, id)| (at, id.parse().expect("a name that the server gave out")));
                let kick = name.and_then(|(at, name)| roster::kick(&processes[at], name));
                match kick {
                    Some(answer) => Step::Kicks(answer),
                    None if answers.is_empty() => Step::Done,
                    None => Step::Lists(answers),
                }
            }
            Step::Kicks(mut answer) => match answer.try_recv() {
                Ok(kick) => {
                    world.log(|| format!("operator: viewer {}: {kick:?}", self.target));
                    return kick == Kick::Done;
                }
                Err(TryRecvError::Empty) => Step::Kicks(answer),
                Err(TryRecvError::Closed) => panic!("a loop has dropped the kick"),
            },
            Step::Done => Step::Done,
        };
        if !self.is_done() {
            world.at(again, Action::Timer(self.peer));
        }
        false
    }
}
