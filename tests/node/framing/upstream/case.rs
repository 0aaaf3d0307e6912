//! [`Case`]: one bad answer, how it is asked for, and what may become of it.

use super::raw_origin::{After, OBJECT, Play, TAG};
use crate::rig::rules::Mode;

/// How the bad answer is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    Get,
    Head,
    /// With this field.
    With(&'static str),
}

/// What the client must get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expect {
    /// A 503 of the node's own.
    Refused,
    /// This answer, whole. When it is kept, whoever asks next gets it, too.
    Given { status: u16, body: Vec<u8>, kept: bool },
    /// An answer of this status whose end never comes: its bytes are the first of these.
    Cut { status: u16, of: Vec<u8> },
    /// What is there once the origin is honest: the fault is mended before the client notices.
    Mended,
    /// One of these: what the origin does can arrive before or after what the node does.
    Either(Vec<Expect>),
}

/// One bad answer.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) asking: Asking,
    pub(super) mode: Mode,
    pub(super) play: Play,
    pub(super) expect: Expect,
    /// What the log calls the fault; empty when there is none to tell.
    pub(super) fault: &'static str,
    /// Fields that must not reach the client.
    pub(super) absent: &'static [&'static str],
    /// Fields that must.
    pub(super) present: &'static [&'static str],
    /// The connection of the bad answer must carry no other one.
    pub(super) is_last: bool,
}

impl Case {
    fn new(name: &str, bytes: impl Into<Vec<u8>>, expect: Expect, fault: &'static str) -> Self {
        let answers = vec![(bytes.into(), After::GoOn)];
        let play = Play { greeting: Vec::new(), answers, for_ever: true, late: Vec::new(), in_pieces: false };
        let (asking, mode) = (Asking::Get, Mode::Whole);
        Self { name: name.to_owned(), asking, mode, play, expect, fault, absent: &[], present: &[], is_last: false }
    }

    /// An answer of which nothing is used, however often it is given; the log calls the reason `fault`.
    pub(super) fn refused(name: &str, bytes: impl Into<Vec<u8>>, fault: &'static str) -> Self {
        Self::new(name, bytes, Expect::Refused, fault)
    }

    /// An answer that is not kept.
    pub(super) fn passed(name: &str, bytes: impl Into<Vec<u8>>, status: u16, body: &[u8]) -> Self {
        Self::new(name, bytes, Expect::Given { status, body: body.to_vec(), kept: false }, "")
    }

    /// An answer that is as good as others.
    pub(super) fn kept(name: &str, bytes: impl Into<Vec<u8>>, body: &[u8]) -> Self {
        Self::kept_as(name, bytes, 200, body)
    }

    /// The same of another status.
    pub(super) fn kept_as(name: &str, bytes: impl Into<Vec<u8>>, status: u16, body: &[u8]) -> Self {
        Self::new(name, bytes, Expect::Given { status, body: body.to_vec(), kept: true }, "")
    }

    /// An answer that is cut for the client as well, whose bytes are the first of `of`.
    pub(super) fn cut(name: &str, bytes: impl Into<Vec<u8>>, of: &[u8], fault: &'static str) -> Self {
        Self::new(name, bytes, Expect::Cut { status: 200, of: of.to_vec() }, fault)
    }

    /// An answer that breaks once: what is missing comes from the honest one.
    pub(super) fn mended(name: &str, bytes: impl Into<Vec<u8>>, fault: &'static str) -> Self {
        Self::new(name, bytes, Expect::Mended, fault).once()
    }

    /// A body that is cut after its first 1000 bytes, and what the origin says when it is asked for the rest of them.
    pub(super) fn joined(name: &str, rest: impl Into<Vec<u8>>, expect: Expect, fault: &'static str) -> Self {
        let first = ok_with(&format!("Content-Length: {}", OBJECT.len), &begin(1000));
        let mut case = Self::new(name, first, expect, fault).once().then(After::Close);
        case.play.answers.push((rest.into(), After::GoOn));
        case
    }

    /// The origin is honest after that.
    pub(super) fn once(mut self) -> Self {
        self.play.for_ever = false;
        self
    }

    /// What happens behind the last answer.
    pub(super) fn then(mut self, then: After) -> Self {
        self.play.answers.last_mut().into_iter().for_each(|(_, after)| *after = then);
        self
    }

    pub(super) fn greeting(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.play.greeting = bytes.into();
        self
    }

    pub(super) fn late(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.play.late = bytes.into();
        self
    }

    pub(super) fn asked(mut self, asking: Asking) -> Self {
        self.asking = asking;
        self
    }

    pub(super) fn ranged(mut self) -> Self {
        self.mode = Mode::Ranged;
        self
    }

    pub(super) fn without(mut self, absent: &'static [&'static str]) -> Self {
        self.absent = absent;
        self
    }

    pub(super) fn telling(mut self, present: &'static [&'static str]) -> Self {
        self.present = present;
        self
    }

    /// The status of an answer that is cut.
    pub(super) fn of_status(mut self, of: u16) -> Self {
        if let Expect::Cut { status, .. } = &mut self.expect {
            *status = of;
        }
        self
    }

    pub(super) fn last(mut self) -> Self {
        self.is_last = true;
        self
    }

    pub(super) fn or(mut self, other: Expect) -> Self {
        self.expect = match self.expect {
            Expect::Either(mut all) => {
                all.push(other);
                Expect::Either(all)
            }
            one => Expect::Either(vec![one, other]),
        };
        self
    }
}

/// A status line and fields that would have the answer kept and joined with what comes later, then `rest`: further fields,
/// the empty line and the body.
pub(super) fn status(line: &str, rest: &str) -> Vec<u8> {
    format!("{line}\r\nETag: {TAG}\r\nCache-Control: max-age=3600\r\n{rest}").into_bytes()
}

/// The same of a 200.
pub(super) fn ok(rest: &str) -> Vec<u8> {
    status("HTTP/1.1 200 OK", rest)
}

/// A 200 with `fields` and a body in bytes.
pub(super) fn ok_with(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = ok(&format!("{fields}\r\n\r\n"));
    bytes.extend_from_slice(body);
    bytes
}

/// The same, which must not be stored.
pub(super) fn unstored(fields: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nCache-Control: no-store\r\n{fields}\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// The first bytes of what the honest origin has.
pub(super) fn begin(len: u64) -> Vec<u8> {
    OBJECT.slice(0, len)
}

/// One chunk.
pub(super) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("{:x}\r\n", bytes.len()).into_bytes();
    text.extend_from_slice(bytes);
    text.extend_from_slice(b"\r\n");
    text
}

/// A whole answer that nobody may ever get.
pub(super) const POISON: &str = "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: 6\r\n\r\npoison";
