//! The sequencer against a model that takes one record at a time and computes everything anew from the rules.

use keytide_dataflow::model::time::HOUR_MS;
use proptest::prelude::*;

use super::*;

const NOW: Tick = 1_800_000_000_000;
const BASE: EventTime = NOW - 1_000 * HOUR_MS;

/// A record: the time of an event, or `None` for a dead letter.
type Entry = Option<EventTime>;

/// Decisions taken apart: what happened to each record, and between which.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fact {
    Event { partition: usize, time: EventTime, late_ms: u32 },
    Letter { partition: usize },
    Close(TickInfo),
}

struct ModelPartition<'a> {
    records: &'a [Entry],
    maximum: EventTime,
    beyond: Vec<EventTime>,
}

impl<'a> ModelPartition<'a> {
    fn new(records: &'a [Entry]) -> Self {
        let events = records.iter().take(256).flatten().take(64);
        Self { records, maximum: events.min().copied().unwrap_or(0), beyond: Vec::new() }
    }

    /// The maximum and what is remembered after the next record.
    fn next(&self) -> (EventTime, Vec<EventTime>) {
        let (mut maximum, mut beyond) = (self.maximum, self.beyond.clone());
        if let Some(time) = self.records[0] {
            if time > maximum + HOUR_MS {
                beyond.push(time);
                if beyond.len() == 64 {
                    maximum = *beyond.iter().min().unwrap();
                }
            } else {
                maximum = maximum.max(time);
            }
            while let Some(seen) = beyond.iter().position(|&time| time <= maximum + HOUR_MS) {
                maximum = maximum.max(beyond.remove(seen));
            }
        }
        (maximum, beyond)
    }
}

fn model(rules: &SequencerRules, partitions: &[Vec<Entry>]) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut all: Vec<_> = partitions.iter().map(|records| ModelPartition::new(records)).collect();
    let watermark_of = |maximum: EventTime| maximum.saturating_sub(rules.out_of_orderness_ms).min(rules.now);
    let (mut tick, mut before, mut watermark, mut in_tick) = (rules.now, 0, 0, 0);
    let mut close = |facts: &mut Vec<Fact>, watermark, last| {
        facts.push(Fact::Close(TickInfo {
            tick,
            watermark_before: before,
            watermark,
            cadence: watermark,
            catching_up: false,
            last,
        }));
        tick += 1;
        before = watermark;
        watermark
    };
    let mut previous = close(&mut facts, 0, false);
    let mut greatest_finished = 0;
    let mut turn: Option<usize> = None;
    loop {
        let unfinished: Vec<_> = (0..all.len()).filter(|&index| !all[index].records.is_empty()).collect();
        let smallest = unfinished.iter().map(|&index| all[index].maximum).min();
        if watermark == 0 {
            watermark = smallest.map_or(0, watermark_of);
        }
        let Some(&first) = unfinished.iter().min_by_key(|&&index| (all[index].next().0, index)) else {
            break;
        };
        let current = turn.filter(|current| unfinished.contains(current)).map_or(first, |current| {
            let others = unfinished.iter().filter(|&&index| index != current);
            let second = others.map(|&index| all[index].next().0).min().unwrap_or(u64::MAX);
            if all[current].next().0 <= second.saturating_add(60_000) { current } else { first }
        });
        turn = Some(current);

        let (maximum, beyond) = all[current].next();
        let minimum = unfinished
            .iter()
            .map(|&index| if index == current { maximum } else { all[index].maximum })
            .min()
            .unwrap();
        let after = watermark.max(watermark_of(minimum));
        let leaps = after > watermark && after > previous + 60_000;
        if in_tick > 0 && (leaps || in_tick == rules.tick_records) {
            previous = close(&mut facts, watermark, false);
            in_tick = 0;
        }
        let partition = &mut all[current];
        facts.push(match partition.records[0] {
            None => Fact::Letter { partition: current },
            Some(time) => {
                let tolerance = rules.out_of_orderness_ms + rules.allowed_lateness_ms;
                let late = i128::from(time) < i128::from(partition.maximum) - i128::from(tolerance);
                let late_ms =
                    if late { (partition.maximum - time).min(u64::from(u32::MAX)) as u32 } else { 0 };
                Fact::Event { partition: current, time, late_ms }
            }
        });
        in_tick += 1;
        watermark = after;
        (partition.maximum, partition.beyond) = (maximum, beyond);
        partition.records = &partition.records[1..];

        if partition.records.is_empty() {
            greatest_finished = greatest_finished.max(maximum);
            let left = all.iter().filter(|partition| !partition.records.is_empty());
            let minimum = left.map(|partition| partition.maximum).min().unwrap_or(greatest_finished);
            let after = watermark.max(watermark_of(minimum));
            if in_tick > 0 && after > watermark && after > previous + 60_000 {
                previous = close(&mut facts, watermark, false);
                in_tick = 0;
            }
            watermark = after;
        }
    }
    close(&mut facts, watermark, true);
    facts
}

