//! A message of a client and what must come of it.

/// One message. `{id}` in it is a word of its own in each run.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    /// What its answers are, in their order.
    pub(super) then: Vec<Then>,
    /// What becomes of the connection behind the answers.
    pub(super) after: After,
    /// How many `100 Continue` come before the answers.
    pub(super) continues: usize,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays for another request.
    Stays,
    Closes,
    /// It stays if the body that nobody wanted was there when it was looked for.
    Either,
}

/// What comes of a message.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// It is refused before it is understood, for a reason that `/metrics` has, and the connection closed.
    Refused(u16, &'static str),
    /// It is understood and answered by the cache itself; the reason stands in the access log.
    Answered(u16, &'static str),
    /// The origin gets it, and this is what it means.
    Forwarded(Meaning),
    /// Its chunks break when it has been understood, and the origin gets no end of it.
    Broken,
    /// It means this, and the answer to it is stored.
    Stored(Meaning),
    /// It ends before its end, and nobody takes it for whole.
    Cut,
}

/// What the origin must have understood.
#[derive(Debug, Clone)]
pub(super) struct Meaning {
    pub(super) method: &'static str,
    pub(super) host: &'static str,
    pub(super) target: String,
    pub(super) body: Vec<u8>,
    /// Status of the answer that reaches the client.
    pub(super) status: u16,
    /// Fields that must have come, with these values.
    pub(super) has: Vec<(&'static str, &'static [u8])>,
    /// Fields that must have come, with these values among others.
    pub(super) with: Vec<(&'static str, &'static [u8])>,
    /// Fields that must not have come.
    pub(super) lacks: Vec<&'static str>,
}

/// A message with no outcome yet.
pub(super) fn case(name: impl Into<String>, bytes: impl AsRef<[u8]>) -> Case {
    Case { name: name.into(), bytes: bytes.as_ref().to_vec(), then: Vec::new(), after: After::Stays, continues: 0 }
}

/// A message that begins with `GET /{id}` of the usual origin, has `fields` and ends its head.
pub(super) fn get(name: impl Into<String>, fields: impl AsRef<[u8]>) -> Case {
    with("GET", name, fields, b"")
}

/// A message that begins with `POST /{id}` of the usual origin, has `fields` and then `rest`.
pub(super) fn post(name: impl Into<String>, fields: impl AsRef<[u8]>, rest: impl AsRef<[u8]>) -> Case {
    with("POST", name, fields, rest)
}

fn with(method: &str, name: impl Into<String>, fields: impl AsRef<[u8]>, rest: impl AsRef<[u8]>) -> Case {
    let line = format!("{method} /{{id}} HTTP/1.1\r\nHost: o.example\r\n");
    case(name, [line.as_bytes(), fields.as_ref(), b"\r\n", rest.as_ref()].concat())
}

/// `text` with `id` for `{id}`.
pub(super) fn with_word(text: &[u8], id: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(4).position(|window| window == b"{id}") {
        message.extend_from_slice(&rest[..at]);
        message.extend_from_slice(id.as_bytes());
        rest = &rest[at + 4..];
    }
    message.extend_from_slice(rest);
    message
}

/// GET of `target` at the usual origin.
pub(super) fn means(target: &str) -> Meaning {
    Meaning::new("GET", target, b"")
}

/// POST of `body` to the usual target.
pub(super) fn posts(body: impl AsRef<[u8]>) -> Meaning {
    Meaning::new("POST", "/{id}", body)
}

impl Case {
    pub(super) fn refused(mut self, status: u16, reason: &'static str) -> Self {
        self.after = After::Closes;
        self.and(Then::Refused(status, reason))
    }

    /// A 400 closes the connection.
    pub(super) fn answered(mut self, status: u16, reason: &'static str) -> Self {
        if status == 400 {
            self.after = After::Closes;
        }
        self.and(Then::Answered(status, reason))
    }

    pub(super) fn forwarded(self, meaning: Meaning) -> Self {
        self.and(Then::Forwarded(meaning))
    }

    pub(super) fn broken(mut self) -> Self {
        self.after = After::Closes;
        self.and(Then::Broken)
    }

    pub(super) fn stored(self, meaning: Meaning) -> Self {
        self.and(Then::Stored(meaning))
    }

    pub(super) fn cut(mut self) -> Self {
        self.after = After::Closes;
        self.and(Then::Cut)
    }

    /// The connection ends behind the answers.
    pub(super) fn closes(mut self) -> Self {
        self.after = After::Closes;
        self
    }

    /// It has a body that is not read.
    pub(super) fn unread(mut self) -> Self {
        self.after = After::Either;
        self
    }

    /// The client is told to go on before it is answered.
    pub(super) fn continued(mut self) -> Self {
        self.continues += 1;
        self
    }

    fn and(mut self, then: Then) -> Self {
        self.then.push(then);
        self
    }

    /// The message with its word.
    pub(super) fn message(&self, id: &str) -> Vec<u8> {
        with_word(&self.bytes, id)
    }
    pub(super) fn is_cut(&self) -> bool {
        self.then.iter().any(|then| matches!(then, Then::Cut))
    }

    /// What the origin gets.
    pub(super) fn meanings(&self) -> impl Iterator<Item = &Meaning> {
        self.then.iter().filter_map(|then| match then {
            Then::Forwarded(meaning) => Some(meaning),
            _ => None,
        })
    }

    /// Whether the answer of this number is to HEAD.
    pub(super) fn is_to_head(&self, number: usize) -> bool {
        match self.then.get(number) {
            Some(Then::Forwarded(meaning) | Then::Stored(meaning)) => meaning.method == "HEAD",
            _ => number == 0 && self.bytes.starts_with(b"HEAD "),
        }
    }
}

impl Meaning {
    pub(super) fn new(method: &'static str, target: &str, body: impl AsRef<[u8]>) -> Self {
        let (target, body) = (target.to_owned(), body.as_ref().to_vec());
        let (has, with, lacks) = Default::default();
        Self { method, host: "o.example", target, body, status: 200, has, with, lacks }
    }

    /// Of another host.
    pub(super) fn at(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }

    /// The client gets another status than 200.
    pub(super) fn gives(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn has(mut self, name: &'static str, value: &'static [u8]) -> Self {
        self.has.push((name, value));
        self
    }

    pub(super) fn with(mut self, name: &'static str, value: &'static [u8]) -> Self {
        self.with.push((name, value));
        self
    }

    pub(super) fn lacks(mut self, names: &[&'static str]) -> Self {
        self.lacks.extend(names);
        self
    }
}
