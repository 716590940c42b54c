//! Answers to checks that may be asked again, by the id of the request.
//!
//! A client that got no answer asks again with the same id, and gets the answer that was made first: its calls count
//! once. Ids are kept as SHA-256 of the asker and the id, so askers have ids of their own, and no id is kept as it came.
//!
//! Limits: an answer is kept for [`REPEAT_MS`]. There are at most [`PARTS`] x [`KEPT`] answers, of which the oldest are
//! forgotten. A check that is asked again after that counts again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use keytide_dataflow::model::time::MINUTE_MS;
use sha2::{Digest, Sha256};

use super::answer::CheckAnswer;

/// How long an answer is kept.
const REPEAT_MS: u64 = MINUTE_MS;
const PARTS: usize = 64;
/// The most answers of a part.
const KEPT: usize = 4_096;

/// The hash of an asker and of the id that it gave a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey([u8; 32]);

impl RequestKey {
    /// Returns the key of a request that an asker gave this id.
    #[must_use]
    pub fn new(asker: &str, request_id: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update((asker.len() as u64).to_be_bytes());
        hasher.update(asker);
        hasher.update(request_id);
        Self(hasher.finalize().into())
    }
}

#[derive(Debug, Default)]
struct RepeatedPart {
    answers: HashMap<RequestKey, (u64, Arc<CheckAnswer>)>,
    /// When answers were made, the oldest first.
    order: VecDeque<(u64, RequestKey)>,
}

/// The answers to checks of the last minute that had an id.
#[derive(Debug)]
pub(super) struct RepeatedChecks(Vec<Mutex<RepeatedPart>>);

impl Default for RepeatedChecks {
    fn default() -> Self {
        Self((0..PARTS).map(|_| Mutex::default()).collect())
    }
}

impl RepeatedChecks {
    /// Returns the answer that a request of this id had, or makes it. Nobody else makes one of the same id meanwhile.
    pub(super) fn answer(
        &self,
        key: RequestKey,
        now_ms: u64,
        make: impl FnOnce() -> CheckAnswer,
    ) -> Arc<CheckAnswer> {
        let part = &self.0[usize::from(key.0[0]) % PARTS];
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let RepeatedPart { answers, order } = &mut *part;
        while let Some((made_ms, old)) =
            order.pop_front_if(|(made_ms, _)| made_ms.saturating_add(REPEAT_MS) <= now_ms)
        {
            forget(answers, old, made_ms);
        }
        if let Some((_, answer)) = answers.get(&key) {
            return Arc::clone(answer);
        }
        let answer = Arc::new(make());
        answers.insert(key, (now_ms, Arc::clone(&answer)));
        order.push_back((now_ms, key));
        if order.len() > KEPT
            && let Some((made_ms, old)) = order.pop_front()
        {
            forget(answers, old, made_ms);
        }
        answer
    }
}

fn forget(answers: &mut HashMap<RequestKey, (u64, Arc<CheckAnswer>)>, key: RequestKey, made_ms: u64) {
    if answers.get(&key).is_some_and(|(known_ms, _)| *known_ms == made_ms) {
        answers.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::CheckVerdict;
    use super::*;

    fn answer(verdict: CheckVerdict) -> CheckAnswer {
        CheckAnswer { verdict, ..CheckAnswer::default() }
    }

    #[test]
    fn a_request_is_answered_once_and_askers_have_ids_of_their_own() {
        let repeated = RepeatedChecks::default();
        let key = RequestKey::new("edge", "1");
        let first = repeated.answer(key, 5, || answer(CheckVerdict::Exceeded));
        let again = repeated.answer(key, 60_004, || panic!("asked again"));
        assert!(Arc::ptr_eq(&first, &again));
        let other = repeated.answer(RequestKey::new("edge1", ""), 6, CheckAnswer::default);
        assert_eq!(other.verdict, CheckVerdict::Allowed);
        let later = repeated.answer(key, 60_005, CheckAnswer::default);
        assert_eq!(later.verdict, CheckVerdict::Allowed);
    }

    #[test]
    fn answers_are_bounded() {
        let repeated = RepeatedChecks::default();
        for id in 0..PARTS * KEPT * 2 {
            repeated.answer(RequestKey::new("edge", &id.to_string()), 0, CheckAnswer::default);
        }
        for part in &repeated.0 {
            let part = part.lock().unwrap();
            assert_eq!((part.answers.len(), part.order.len()), (KEPT, KEPT));
        }
    }
}