fn chunk(records: &[Entry], last: bool) -> Chunk {
    let mut chunk = Chunk { last, ..Chunk::default() };
    for record in records {
        match record {
            Some(time) => chunk.times.push(*time),
            None => chunk.letters.push(chunk.times.len()),
        }
    }
    chunk
}

/// Feeds chunks of the given sizes (0: an empty one), partitions in the order of `choices`.
fn run(rules: &SequencerRules, partitions: &[Vec<Entry>], sizes: &[usize], choices: &[usize]) -> Vec<Fact> {
    let (mut sequencer, tables) = Sequencer::new(rules, partitions.len());
    let mut facts = vec![Fact::Close(tables)];
    let mut fed = vec![0; partitions.len()];
    let mut decided = vec![0; partitions.len()];
    let mut ended = vec![false; partitions.len()];
    let mut step = 0;
    loop {
        sequencer.advance(|decision| match decision {
            Decision::Close(info) => facts.push(Fact::Close(info)),
            Decision::Take(slice) => {
                let at = &mut decided[slice.partition];
                let records = &partitions[slice.partition][*at..*at + slice.events + slice.letters];
                *at += records.len();
                let mut event = 0;
                for record in records {
                    let partition = slice.partition;
                    let Some(time) = *record else {
                        facts.push(Fact::Letter { partition });
                        continue;
                    };
                    let late = slice.late.iter().find(|(index, _)| *index == event);
                    facts.push(Fact::Event { partition, time, late_ms: late.map_or(0, |late| late.1) });
                    event += 1;
                }
                assert_eq!(event, slice.events);
            }
        });
        let missing: Vec<_> = (0..partitions.len()).filter(|&index| sequencer.waits_for(index)).collect();
        let open: Vec<_> = (0..partitions.len()).filter(|&index| !ended[index]).collect();
        assert_eq!(missing.is_empty(), sequencer.is_finished(), "it says what it waits for");
        if sequencer.is_finished() && open.is_empty() {
            assert!(fed.iter().zip(partitions).all(|(fed, records)| *fed == records.len()));
            return facts;
        }
        // Sometimes what it waits for, sometimes something else.
        let choice = choices[step % choices.len()];
        let candidates = if choice.is_multiple_of(2) && !missing.is_empty() { &missing } else { &open };
        let index = candidates[choice % candidates.len()];
        let left = &partitions[index][fed[index]..];
        let size = sizes[step % sizes.len()].min(left.len());
        // The end comes with the last records or alone.
        let last = size == left.len() && (size == 0 || choice.is_multiple_of(3));
        sequencer.push(index, chunk(&left[..size], last));
        fed[index] += size;
        ended[index] = last;
        step += 1;
    }
}

const RULES: SequencerRules = SequencerRules {
    now: NOW,
    out_of_orderness_ms: 5_000,
    allowed_lateness_ms: 600_000,
    tick_records: 100_000,
};

fn whole(partitions: &[Vec<Entry>]) -> Vec<Fact> {
    run(&RULES, partitions, &[usize::MAX], &[0])
}

fn infos(facts: &[Fact]) -> Vec<TickInfo> {
    facts.iter().filter_map(|fact| if let Fact::Close(info) = fact { Some(*info) } else { None }).collect()
}

fn late(facts: &[Fact]) -> Vec<(EventTime, u32)> {
    let late = |fact: &Fact| match *fact {
        Fact::Event { time, late_ms, .. } if late_ms > 0 => Some((time, late_ms)),
        _ => None,
    };
    facts.iter().filter_map(late).collect()
}

