//! [`Ledger`]: which bytes of which content an origin has sent, so that what it sent twice can be told.

use std::collections::HashMap;

use parking_lot::Mutex;

/// Runs of bytes in the order in which they were sent.
type Runs = Vec<(u64, u64)>;

/// Body bytes by path and entity tag.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    sent: Mutex<HashMap<String, HashMap<String, Runs>>>,
}

impl Ledger {
    /// The bytes `from..to` were sent.
    pub(super) fn note(&self, path: &str, tag: &str, from: u64, to: u64) {
        let mut sent = self.sent.lock();
        let runs = sent.entry(path.to_owned()).or_default().entry(tag.to_owned()).or_default();
        match runs.last_mut().filter(|last| last.1 == from) {
            Some(last) => last.1 = to,
            None => runs.push((from, to)),
        }
    }

    /// Of what was noted, `from..to` has not left after all.
    pub(super) fn take_back(&self, path: &str, tag: &str, from: u64, to: u64) {
        let mut sent = self.sent.lock();
        let runs = sent.get_mut(path).and_then(|versions| versions.get_mut(tag));
        let run = runs.and_then(|runs| runs.iter_mut().rfind(|run| run.1 == to && run.0 <= from));
        if let Some(run) = run {
            run.1 = from;
        }
    }

    /// Body bytes sent of `path` in all its versions.
    pub(crate) fn of_path(&self, path: &str) -> u64 {
        self.sent.lock().get(path).map_or(0, |versions| versions.values().flatten().map(|(from, to)| to - from).sum())
    }

    /// Body bytes sent of one version of `path`.
    pub(crate) fn of_version(&self, path: &str, tag: &str) -> u64 {
        let sent = self.sent.lock();
        sent.get(path).and_then(|versions| versions.get(tag)).map_or(0, |runs| runs.iter().map(|(a, b)| b - a).sum())
    }

    /// Of all that was sent, those bytes that were sent for the first time.
    pub(crate) fn distinct(&self) -> u64 {
        self.sent.lock().values().flat_map(HashMap::values).map(|runs| distinct(runs)).sum()
    }

    /// Forgets what was sent of `path`, as if it were another one from here on. Returns its distinct bytes.
    pub(crate) fn forget(&self, path: &str) -> u64 {
        let versions = self.sent.lock().remove(path).unwrap_or_default();
        versions.values().map(|runs| distinct(runs)).sum()
    }
}

fn distinct(runs: &[(u64, u64)]) -> u64 {
    let mut sorted = runs.to_vec();
    sorted.sort_unstable();
    let (mut sum, mut end) = (0, 0);
    for (from, to) in sorted {
        sum += to.saturating_sub(from.max(end));
        end = end.max(to);
    }
    sum
}

#[test]
fn bytes_that_were_sent_twice_count_once() {
    let ledger = Ledger::default();
    for (from, to) in [(0, 10), (10, 20), (15, 30), (5, 8)] {
        ledger.note("/a", "x", from, to);
    }
    ledger.note("/a", "y", 0, 5);
    assert_eq!((ledger.of_path("/a"), ledger.of_version("/a", "x"), ledger.distinct()), (43, 38, 35));
    ledger.note("/a", "x", 30, 50);
    ledger.note("/a", "x", 60, 70);
    ledger.take_back("/a", "x", 30, 50);
    ledger.take_back("/a", "x", 60, 70);
    assert_eq!((ledger.of_version("/a", "x"), ledger.distinct()), (38, 35));
    assert_eq!((ledger.forget("/a"), ledger.distinct()), (35, 0));
}
