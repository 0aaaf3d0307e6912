//! [`ReadyAnswers`]: whole hits, kept for who asks again in the same words. Most devices of a site run the same software and
//! so ask for a file in the same words, byte for byte; what was made of them once need not be made again.
//!
//! Only such answers are kept as depend on nothing but the words, the stored response and its age. Kept are their fields,
//! which the ordinary way made, never a decision of its own: when what is stored under the key changes it is looked up
//! whether the answer still holds, and when its lifetime is over, its body gone, or anything else in doubt, the request
//! goes the ordinary way. Ranges, conditions and large bodies are not kept; writing to the socket is `wire::direct`'s.

use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::header::{AGE, CONTENT_LENGTH, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE};
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONNECTION, EXPECT, PRAGMA, RANGE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, Method, Response, StatusCode, Version as HttpVersion};
use ipnet::IpNet;

use super::account::{Account, Asked, Books};
use super::body::SegmentBody;
use super::limits::RequestLimit;
use super::ready_table::Table;
use super::respond::CACHE_STATUS;
use super::wire::{Content, Direct, Recall, Recalled, TURN, Words};
use crate::clock;
use crate::content::{CacheKey, UnixMillis, Version};
use crate::decide::{CacheStatus, Freshness};
use crate::store::{BlobHandle, Body, Entry, Piece, Store, Variants};
use crate::telemetry::RequestResult;

/// Memory for answers, in bytes, roughly.
const ROOM: usize = 32 * 1024 * 1024;
/// Memory of an answer beside its texts, in bytes, what is known of its blob included.
const OVERHEAD: usize = 1024;
/// Longest head that is kept. Those of update agents and of apt have 150 to 900 bytes.
const LONGEST_HEAD: usize = 2048;

/// The store is told no more often that what is kept is still asked for, in seconds.
const TELL_AFTER: u64 = 8;

/// Memory in which most fields have room while they are put together, in bytes.
const USUAL_FIELDS: usize = 1024;

/// The end of the last field and of the head.
const LAST: &[u8] = b"\r\n\r\n";

/// Fields by which a request asks for more than the stored response, or for another one as time goes by.
const NOT_PLAIN: [HeaderName; 13] = [
    RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    IF_RANGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    PRAGMA,
    EXPECT,
    UPGRADE,
    TRANSFER_ENCODING,
    HeaderName::from_static("want-repr-digest"),
];

/// The answers, by the heads of their requests.
pub(super) struct ReadyAnswers {
    answers: Table<Ready>,
    hasher: RandomState,
    store: Store,
    books: Arc<Books>,
    /// What stands between the age and the lifetime.
    between: Vec<u8>,
    pseudonym: Arc<str>,
    trusted_proxies: Vec<IpNet>,
}

/// What the ordinary way knows of an answer that should be kept.
pub(super) struct Plan {
    pub(super) wish: Wish,
    pub(super) entry: Arc<Entry>,
    /// Everything stored under the key, among it the entry.
    pub(super) variants: Variants,
    /// At the time of the request.
    pub(super) freshness: Freshness,
    pub(super) now: UnixMillis,
}

/// A request whose answer should be kept.
pub(super) struct Wish {
    words: Bytes,
    /// [`Store::generation`] before anything was looked up.
    generation: u64,
}

/// One answer. It keeps nothing in memory that the store would let go, but for a small body.
struct Ready {
    text: Text,
    key: CacheKey,
    version: Version,
    /// What was stored under the key.
    variants: Weak<[Arc<Entry>]>,
    /// [`Store::generation`] when that was looked up last.
    generation: AtomicU64,
    made: UnixMillis,
    freshness: Freshness,
    asked: Arc<Asked>,
    length: u64,
    handle: BlobHandle,
    /// The content, if it is small.
    content: Option<Bytes>,
    /// When the store was told last that it is asked for, in seconds of the wall clock.
    told: AtomicU64,
}

/// The texts of an answer, one behind the other.
struct Text {
    all: Box<[u8]>,
    /// The words of its requests end here,
    fields: usize,
    /// and here the status line and the fields up to the value of `Age`; what follows the lifetime is the rest.
    end: usize,
}

/// The way past the service, with its bounds.
pub(super) struct Shortcut {
    answers: Arc<ReadyAnswers>,
    limit: RequestLimit,
}

impl ReadyAnswers {
    pub(super) fn new(store: Store, books: Arc<Books>, pseudonym: Arc<str>, trusted_proxies: Vec<IpNet>) -> Self {
        Self {
            answers: Table::new(ROOM, Ready::weight),
            hasher: RandomState::default(),
            store,
            books,
            between: between(&pseudonym),
            pseudonym,
            trusted_proxies,
        }
    }

