//! Which sources gave wrong bytes lately, and which of them come after the others for that. Pure: the time is given. That bytes
//! are wrong, and whose they all were, is found out by who has them.
//!
//! One content that is wrong says little of its source: that copy may be damaged, or what is said of it. Several within a
//! short time say that the source damages what it gives, so others are asked before it. It is never left out: whatever it
//! gives is checked as before, and it may be the only one that gives anything.
//!
//! What two sources give wrong says nothing of either: what is expected of it is wrong.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::plan::Source;
use crate::content::{Digest, KeyHash};

/// So many contents are several.
const SEVERAL: usize = 3;
/// Within this time.
const LATELY: Duration = Duration::from_secs(600);
/// So long a source comes after the others at first. After that its next wrong content is enough.
const FIRST_TIME: Duration = Duration::from_secs(60);
/// Each time is so many times as long as the one before.
const GROWTH: u32 = 4;
/// The longest time; and so long after the last one all is forgotten.
const LONGEST_TIME: Duration = Duration::from_secs(3600);
/// Wrong contents and sources that are remembered at once. Names under a wildcard rule are the clients' choice.
const REMEMBERED: usize = 256;

/// What wrong bytes were to be. One digest that the operator tells of many URLs is one content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// What is under a key, by the word of its sources.
    Key(KeyHash),
    /// What has this digest, by the word of the operator or of a verified manifest.
    Digest(Digest),
    /// What was asked for by this digest. No word of anybody can be wrong there.
    Asked(Digest),
}

/// All that is remembered.
#[derive(Debug, Default)]
pub(super) struct WrongBytes {
    /// Oldest first.
    marks: VecDeque<Mark>,
    lowered: HashMap<Source, Lowered>,
}

/// One wrong content.
#[derive(Debug)]
struct Mark {
    subject: Subject,
    /// Who gave it; `None` once two did.
    by: Option<Source>,
    at: Instant,
}

/// A source that comes after the others, or did until lately.
#[derive(Debug)]
struct Lowered {
    until: Instant,
    /// How long that is.
    time: Duration,
    /// How many wrong contents it took.
    took: usize,
    /// Whether its end has been told.
    ended: bool,
}

/// What one more wrong content came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Noted {
    /// To nothing yet.
    Counted,
    /// The source comes after the others for this time.
    Lowered {
        /// How many wrong contents it gave lately.
        contents: usize,
        time: Duration,
    },
    /// Another source gave it wrong, too, so it counts for neither.
    Disputed {
        /// The other source.
        with: Source,
        /// Whether that has its place back.
        restored: bool,
    },
}

impl WrongBytes {
    /// `source` gave all bytes of something that is not what `subject` says.
    pub(super) fn note(&mut self, now: Instant, source: &Source, subject: Subject) -> Noted {
        self.marks.retain(|mark| now.saturating_duration_since(mark.at) <= LATELY);
        let is_said = !matches!(subject, Subject::Asked(_));
        let of_it = |mark: &&mut Mark| mark.subject == subject && (is_said || mark.by.as_ref() == Some(source));
        // Two rules for one host are no two witnesses.
        if let Some(mark) = self.marks.iter_mut().find(of_it) {
            let Some(other) = mark.by.take_if(|by| by.peer != source.peer) else { return Noted::Counted };
            mark.at = now;
            let restored = self.acquit(now, &other);
            return Noted::Disputed { with: other, restored };
        }
        if self.marks.len() >= REMEMBERED {
            self.marks.pop_front();
        }
        self.marks.push_back(Mark { subject, by: Some(source.clone()), at: now });
        self.lower(now, source)
    }

    /// Lowers a source that gave enough.
    fn lower(&mut self, now: Instant, source: &Source) -> Noted {
        let is_remembered = |lowered: &Lowered| now.saturating_duration_since(lowered.until) <= LONGEST_TIME;
        self.lowered.retain(|_, lowered| is_remembered(lowered));
        let contents = self.contents_of(source);
        let (took, time) = match self.lowered.get(source) {
            // It is last already; what it gave before says nothing new.
            Some(lowered) if now < lowered.until => return Noted::Counted,
            Some(lowered) => (1, (lowered.time * GROWTH).min(LONGEST_TIME)),
            None => (SEVERAL, FIRST_TIME),
        };
        if contents < took || (self.lowered.len() >= REMEMBERED && !self.lowered.contains_key(source)) {
            return Noted::Counted;
        }
        self.lowered.insert(source.clone(), Lowered { until: now + time, time, took, ended: false });
        Noted::Lowered { contents, time }
    }

    /// A content no longer counts for `source`. Whether it has its place back for that.
    fn acquit(&mut self, now: Instant, source: &Source) -> bool {
        let contents = self.contents_of(source);
        let Some(lowered) = self.lowered.get_mut(source).filter(|it| now < it.until && contents < it.took) else {
            return false;
        };
        if lowered.took == SEVERAL {
            self.lowered.remove(source);
        } else {
            (lowered.until, lowered.time, lowered.ended) = (now, lowered.time / GROWTH, true);
        }
        true
    }

    fn contents_of(&self, source: &Source) -> usize {
        self.marks.iter().filter(|mark| mark.by.as_ref() == Some(source)).count()
    }

    /// Whether a source comes after the others at `now`.
    pub(super) fn is_lowered(&self, now: Instant, source: &Source) -> bool {
        self.lowered.get(source).is_some_and(|lowered| now < lowered.until)
    }

    /// Those that do.
    pub(super) fn lowered(&self, now: Instant) -> impl Iterator<Item = &Source> {
        self.lowered.iter().filter(move |(_, lowered)| now < lowered.until).map(|(source, _)| source)
    }

