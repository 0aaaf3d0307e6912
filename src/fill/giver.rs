//! [`Giver`]: who gave the bytes of a body, so that wrong ones are laid to whom they came from and to nobody else; and
//! [`Answerable`], the same for a body that is only passed on.

use crate::upstream::{Source, Subject, Upstream};

/// Who gave the bytes of one body.
#[derive(Debug, Clone, Default)]
pub(super) struct Giver {
    /// Who gave the first bytes of this fill, and said what they are.
    first: Option<Source>,
    /// Others gave some, too, or some were there before.
    is_mixed: bool,
}

/// Who answers for a body that is passed on.
pub struct Answerable {
    pub(super) upstream: Upstream,
    pub(super) source: Source,
    pub(super) subject: Subject,
}

impl Answerable {
    /// The body is not what it should be.
    pub fn gave_wrong(&self) {
        self.upstream.gave_wrong(&self.source, self.subject);
    }
}

impl Giver {
    /// Of a body of which bytes are there whose giver is not known.
    pub(super) fn of_a_rest() -> Self {
        Self { first: None, is_mixed: true }
    }

    /// It alone gave what is wrong.
    pub(super) fn alone(source: Source) -> Self {
        Self { first: Some(source), is_mixed: false }
    }

    /// Some are going to come from `source`.
    pub(super) fn note(&mut self, source: &Source) {
        match &self.first {
            None => self.first = Some(source.clone()),
            Some(first) => self.is_mixed |= first != source,
        }
    }

    /// Whom to ask last for the same.
    pub(super) fn first(&self) -> Option<&Source> {
        self.first.as_ref()
    }

    /// Whose fault it is if they are wrong.
    pub(super) fn only(&self) -> Option<&Source> {
        self.first.as_ref().filter(|_| !self.is_mixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::{Origin, Scheme};

    fn source(host: &str) -> Source {
        Source::origin(Origin { scheme: Scheme::Http, host: host.into(), port: 80 }, None, false)
    }

    #[test]
    fn only_who_gave_all_is_at_fault() {
        let (one, other) = (source("one"), source("other"));
        let mut giver = Giver::default();
        assert_eq!((giver.first(), giver.only()), (None, None));
        giver.note(&one);
        giver.note(&one);
        assert_eq!((giver.first(), giver.only()), (Some(&one), Some(&one)));
        giver.note(&other);
        giver.note(&one);
        assert_eq!((giver.first(), giver.only()), (Some(&one), None));
        let mut rest = Giver::of_a_rest();
        rest.note(&one);
        assert_eq!((rest.first(), rest.only()), (Some(&one), None));
    }
}
