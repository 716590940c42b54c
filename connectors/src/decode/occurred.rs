//! Identities of the records of one message that have no request id of the gateway's.

use hashbrown::HashMap;
use keytide_dataflow::model::RequestId;

use super::secrets::Secrets;

/// Counts how often each identity occurred in a message. Records of one message are never the same, whatever callers
/// put into them.
#[derive(Default)]
pub(super) struct Occurred {
    /// True if the message is an array, which an encoder batched and may send again.
    pub(super) is_batch: bool,
    /// Secrets of the records whose identity is made of the message's bytes.
    pub(super) secrets: Secrets,
    /// The first identity, kept apart because most messages have only one record.
    first: Option<RequestId>,
    /// Further identities, allocated with the second record that is identified by its content.
    others: Option<HashMap<RequestId, u32>>,
}

impl Occurred {
    /// The id of a record whose `identity` makes the id `base` when it occurs for the first time.
    pub(super) fn next(&mut self, base: RequestId, source: &str, identity: &mut Vec<u8>) -> RequestId {
        let Some(first) = self.first else {
            self.first = Some(base);
            return base;
        };
        let before = self.others.get_or_insert_default().entry(base).or_insert(u32::from(base == first));
        let number = *before;
        *before += 1;
        if number == 0 {
            return base;
        }
        identity.extend_from_slice(&number.to_le_bytes());
        RequestId::new(source, identity)
    }
}
