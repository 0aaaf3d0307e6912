//! [`Seen`]: what a store shows of everything that a story may have put into it, in plain values that two stores can be
//! compared by; and reading all of it, byte by byte.

use std::collections::{BTreeMap, BTreeSet};

use super::super::*;
use crate::content::{ByteRange, RangeSet};

/// Number of keys in a story.
pub(super) const KEYS: usize = 5;

/// The bodies of a story, by number; the number is in the entity tag.
pub(super) struct Library {
    contents: Vec<(Vec<u8>, Digest)>,
}

/// What is visible under one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeySeen {
    /// Complete answers, with the numbers of their bodies and the times of their responses: there is one at most.
    pub(super) current: Vec<(usize, u64)>,
    /// Numbers of older complete bodies.
    pub(super) older: BTreeSet<usize>,
    /// Bodies that are not complete, with their numbers and what is present.
    pub(super) partials: BTreeMap<u64, (usize, Vec<(u64, u64)>)>,
}

/// What is visible, by key.
pub(super) type Seen = Vec<KeySeen>;

impl KeySeen {
    /// Whether a complete body is among it.
    pub(super) fn shows(&self, content: usize) -> bool {
        self.older.contains(&content) || self.current.iter().any(|(current, _)| *current == content)
    }
}

impl Library {
    pub(super) fn new(seed: u64) -> Self {
        const LENGTHS: [usize; 9] =
            [700, 5_000, BLOCK, 3 * BLOCK + 11, 150_000, 300_000, 2 * BLOCK, 40_000, 5 * BLOCK + 1];
        let content = |(number, length): (usize, &usize)| {
            let bytes = body_of(*length, seed.wrapping_mul(31).wrapping_add(number as u64 + 1));
            let digest = Digest::of(&bytes);
            (bytes, digest)
        };
        Self { contents: LENGTHS.iter().enumerate().map(content).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.contents.len()
    }

    pub(super) fn bytes(&self, number: usize) -> &[u8] {
        &self.contents[number].0
    }

    pub(super) fn digest(&self, number: usize) -> Digest {
        self.contents[number].1
    }
}

/// Name of a key.
pub(super) fn key_name(number: usize) -> String {
    format!("k{number}")
}

/// The number of the body that an entry is about.
pub(super) fn content_of(entry: &Entry) -> usize {
    let tag = entry.record.headers[http::header::ETAG].to_str().unwrap();
    tag.trim_matches('"').parse().unwrap()
}

/// Looks at everything.
pub(super) async fn look(store: &Store) -> Seen {
    let mut seen = Vec::new();
    for number in 0..KEYS {
        let known = store.known(&key(&key_name(number))).await;
        let mut at_key = KeySeen::default();
        for entry in known.entries() {
            let content = content_of(entry);
            match (entry.partial(), entry.superseded) {
                (Some(partial), _) => {
                    let present = partial.present().iter().map(|range| (range.start(), range.end())).collect();
                    at_key.partials.insert(partial.id().0, (content, present));
                }
                (None, None) => at_key.current.push((content, entry.record.response_time.0)),
                (None, Some(_)) => drop(at_key.older.insert(content)),
            }
        }
        seen.push(at_key);
    }
    seen
}

/// Reads everything that a store shows. What cannot be read is left out of what is returned; a byte that is wrong, and a
/// complete body of another length or digest, is an error.
pub(super) async fn read_everything(store: &Store, library: &Library) -> Result<Seen, String> {
    let mut seen = Vec::new();
    for number in 0..KEYS {
        let known = store.known(&key(&key_name(number))).await;
        let mut at_key = KeySeen::default();
        for entry in known.entries() {
            let content = content_of(entry);
            let expected = library.bytes(content);
            let what = format!("k{number}, body {content}, {:?}", entry.record.body);
            let body = match (entry.partial(), store.body(entry).await) {
                (Some(partial), _) => Body::Partial(Arc::clone(partial)),
                (None, Ok(body)) => body,
                (None, Err(ReadError::Gone | ReadError::Damaged { .. })) => continue,
                (None, Err(error)) => return Err(format!("{what}: {error}")),
            };
            let readable = read_body(&body, expected).await.map_err(|error| format!("{what}: {error}"))?;
            match entry.partial() {
                Some(partial) => {
                    let present = readable.iter().map(|range| (range.start(), range.end())).collect();
                    at_key.partials.insert(partial.id().0, (content, present));
                }
                None => {
                    if entry.record.body != BodyRef::Blob(library.digest(content)) {
                        return Err(format!("{what}: another digest"));
                    }
                    if body.length() != Some(expected.len() as u64) {
                        return Err(format!("{what}: complete with {:?} bytes", body.length()));
                    }
                    if readable.total() != expected.len() as u64 {
                        continue;
                    }
                    match entry.superseded {
                        None => at_key.current.push((content, entry.record.response_time.0)),
                        Some(_) => drop(at_key.older.insert(content)),
                    }
                }
            }
        }
        seen.push(at_key);
    }
    for number in 0..library.len() {
        if let Some(body) = store.blob(library.digest(number)).await {
            read_body(&body, library.bytes(number)).await.map_err(|error| format!("by digest, {number}: {error}"))?;
        }
    }
    Ok(seen)
}

/// What of a body can be read.
async fn read_body(body: &Body, expected: &[u8]) -> Result<RangeSet, String> {
    let mut readable = RangeSet::new();
    let mut at = 0;
    while at < expected.len() as u64 {
        let next_block = (at / BLOCK as u64 + 1) * BLOCK as u64;
        match body.read(at, (next_block - at) as usize).await {
            Ok(piece) => {
                if !expected[at as usize..].starts_with(&piece) {
                    return Err(format!("wrong bytes from {at} on"));
                }
                readable.insert(ByteRange::new(at, at + piece.len() as u64).unwrap());
                at += piece.len() as u64;
            }
            Err(ReadError::Damaged { .. } | ReadError::Absent { .. } | ReadError::Gone) => at = next_block,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(readable)
}

/// Takes up every body that nobody writes and completes it: what was found is good enough to go on with.
pub(super) async fn complete_everything(store: &Store, library: &Library) -> Result<(), String> {
    for number in 0..KEYS {
        for entry in store.lookup(&key(&key_name(number))).await.iter() {
            let Some(mut writer) = store.resume(entry).await else { continue };
            let (content, id) = (content_of(entry), writer.partial().id());
            let bytes = library.bytes(content);
            while let Some(range) =
                ByteRange::whole(bytes.len() as u64).and_then(|whole| writer.partial().missing(whole).first().copied())
            {
                let at = writer.partial().write_position(range.start());
                if at != range.start() {
                    return Err(format!("{id}: missing from {} on, to be written from {at} on", range.start()));
                }
                let piece = Bytes::copy_from_slice(&bytes[at as usize..range.end() as usize]);
                writer.write(at, vec![piece]).await.map_err(|error| format!("{id}: {error}"))?;
            }
            match writer.complete(bytes.len() as u64).await {
                Ok(completed) if completed.digest == library.digest(content) => {}
                Err(CompleteError::Mismatch { actual, .. }) if actual == library.digest(content) => {}
                outcome => return Err(format!("{id}: completed as {outcome:?}")),
            }
        }
    }
    store.flush().await;
    Ok(())
}