fn every_second(from: EventTime, events: u64) -> Vec<Entry> {
    (0..events).map(|second| Some(from + second * 1_000)).collect()
}

#[test]
fn empty_input_has_the_tables_tick_and_a_last_one() {
    for partitions in [vec![], vec![vec![]], vec![vec![], vec![]]] {
        let infos = infos(&run(&RULES, &partitions, &[1], &[0]));
        let expected = |tick, last| TickInfo {
            tick,
            watermark_before: 0,
            watermark: 0,
            cadence: 0,
            catching_up: false,
            last,
        };
        assert_eq!(infos, [expected(NOW, false), expected(NOW + 1, true)]);
    }
}

#[test]
fn lateness_is_exact_to_the_millisecond() {
    let mut records = every_second(BASE, 1_000);
    let maximum = BASE + 999_000;
    records.extend([Some(maximum - 605_000), Some(maximum - 605_001), Some(0)]);
    for tick_records in [1, 100_000] {
        let facts = run(&SequencerRules { tick_records, ..RULES }, &[records.clone()], &[usize::MAX], &[0]);
        assert_eq!(late(&facts), [(maximum - 605_001, 605_001), (0, u32::MAX)]);
    }
}

#[test]
fn a_stray_line_moves_nothing_and_sixty_four_do() {
    let ahead = BASE + 30 * HOUR_MS;
    let mut records = vec![Some(ahead)];
    records.extend(every_second(BASE, 200));
    records.extend([Some(ahead); 62]);
    records.extend(every_second(BASE + 200_000, 10));
    let facts = whole(&[records.clone()]);
    assert_eq!(late(&facts), []);
    assert_eq!(infos(&facts).last().unwrap().watermark, BASE + 209_000 - 5_000);
    records.extend([Some(ahead + 1), Some(BASE)]);
    let facts = whole(&[records]);
    assert_eq!(late(&facts), [(BASE, 30 * HOUR_MS as u32 + 1)]);
    assert_eq!(infos(&facts).last().unwrap().watermark, ahead + 1 - 5_000);
}

#[test]
fn ticks_raise_the_watermark_by_a_minute_at_most_but_jump_gaps() {
    let mut records = every_second(BASE, 600);
    records.extend(every_second(BASE + 3_000_000, 600));
    let infos = infos(&whole(&[records]));
    assert!(infos.is_sorted_by_key(|info| info.tick));
    assert!(infos.iter().zip(NOW..).all(|(info, tick)| info.tick == tick), "dense");
    let jumps: Vec<_> = infos
        .iter()
        .map(|info| info.watermark - info.watermark_before)
        .filter(|&step| step > 60_000)
        .collect();
    // From nothing to the first record, and over the gap.
    assert_eq!(jumps, [BASE - 5_000, 3_000_000 - 599_000]);
    assert_eq!(infos.len(), 1 + 1 + 10 + 1 + 10);
}

#[test]
fn the_watermark_never_passes_now() {
    let records = every_second(NOW - 10_000, 200);
    let infos = infos(&whole(&[records]));
    assert_eq!(infos.last().unwrap().watermark, NOW);
}

#[test]
fn the_end_of_all_leaves_the_greatest_of_their_watermarks() {
    let partitions = [vec![Some(BASE), Some(BASE + 30_000)], vec![Some(BASE + 1_000), Some(BASE + 2_000)]];
    let facts = whole(&partitions);
    assert!(matches!(facts[facts.len() - 2], Fact::Event { partition: 1, .. }), "the second file ends last");
    assert_eq!(infos(&facts).last().unwrap().watermark, BASE + 30_000 - 5_000);
}

#[test]
fn rotated_files_are_read_one_after_the_other_and_parallel_ones_side_by_side() {
    let order = |partitions: &[Vec<Entry>]| {
        let mut order: Vec<usize> = whole(partitions)
            .iter()
            .filter_map(|fact| if let Fact::Event { partition, .. } = fact { Some(*partition) } else { None })
            .collect();
        order.dedup();
        order
    };
    let rotated: Vec<_> = [2, 0, 1].map(|file| every_second(BASE + file * 1_000_000, 1_000)).into();
    assert_eq!(order(&rotated), [1, 2, 0]);

    let parallel = vec![every_second(BASE, 1_000); 3];
    assert!(order(&parallel).len() > 3 * 1_000 / 122);
    let mut reached = [BASE; 3];
    for fact in whole(&parallel) {
        if let Fact::Event { partition, time, .. } = fact {
            reached[partition] = time;
            assert!(time <= reached.iter().min().unwrap() + SKEW_MS + 1_000);
        }
    }
}

