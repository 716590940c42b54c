//! Steps of a report: each looks at one thing, all of them at once.
//!
//! Limits: [`AT_ONCE`] steps at a time. A step may wait for a broker or a server, and never for another step.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use super::CheckReport;

/// The number of steps that run at once, at most.
const AT_ONCE: usize = 16;

/// A part of a report that can be made on its own.
pub(super) struct CheckStep<'a> {
    run: Box<dyn FnOnce(&mut CheckReport) + Send + 'a>,
    /// True if it asks another service, so that a person may have to wait for it.
    is_lookup: bool,
}

impl<'a> CheckStep<'a> {
    pub(super) fn local(run: impl FnOnce(&mut CheckReport) + Send + 'a) -> Self {
        Self { run: Box::new(run), is_lookup: false }
    }

    pub(super) fn lookup(run: impl FnOnce(&mut CheckReport) + Send + 'a) -> Self {
        Self { run: Box::new(run), is_lookup: true }
    }
}

/// Runs all steps and joins their parts in the order of the steps. Calls `known` with what each look-up found, as soon
/// as that is known.
pub(super) fn run(steps: Vec<CheckStep<'_>>, known: &mut dyn FnMut(&str)) -> CheckReport {
    let mut parts: Vec<CheckReport> = Vec::new();
    parts.resize_with(steps.len(), CheckReport::default);
    let threads = steps.len().min(AT_ONCE);
    let waiting: Mutex<VecDeque<_>> = Mutex::new(steps.into_iter().enumerate().collect());
    let (done, found) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let (done, waiting) = (done.clone(), &waiting);
            scope.spawn(move || {
                let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some((number, step)) = next() {
                    let mut part = CheckReport::default();
                    (step.run)(&mut part);
                    let _ = done.send((number, step.is_lookup, part));
                }
            });
        }
        drop(done);
        for (number, is_lookup, part) in found {
            if is_lookup {
                part.lines().for_each(|line| known(&line));
            }
            parts[number] = part;
        }
    });
    parts.into_iter().fold(CheckReport::default(), CheckReport::joined)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn steps_run_at_once_and_are_joined_in_their_order() {
        // Each waits for the others, so that they would never end one after the other.
        let together = Barrier::new(AT_ONCE);
        let steps = (0..2 * AT_ONCE).map(|number| {
            let together = &together;
            CheckStep::lookup(move |report: &mut CheckReport| {
                together.wait();
                report.line("connect", number.to_string());
                report.problems.push(format!("problem {number}"));
            })
        });
        let mut seen = Vec::new();
        let report = run(steps.collect(), &mut |line| seen.push(line.to_owned()));
        let numbers: Vec<String> = report.summary.into_iter().map(|(_, text)| text).collect();
        assert_eq!(numbers, (0..2 * AT_ONCE).map(|number| number.to_string()).collect::<Vec<_>>());
        assert_eq!(report.problems.len(), 2 * AT_ONCE);
        seen.sort_unstable();
        assert_eq!(seen.len(), 4 * AT_ONCE);
        assert!(seen.contains(&"problem 7".to_owned()) && seen.contains(&"7".to_owned()), "{seen:?}");
    }

    #[test]
    fn only_what_others_say_is_worth_a_line_before_the_report() {
        let steps =
            vec![CheckStep::local(|report: &mut CheckReport| report.line("job", "keytide".to_owned()))];
        let report = run(steps, &mut |line| panic!("{line}"));
        assert_eq!(report.summary.len(), 1);
    }
}
