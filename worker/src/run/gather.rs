//! Collects the output of a worker's dataflow by tick, until the tick is done.

use std::collections::BTreeMap;

use keytide_billing::QuotaStanding;
use keytide_connectors::decode::DeadLetter;
use keytide_connectors::sink::TickOutput;
use keytide_connectors::tables::TableDeadLetter;
use keytide_dataflow::model::{Definition, EventTime, Forgotten, Tick};
use keytide_dataflow::{ActionInput, Admitted, Counts, Late, Output, QuotaKey, Revision, Rows};

/// The output of one worker that isn't published yet.
#[derive(Default)]
pub(super) struct Gather {
    ticks: BTreeMap<Tick, TickOutput>,
}

impl Gather {
    fn tick(&mut self, tick: Tick) -> &mut TickOutput {
        self.ticks.entry(tick).or_insert_with(|| TickOutput { tick, ..TickOutput::default() })
    }

    pub(super) fn letters(&mut self, tick: Tick, letters: Vec<DeadLetter>) {
        self.tick(tick).letters.extend(letters);
    }

    pub(super) fn table_letters(&mut self, tick: Tick, letters: Vec<TableDeadLetter>) {
        self.tick(tick).table_letters.extend(letters);
    }

    pub(super) fn inputs(&mut self, tick: Tick, inputs: Vec<ActionInput>) {
        self.tick(tick).inputs.extend(inputs);
    }

    pub(super) fn watermark(&mut self, tick: Tick, watermark: EventTime) {
        self.tick(tick).watermark = watermark;
    }

    /// Returns the output of a tick that is done. It may be empty: the publisher counts one output of each worker.
    pub(super) fn take(&mut self, tick: Tick) -> TickOutput {
        self.ticks.remove(&tick).unwrap_or_else(|| TickOutput { tick, ..Default::default() })
    }
}

impl Output for Gather {
    fn rows(&mut self, tick: Tick, rows: Rows) {
        self.tick(tick).rows.push(rows);
    }

    fn standings(&mut self, tick: Tick, standings: Vec<Revision<QuotaKey, QuotaStanding>>) {
        self.tick(tick).standings.extend(standings);
    }

    fn late(&mut self, tick: Tick, late: Vec<Late>) {
        self.tick(tick).late.extend(late);
    }

    fn counts(&mut self, tick: Tick, counts: Counts) {
        self.tick(tick).counts += counts;
    }

    fn admitted(&mut self, tick: Tick, admitted: Admitted) {
        self.tick(tick).admitted += admitted;
    }

    fn define(&mut self, tick: Tick, definitions: Vec<Definition>) {
        self.tick(tick).definitions.extend(definitions);
    }

    fn forget(&mut self, tick: Tick, forgotten: Vec<Forgotten>) {
        self.tick(tick).forgotten.extend(forgotten);
    }
}
