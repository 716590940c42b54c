//! The results of a follower's workers on their way to the publisher, which the leader's process has.
//!
//! They have a link of their own, so that a large tick delays no beat.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};

use keytide_connectors::cluster::{Heard, MessageReader, MessageWriter, Wire};
use keytide_connectors::sink::TickOutput;
use serde::{Deserialize, Serialize};

use super::Membership;
use crate::run::checkpoint::FollowerParts;
use crate::run::publish::{PublishEvent, Results};

/// A message of a follower's workers.
#[derive(Serialize, Deserialize)]
enum ResultMessage {
    Output(Box<TickOutput>),
    Parts(FollowerParts),
    /// The job is over, and this was all.
    End,
}

/// Starts the thread that sends results to the leader until the job is over.
///
/// # Errors
/// If the system gives no thread.
pub(in crate::run) fn send(
    link: Wire,
    events: Receiver<PublishEvent>,
    membership: Arc<Membership>,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name("results-out".to_owned()).spawn(move || {
        let mut writer = MessageWriter::new(link);
        for event in events {
            let message = match event {
                PublishEvent::Output(output) => ResultMessage::Output(output),
                PublishEvent::Parts(parts) => ResultMessage::Parts(parts),
                // The channel ends when the states are stored as well.
                PublishEvent::Ended | PublishEvent::Committed(_) => continue,
            };
            if let Err(error) = writer.write(&message) {
                return membership.lose(format!("results can't be sent to the leader: {error}"));
            }
        }
        if let Err(error) = writer.write(&ResultMessage::End) {
            membership.lose(format!("results can't be sent to the leader: {error}"));
        }
    })
}

/// Starts a thread for each follower that hands its results over to the publisher.
///
/// # Errors
/// If the system gives no thread.
pub(in crate::run) fn receive(
    links: Vec<Wire>,
    results: &Arc<Results>,
    membership: &Arc<Membership>,
) -> io::Result<()> {
    for (process, link) in (1..).zip(links) {
        let (results, membership) = (Arc::clone(results), Arc::clone(membership));
        thread::Builder::new().name(format!("results-{process}")).spawn(move || {
            let mut reader = MessageReader::new(link);
            let reason = loop {
                match reader.read() {
                    Ok(Heard::Message(ResultMessage::Output(output))) => results.send(*output),
                    Ok(Heard::Message(ResultMessage::Parts(parts))) => results.parts(parts),
                    Ok(Heard::Message(ResultMessage::End)) => return,
                    Ok(Heard::Silence) => {}
                    Ok(Heard::End) => break "it was closed".to_owned(),
                    Err(error) => break error.to_string(),
                }
            };
            membership.lose(format!("the link for results of process {process} is lost: {reason}"));
            // The publisher must not take this for the end of the results. The process is about to begin anew.
            std::mem::forget(results);
        })?;
    }
    Ok(())
}