/// Time goes on with disorder, strays, gaps and bad records, at scales around every limit.
fn partition() -> impl Strategy<Value = Vec<Entry>> {
    let step = prop_oneof![
        30 => (0u64..3_000).prop_map(|ms| (ms.cast_signed(), true)),
        10 => (0u64..70_000).prop_map(|ms| (ms.cast_signed(), true)),
        5 => (0u64..700_000).prop_map(|ms| (-ms.cast_signed(), false)),
        2 => Just((-604_999, false)),
        2 => Just((-605_001, false)),
        2 => (3_590_000i64..3_610_000).prop_map(|ms| (ms, false)),
        2 => (3_590_000i64..3_610_000).prop_map(|ms| (ms, true)),
        1 => (0i64..40_000_000).prop_map(|ms| (ms, true)),
        1 => Just((-BASE.cast_signed(), false)),
    ];
    let record = prop_oneof![9 => step.prop_map(Some), 1 => Just(None)];
    let start = prop_oneof![3 => 0u64..100_000, 1 => 0u64..10_000_000, 1 => 3_590_000_000u64..3_600_500_000];
    let length = prop_oneof![1 => 0usize..3, 2 => 0usize..80, 3 => 100usize..400];
    let records = length.prop_flat_map(move |length| proptest::collection::vec(record.clone(), length));
    let leading_letters = prop_oneof![8 => Just(0usize), 1 => 0usize..5, 1 => 250usize..260];
    (start, leading_letters, records).prop_map(|(start, leading_letters, records)| {
        let mut clock = BASE + start;
        let mut partition = vec![None; leading_letters];
        partition.extend(records.into_iter().map(|record| {
            record.map(|(step, stays)| {
                let time = clock.saturating_add_signed(step).min(NOW + 300_000);
                if stays {
                    clock = time;
                }
                time
            })
        }));
        partition
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn decisions_are_those_of_the_model_for_any_chunks(
        partitions in proptest::collection::vec(partition(), 0..4),
        sizes in proptest::collection::vec(0usize..100, 1..8).prop_filter("progress", |sizes| sizes.iter().any(|&size| size > 0)),
        choices in proptest::collection::vec(0usize..12, 1..8),
        tick_records in prop_oneof![1usize..20, 20usize..2_000],
        out_of_orderness_ms in prop_oneof![Just(0u64), Just(5_000), 0u64..100_000],
    ) {
        let rules = SequencerRules { tick_records, out_of_orderness_ms, ..RULES };
        let facts = run(&rules, &partitions, &sizes, &choices);
        prop_assert_eq!(facts, model(&rules, &partitions));
    }
}

#[test]
fn lags_beyond_the_expected_are_counted_by_steps_whatever_the_chunks() {
    let mut records = every_second(BASE, 1_000);
    let maximum = BASE + 999_000;
    records.extend([5_000, 5_001, 15_000, 15_001, 700_000, 700_000_000].map(|lag| Some(maximum - lag)));
    for (size, tick_records) in [(usize::MAX, 100_000), (7, 100_000), (1, 1)] {
        let rules = SequencerRules { tick_records, ..RULES };
        let (mut sequencer, _) = Sequencer::new(&rules, 1);
        let chunks: Vec<_> = records.chunks(size.min(records.len())).collect();
        for (at, part) in chunks.iter().enumerate() {
            sequencer.push(0, chunk(part, at + 1 == chunks.len()));
            sequencer.advance(|_| {});
        }
        let lags = sequencer.lags();
        assert_eq!((lags.most_ms, lags.events.iter().sum::<u64>()), (700_000_000, 5));
        let covering = [0, 1, 2, 3].map(|beyond| lags.covering(beyond));
        assert_eq!(covering, [None, Some(900_000), Some(30_000), Some(15_000)]);
    }
    assert_eq!(Lags::default().covering(0), Some(LAG_STEPS_MS[0]));
}
