//! Parents that refuse whatever they are asked for: such a one is up, and yet nothing comes from it. Mostly it does not
//! allow this cache. Pure; what is said of them, and where, is decided elsewhere.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, Hash, RandomState};

use http::StatusCode;

use super::error::FetchError;
use super::plan::Source;

/// So many different things refused in a row are no matter of single contents.
const SEVERAL: usize = 8;

/// Refusals of each parent since it has answered last. As many as there are parents.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since_an_answer: HashMap<Source, Series>,
    hasher: RandomState,
}

/// Refusals in a row.
#[derive(Debug, Default)]
struct Series {
    /// Of what, up to [`SEVERAL`].
    contents: HashSet<u64>,
    /// How the last one was worded.
    status: StatusCode,
    has_no_rule: bool,
}

impl Refusals {
    /// What a request of `source` came to. A fault of the way to it says nothing of whom it allows.
    pub(super) fn note<T>(&mut self, source: &Source, asked: impl Hash, result: &Result<T, FetchError>) {
        match result {
            _ if source.parent.is_none() => {}
            Ok(_) => drop(self.since_an_answer.remove(source)),
            // A circle and a page of somebody else's are no matter of whom it allows.
            Err(FetchError::MiddlemanRefused { status, has_no_rule, .. })
                if status.is_client_error() || *status == StatusCode::HTTP_VERSION_NOT_SUPPORTED =>
            {
                let series = self.since_an_answer.entry(source.clone()).or_default();
                (series.status, series.has_no_rule) = (*status, *has_no_rule);
                if series.contents.len() < SEVERAL {
                    series.contents.insert(self.hasher.hash_one(asked));
                }
            }
            Err(_) => {}
        }
    }

    /// Those that refuse everything, and how.
    pub(super) fn of_all(&self) -> impl Iterator<Item = FetchError> {
        let those = self.since_an_answer.iter().filter(|(_, series)| series.contents.len() >= SEVERAL);
        those.map(|(source, series)| FetchError::MiddlemanRefused {
            host: source.to_string(),
            status: series.status,
            has_no_rule: series.has_no_rule,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::ParentKind;
    use super::*;
    use crate::content::{Origin, Scheme};

    fn refused() -> Result<(), FetchError> {
        Err(FetchError::MiddlemanRefused { host: "x".into(), status: StatusCode::FORBIDDEN, has_no_rule: false })
    }

    #[test]
    fn a_parent_that_refuses_several_in_a_row_refuses_all_until_it_answers() {
        let origin = Source::origin(Origin { scheme: Scheme::Http, host: "l4".into(), port: 80 }, None, false);
        let parent = Source { parent: Some(ParentKind::ConnectedCache), ..origin.clone() };
        let mut it = Refusals::default();
        for number in 0..SEVERAL {
            assert_eq!(it.of_all().count(), 0, "{number}");
            it.note(&parent, number, &refused());
            it.note(&parent, number, &refused());
            it.note(&parent, number, &Err::<(), _>(FetchError::Disconnected { host: "l4".into() }));
            it.note(&origin, number, &refused());
        }
        let told: Vec<String> = it.of_all().map(|error| error.to_string()).collect();
        assert!(told.len() == 1 && told[0].contains("parent http://l4 refuses to get it: 403"), "{told:?}");
        it.note(&parent, 0, &Ok(()));
        assert_eq!(it.of_all().count(), 0);
        it.note(&parent, 0, &refused());
        assert_eq!(it.of_all().count(), 0, "it counts anew");
    }
}
