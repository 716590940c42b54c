//! The strings of user agents, for evidence: sent the first time in a day of event time that a decoder meets one, without
//! what stood where the record's keys are looked for.
//!
//! Limits: 256 bytes of an agent, or `limits.text_bytes` where that is less; control characters become U+FFFD. The memo
//! holds 65,536 agents, then starts anew, which only means that definitions are sent again. Of each agent it holds
//! the two days that it was announced for last.

use hashbrown::HashMap;
use keytide_dataflow::Level;
use keytide_dataflow::model::{Definition, EventTime, NameId};

use super::route::{Announced, push_clean};

const TEXT_BYTES: usize = 256;
const AGENTS: usize = 65_536;

/// Agents that were announced lately.
#[derive(Default)]
pub(super) struct Agents(HashMap<NameId, Announced>);

impl Agents {
    /// Whether an agent that is met at `time` is to be announced.
    #[inline]
    pub(super) fn is_new(&mut self, id: NameId, time: EventTime) -> bool {
        let day = Level::Day.start(time);
        if let Some(announced) = self.0.get_mut(&id) {
            return announced.is_new(day);
        }
        if !id.is_some() {
            return false;
        }
        if self.0.len() >= AGENTS {
            self.0.clear();
        }
        self.0.insert(id, Announced::new(day));
        true
    }
}

/// What an agent that is met at `time` is called.
pub(super) fn definition(id: NameId, time: EventTime, text: &str, limit: usize) -> Definition {
    let mut cleaned = String::new();
    push_clean(text, limit.min(TEXT_BYTES), &mut cleaned);
    // A control character may have become longer than it was.
    cleaned.truncate(cleaned.floor_char_boundary(limit.min(TEXT_BYTES)));
    Definition::Agent { id, day: Level::Day.start(time), text: cleaned.into() }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::time::DAY_MS;

    use super::*;

    #[test]
    fn an_agent_is_announced_once_a_day_until_the_memo_is_full() {
        let mut agents = Agents::default();
        let curl = NameId::new("curl/8.0");
        let announced = [5, 5, 6, 5, 7].map(|day| agents.is_new(curl, day * DAY_MS + 3));
        assert_eq!(announced, [true, false, true, false, true]);
        assert!(!agents.is_new(NameId::NONE, DAY_MS));
        for agent in 1..=AGENTS as u64 {
            assert!(agents.is_new(NameId(agent), DAY_MS));
            assert!(agents.0.len() <= AGENTS);
        }
        assert!(agents.is_new(curl, 7 * DAY_MS));
    }

    #[test]
    fn an_agents_text_is_short_and_clean() {
        let text = |text: &str, limit| match definition(NameId(7), DAY_MS + 5, text, limit) {
            Definition::Agent { id: NameId(7), day: DAY_MS, text } => String::from(text),
            other => panic!("{other:?}"),
        };
        assert_eq!(text("curl/8.0\u{1b}[31m", 512), "curl/8.0\u{fffd}[31m");
        assert_eq!(text(&"é".repeat(200), 512), "é".repeat(128));
        assert_eq!(text("Mozilla/5.0", 7), "Mozilla");
        assert!(text(&"\u{1}".repeat(300), 512).len() <= 256);
    }
}