    /// Whether the answer to `request` should be kept, as far as the request tells.
    pub(super) fn wish(&self, request: &Parts, key: &CacheKey) -> Option<Wish> {
        let words = request.extensions.get::<Words>()?;
        let plain = request.method == Method::GET
            && request.version == HttpVersion::HTTP_11
            && !NOT_PLAIN.iter().any(|name| request.headers.contains_key(name))
            && request
                .headers
                .get_all(CONNECTION)
                .iter()
                .all(|value| value.as_bytes().eq_ignore_ascii_case(b"keep-alive"));
        plain.then(|| Wish { words: words.0.clone(), generation: self.store.generation(key) })
    }

    /// Keeps the answer that is `response`, if it may be given again.
    pub(super) fn keep(&self, plan: Plan, response: &Response<SegmentBody>, asked: &Arc<Asked>) {
        let Plan { wish, entry, variants, freshness, now } = plan;
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let Some(length) = length.filter(|length| (1..=TURN).contains(length)) else { return };
        let known_age = freshness.age.is_some() && now >= entry.record.response_time;
        if response.status() != StatusCode::OK || entry.record.token_protected || !known_age {
            return;
        }
        let content = match self.store.body_hot(&entry) {
            Some(Body::Memory(bytes)) if bytes.len() as u64 == length => Some(bytes),
            Some(Body::Blob(blob)) if blob.length() == length => None,
            _ => return,
        };
        let Some(end) = end(response, &self.pseudonym) else { return };
        let Some(handle) = self.store.handle(&entry) else { return };
        let ready = Ready {
            text: Text::new(&wish.words, &fields(response), &end),
            key: entry.record.key.clone(),
            version: entry.version(),
            variants: Arc::downgrade(&variants),
            generation: AtomicU64::new(wish.generation),
            made: now,
            freshness,
            asked: Arc::clone(asked),
            length,
            handle,
            content,
            told: AtomicU64::new(now.as_secs()),
        };
        self.answers.insert(self.hasher.hash_one(ready.text.words()), Arc::new(ready));
    }

    /// Whether what is stored under the key is what it was.
    fn holds(&self, ready: &Ready) -> bool {
        let generation = self.store.generation(&ready.key);
        if ready.generation.load(Ordering::Acquire) == generation {
            return true;
        }
        // The weak one keeps its place from being taken by another, so that one place is one set.
        let is_same = |now: Variants| std::ptr::addr_eq(Arc::as_ptr(&now), ready.variants.as_ptr());
        let holds = self.store.lookup_hot(&ready.key).is_some_and(is_same);
        if holds {
            ready.generation.store(generation, Ordering::Release);
        }
        holds
    }

    /// The content, if all of it can be had now.
    fn content(&self, ready: &Ready, now: UnixMillis) -> Option<Content> {
        let told = ready.told.load(Ordering::Relaxed);
        if now.as_secs().abs_diff(told) >= TELL_AFTER {
            ready.told.store(now.as_secs(), Ordering::Relaxed);
            self.store.keep_warm(&ready.handle);
        }
        let content = match &ready.content {
            Some(_) if ready.handle.is_gone() => return None,
            Some(bytes) => Content::Bytes(bytes.clone()),
            None => match self.store.open_now(&ready.handle)?.piece_now(0, ready.length).ok()?? {
                Piece::Bytes(bytes) => Content::Bytes(bytes),
                Piece::Window(window) => Content::Window(window),
            },
        };
        (content.len() == ready.length).then_some(content)
    }

    fn answer(&self, ready: &Ready, limit: &RequestLimit, peer: SocketAddr, arrived: Instant) -> Option<Direct> {
        let time = SystemTime::now();
        let now = UnixMillis::from(clock::now());
        if now < ready.made {
            return None;
        }
        let freshness = ready.freshness.later(now.since(ready.made));
        let age = freshness.age.filter(|_| freshness.is_fresh() && freshness.ttl() >= 0)?;
        if !self.holds(ready) {
            return None;
        }
        let content = self.content(ready, now)?;
        let permit = limit.admit()?;
        let client = peer.ip();
        let gift = self.store.give_now(client, &ready.key, &ready.version)?;
        let mut account = Account::again(&self.books, client, Arc::clone(&ready.asked), arrived, time);
        account.answered(StatusCode::OK.as_u16(), RequestResult::Hit);
        account.gives(Some(gift), Some(ready.length));
        account.admitted(permit);
        self.books.metrics.ready_answers.inc();
        let head = ready.head(age, freshness.ttl(), &self.between);
        Some(Direct { head, content, receipt: Arc::new(account) })
    }
}

