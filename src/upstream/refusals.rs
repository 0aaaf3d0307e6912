//! Parents that refuse whatever they are asked for: such a one is up, and yet nothing comes from it. Mostly it does not
//! allow this cache. Pure; what is said of them, and where, is decided elsewhere.

use std::collections::HashMap;

use http::StatusCode;

use super::error::FetchError;
use super::plan::Source;

/// So many refusals in a row, whatever was asked for, are no matter of single contents.
const SEVERAL: u32 = 8;

/// Refusals of each parent since it has answered last. As many as there are parents.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since_an_answer: HashMap<Source, (u32, StatusCode)>,
}

impl Refusals {
    /// What a request of `source` came to. A fault of the way to it says nothing of whom it allows.
    pub(super) fn note<T>(&mut self, source: &Source, result: &Result<T, FetchError>) {
        match result {
            _ if source.parent.is_none() => {}
            Ok(_) => drop(self.since_an_answer.remove(source)),
            Err(FetchError::MiddlemanRefused { status, .. }) => {
                let (count, last) = self.since_an_answer.entry(source.clone()).or_insert((0, *status));
                (*count, *last) = (count.saturating_add(1), *status);
            }
            Err(_) => {}
        }
    }

    /// Those that refuse everything, and how.
    pub(super) fn of_all(&self) -> impl Iterator<Item = FetchError> {
        let those = self.since_an_answer.iter().filter(|(_, (count, _))| *count >= SEVERAL);
        those.map(|(source, (_, status))| FetchError::MiddlemanRefused { host: source.to_string(), status: *status })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::ParentKind;
    use super::*;
    use crate::content::{Origin, Scheme};

    fn refused() -> Result<(), FetchError> {
        Err(FetchError::MiddlemanRefused { host: "x".into(), status: StatusCode::FORBIDDEN })
    }

    #[test]
    fn a_parent_that_refuses_several_in_a_row_refuses_all_until_it_answers() {
        let origin = Source::origin(Origin { scheme: Scheme::Http, host: "l4".into(), port: 80 }, None, false);
        let parent = Source { parent: Some(ParentKind::ConnectedCache), ..origin.clone() };
        let mut it = Refusals::default();
        for number in 0..SEVERAL {
            assert_eq!(it.of_all().count(), 0, "{number}");
            it.note(&parent, &refused());
            it.note(&parent, &Err::<(), _>(FetchError::Disconnected { host: "l4".into() }));
            it.note(&origin, &refused());
        }
        let told: Vec<String> = it.of_all().map(|error| error.to_string()).collect();
        assert!(told.len() == 1 && told[0].contains("parent http://l4 refuses to get it: 403"), "{told:?}");
        it.note(&parent, &Ok(()));
        assert_eq!(it.of_all().count(), 0);
        it.note(&parent, &refused());
        assert_eq!(it.of_all().count(), 0, "it counts anew");
    }
}