    /// Those whose time was over before `now`, each once.
    pub(super) fn ended(&mut self, now: Instant) -> Vec<Source> {
        let over = self.lowered.iter_mut().filter(|(_, lowered)| !lowered.ended && now >= lowered.until);
        over.map(|(source, lowered)| {
            lowered.ended = true;
            source.clone()
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{CacheKey, Origin, Scheme};

    fn source(host: &str) -> Source {
        Source::origin(Origin { scheme: Scheme::Http, host: host.into(), port: 80 }, None, false)
    }

    fn key(number: u32) -> Subject {
        Subject::Key(CacheKey::new(format!("dl.example.com/{number}")).hash())
    }

    /// Wrong for so many keys from `first` on, at `now`.
    fn wrong(it: &mut WrongBytes, now: Instant, source: &Source, keys: std::ops::Range<u32>) -> Noted {
        let noted: Vec<_> = keys.map(|number| it.note(now, source, key(number))).collect();
        noted.into_iter().next_back().unwrap()
    }

    #[test]
    fn one_content_says_nothing_and_several_lower_their_source_for_a_while() {
        let (mut it, now, bad) = (WrongBytes::default(), Instant::now(), source("bad"));
        for _ in 0..10 {
            assert_eq!(it.note(now, &bad, key(1)), Noted::Counted);
        }
        assert_eq!(it.note(now, &bad, key(2)), Noted::Counted);
        assert!(!it.is_lowered(now, &bad));
        assert_eq!(it.note(now, &bad, key(3)), Noted::Lowered { contents: 3, time: FIRST_TIME });
        assert!(it.is_lowered(now, &bad) && !it.is_lowered(now, &source("good")));
        assert_eq!(it.lowered(now).collect::<Vec<_>>(), [&bad]);
        assert!(it.ended(now).is_empty());
        let later = now + FIRST_TIME;
        assert!(!it.is_lowered(later, &bad));
        assert_eq!((it.ended(later), it.ended(later)), (vec![bad], Vec::new()));
    }

    #[test]
    fn each_time_is_longer_until_all_is_forgotten() {
        let (mut it, mut now, bad) = (WrongBytes::default(), Instant::now(), source("bad"));
        wrong(&mut it, now, &bad, 0..3);
        let mut time = FIRST_TIME;
        for number in 3..8 {
            now += time;
            time = (time * GROWTH).min(LONGEST_TIME);
            let Noted::Lowered { time: told, .. } = it.note(now, &bad, key(number)) else { panic!("{number}") };
            assert_eq!(told, time);
        }
        now += time + LONGEST_TIME + Duration::from_secs(1);
        assert_eq!(it.note(now, &bad, key(9)), Noted::Counted, "it is as new");
    }

    #[test]
    fn what_was_wrong_long_ago_does_not_count() {
        let (mut it, now, bad) = (WrongBytes::default(), Instant::now(), source("bad"));
        for number in 0..20 {
            let at = now + (LATELY / 2 + Duration::from_secs(1)) * number;
            assert_eq!(it.note(at, &bad, key(number)), Noted::Counted, "{number}");
        }
    }

    #[test]
    fn what_two_sources_give_wrong_counts_for_neither() {
        let (mut it, now, one, other) = (WrongBytes::default(), Instant::now(), source("one"), source("other"));
        wrong(&mut it, now, &one, 0..3);
        assert!(it.is_lowered(now, &one));
        let disputed = |restored| Noted::Disputed { with: one.clone(), restored };
        assert_eq!(it.note(now, &other, key(0)), disputed(true));
        assert!(!it.is_lowered(now, &one));
        assert_eq!(wrong(&mut it, now, &other, 1..3), disputed(false));
        assert!(!it.is_lowered(now, &other), "they are nobody's fault");
        assert_eq!(wrong(&mut it, now, &one, 0..3), Noted::Counted);
        assert!(it.lowered(now).next().is_none());
        // Others still count.
        assert_eq!(wrong(&mut it, now, &other, 3..6), Noted::Lowered { contents: 3, time: FIRST_TIME });
    }

    #[test]
    fn who_is_asked_by_a_digest_is_at_fault_whoever_else_is() {
        let (mut it, now, sources) = (WrongBytes::default(), Instant::now(), [source("one"), source("other")]);
        for text in ["a", "b", "c"] {
            let subject = Subject::Asked(Digest::of(text.as_bytes()));
            sources.iter().for_each(|source| {
                it.note(now, source, subject);
                it.note(now, source, subject);
            });
            assert_eq!(sources.iter().all(|source| it.is_lowered(now, source)), text == "c");
        }
    }

    #[test]
    fn a_rule_that_holds_for_many_urls_is_one_content() {
        let (mut it, now, bad) = (WrongBytes::default(), Instant::now(), source("bad"));
        for _ in 0..10 {
            assert_eq!(it.note(now, &bad, Subject::Digest(Digest::of(b"one"))), Noted::Counted);
        }
        assert!(!it.is_lowered(now, &bad));
    }

    #[test]
    fn one_host_by_two_rules_is_no_second_witness() {
        let (mut it, now, one) = (WrongBytes::default(), Instant::now(), source("one"));
        let same = Source { allow_private: true, ..one.clone() };
        wrong(&mut it, now, &one, 0..3);
        assert_eq!(it.note(now, &same, key(0)), Noted::Counted);
        assert!(it.is_lowered(now, &one));
    }

    #[test]
    fn made_up_names_do_not_fill_the_memory() {
        let (mut it, now) = (WrongBytes::default(), Instant::now());
        for number in 0..3 * REMEMBERED as u32 {
            let at = source(&format!("n{number}.example.com"));
            wrong(&mut it, now, &at, 3 * number..3 * number + 3);
        }
        assert!(it.marks.len() <= REMEMBERED && it.lowered.len() <= REMEMBERED);
    }
}