impl Ready {
    /// Status line and fields as of now.
    fn head(&self, age: Duration, ttl: i64, between: &[u8]) -> Vec<u8> {
        let (fields, end) = (self.text.fields(), self.text.end());
        let mut head = Vec::with_capacity(fields.len() + between.len() + end.len() + 44);
        head.extend_from_slice(fields);
        push_number(&mut head, age.as_secs());
        head.extend_from_slice(between);
        push_number(&mut head, ttl.unsigned_abs());
        head.extend_from_slice(end);
        head
    }

    /// Memory in bytes, roughly.
    fn weight(&self) -> usize {
        self.text.all.len() + self.content.as_ref().map_or(0, Bytes::len) + OVERHEAD
    }
}

impl Text {
    fn new(words: &[u8], fields: &[u8], end: &[u8]) -> Self {
        let of_fields = words.len();
        Self { all: [words, fields, end].concat().into(), fields: of_fields, end: of_fields + fields.len() }
    }

    fn words(&self) -> &[u8] {
        self.all.get(..self.fields).unwrap_or_default()
    }

    fn fields(&self) -> &[u8] {
        self.all.get(self.fields..self.end).unwrap_or_default()
    }

    fn end(&self) -> &[u8] {
        self.all.get(self.end..).unwrap_or_default()
    }
}

impl Shortcut {
    /// To `answers`, for as many requests as `limit` lets in.
    pub(super) fn new(answers: Arc<ReadyAnswers>, limit: RequestLimit) -> Self {
        Self { answers, limit }
    }
}

impl Recall for Shortcut {
    fn recall(&self, head: &[u8], peer: SocketAddr, arrived: Instant) -> Recalled {
        let answers = &*self.answers;
        // Who is served for whom is for the ordinary way to find out.
        if head.len() > LONGEST_HEAD || answers.trusted_proxies.iter().any(|network| network.contains(&peer.ip())) {
            return Recalled::Unknown;
        }
        let hash = answers.hasher.hash_one(head);
        match answers.answers.get(hash).filter(|ready| ready.text.words() == head) {
            Some(ready) => match answers.answer(&ready, &self.limit, peer, arrived) {
                Some(direct) => Recalled::Answer(direct),
                None => Recalled::Wanted,
            },
            None if answers.answers.hear(hash) => Recalled::Wanted,
            None => Recalled::Unknown,
        }
    }
}

/// Status line and fields of `response` as hyper writes them, without `Cache-Status` of ours, up to the value of `Age`.
fn fields(response: &Response<SegmentBody>) -> Vec<u8> {
    let mut text = Vec::with_capacity(USUAL_FIELDS);
    text.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    let own = response.headers().get_all(CACHE_STATUS).iter().count().saturating_sub(1);
    let mut marks = 0;
    for (name, value) in response.headers() {
        // Of several such lines the last is ours.
        if name == CACHE_STATUS {
            marks += 1;
            if marks > own {
                continue;
            }
        }
        if name != AGE {
            push_field(&mut text, name, value.as_bytes());
        }
    }
    push_field(&mut text, &AGE, b"");
    text.truncate(text.len().saturating_sub(2));
    text
}

/// The end of the `Age` field, and `Cache-Status` up to the lifetime.
fn between(pseudonym: &str) -> Vec<u8> {
    let mut text = b"\r\n".to_vec();
    push_field(&mut text, &CACHE_STATUS, hit_until_lifetime(pseudonym).as_bytes());
    text.truncate(text.len().saturating_sub(2));
    text
}

fn hit_until_lifetime(pseudonym: &str) -> String {
    CacheStatus::hit().with_ttl(0).render(pseudonym).trim_end_matches('0').to_owned()
}

/// What follows the lifetime in `response`; `None` when it is not a hit with one.
fn end(response: &Response<SegmentBody>, pseudonym: &str) -> Option<Vec<u8>> {
    let own = response.headers().get_all(CACHE_STATUS).iter().next_back()?.as_bytes();
    let lifetime = own.strip_prefix(hit_until_lifetime(pseudonym).as_bytes())?;
    let digits = lifetime.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let rest = lifetime.get(digits..).filter(|_| digits > 0)?;
    Some([rest, LAST].concat())
}

fn push_number(text: &mut Vec<u8>, number: u64) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Names are written in Title-Case: the Delivery Optimization agent looks for `Content-Length` in this spelling.
pub(super) fn push_field(text: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let mut begins = true;
    for byte in name.as_str().bytes() {
        text.push(if begins { byte.to_ascii_uppercase() } else { byte });
        begins = byte == b'-';
    }
    text.extend_from_slice(b": ");
    text.extend_from_slice(value);
    text.extend_from_slice(b"\r\n");
}

impl std::fmt::Debug for Shortcut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shortcut").field("bytes", &self.answers.answers.weight()).finish_non_exhaustive()
    }
}
