//! A server that fails as it is told, around a gateway that never does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Asked, Server, answer, failure};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Normal,
    /// The connection is closed before the gateway acts.
    DropBefore,
    /// The connection is closed after the gateway acted.
    DropAfter,
    /// The connection is closed, and the gateway acts after the next request.
    Late,
    /// The gateway answers this status and doesn't act.
    Status(u16),
    /// The gateway says that it acted, and doesn't.
    Lie,
}

/// A gateway that never fails.
pub(crate) trait Standin: Send + 'static {
    /// Answers a request: a status and a body.
    fn act(&mut self, asked: &Asked) -> (u16, String);

    /// Returns the raw texts of all keys.
    fn keys(&self) -> Vec<String>;

    /// Names the error that a status stands for, in a header, as AWS does.
    fn error(&self, _: u16) -> Option<&'static str> {
        None
    }
}

/// A gateway behind a server that fails.
pub(crate) struct Failing<S> {
    pub(crate) port: u16,
    state: Arc<Mutex<FailingState<S>>>,
}

pub(crate) struct FailingState<S> {
    pub(crate) standin: S,
    /// What becomes of the next requests; later ones are answered.
    pub(crate) fates: VecDeque<Fate>,
    /// The request that the gateway acts on after the next one.
    late: Option<Asked>,
    /// The requests that changed a key.
    pub(crate) effects: usize,
    pub(crate) asked: Vec<Asked>,
}

impl<S: Standin> Failing<S> {
    pub(crate) fn start(standin: S) -> Self {
        let (fates, late, asked) = (VecDeque::new(), None, Vec::new());
        let state = Arc::new(Mutex::new(FailingState { standin, fates, late, effects: 0, asked }));
        let of_server = Arc::clone(&state);
        let server = Server::start(move |asked| of_server.lock().unwrap().handle(asked));
        Self { port: server.port, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, FailingState<S>> {
        self.state.lock().unwrap()
    }
}

impl<S: Standin> FailingState<S> {
    fn handle(&mut self, asked: Asked) -> Option<String> {
        self.asked.push(asked.clone());
        let fate = self.fates.pop_front().unwrap_or(Fate::Normal);
        let late = self.late.take();
        let answered = match fate {
            Fate::Normal => Some(self.act(&asked)),
            Fate::DropBefore => None,
            Fate::DropAfter => {
                self.act(&asked);
                None
            }
            Fate::Late => {
                self.late = Some(asked);
                None
            }
            Fate::Status(status) => Some((status, "{}".to_owned())),
            Fate::Lie if asked.method == "GET" => Some(self.act(&asked)),
            Fate::Lie => Some((200, "{}".to_owned())),
        };
        if let Some(late) = late {
            self.act(&late);
        }
        answered.map(|(status, body)| match self.standin.error(status) {
            Some(error) => failure(status, error, &body),
            None => answer(status, &body),
        })
    }

    fn act(&mut self, asked: &Asked) -> (u16, String) {
        let before = self.standin.keys();
        let answered = self.standin.act(asked);
        self.effects += usize::from(before != self.standin.keys());
        answered
    }
}
