//! [`Story`]: random operations on a real store while they are recorded, and what the store showed after each.

use tempfile::TempDir;

use super::super::*;
use super::Random;
use super::recording::Recording;
use super::seen::{KEYS, Library, Seen, content_of, key_name, look};
use crate::content::{ByteRange, PartialId};
use crate::store::fill_file::Pace;

/// Most bodies that are written at a time.
const WRITERS: usize = 3;

/// One operation.
pub(super) struct Moment {
    /// What was done, for people.
    pub(super) done: String,
    /// Number of recorded steps before it.
    pub(super) begin: usize,
    /// And after it.
    pub(super) end: usize,
    /// Whether the store said that everything before is durable.
    pub(super) durable: bool,
    /// The partial body that began.
    pub(super) born: Option<PartialId>,
    /// The partial body that became complete.
    pub(super) completed: Option<PartialId>,
    /// Whether blobs had to go for room.
    pub(super) evicted: bool,
    /// The body that came while others had to go for it: it may have gone itself, and come again.
    pub(super) came_again: Option<usize>,
    /// The body that has a wrong byte on the medium now.
    pub(super) damaged: Option<usize>,
    /// What the store showed afterwards.
    pub(super) seen: Seen,
}

/// All that happened.
pub(super) struct Story {
    pub(super) recording: Recording,
    pub(super) moments: Vec<Moment>,
    pub(super) library: Library,
    /// Holds the copies of the index; dropped last.
    _root: TempDir,
}

struct Writing {
    writer: PartialWriter,
    content: usize,
}

/// What an operation did besides.
#[derive(Default)]
struct Outcome {
    done: String,
    durable: bool,
    born: Option<PartialId>,
    completed: Option<PartialId>,
    content: Option<usize>,
    damaged: Option<usize>,
}

struct Teller {
    random: Random,
    settings: Settings,
    store: Option<Store>,
    writers: Vec<Writing>,
    library: Library,
    pace: Pace,
    time: u64,
}

/// In memory where there is such a place: the medium is a simulated one anyhow.
pub(super) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// Settings of a store of stories below `root`.
pub(super) fn settings_below(root: &Path, quota: u64) -> Settings {
    let mut settings = settings_in(root);
    settings.drives[0].quota = quota;
    settings
}

/// Opens a store and waits until it knows everything.
pub(super) async fn open(settings: &Settings) -> Result<Store, OpenError> {
    let store = Store::open(settings.clone(), Arc::new(Metrics::new().unwrap()))?;
    store.ready().await;
    while !store._running.recovering.lock().as_ref().is_none_or(thread::JoinHandle::is_finished) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    Ok(store)
}

impl Story {
    /// Tells the story with this number.
    pub(super) async fn tell(seed: u64) -> Self {
        let root = directory();
        let mut random = Random::new(seed);
        let quota = if random.chance(40) { (10 + random.below(20) as u64) * BLOCK as u64 } else { 1 << 30 };
        let recording = Recording::start(root.path(), &["drive", "state"], seed);
        let settings = settings_below(root.path(), quota);
        let sync_bytes = if random.chance(50) { 100_000 } else { 1 << 26 };
        let pace = Pace { sync_bytes, sync_time: std::time::Duration::from_secs(5), midstate_bytes: BLOCK as u64 };
        let library = Library::new(seed);
        let length = 15 + random.below(60);
        let mut teller = Teller { random, settings, store: None, writers: Vec::new(), library, pace, time: 10_000 };
        let mut moments: Vec<Moment> = Vec::new();
        for number in 0..length {
            let begin = if number == 0 { 0 } else { recording.len() };
            let evictions = teller.evictions();
            let outcome = if number == 0 { teller.reopen().await } else { teller.act(&recording).await };
            let end = recording.len();
            let Outcome { done, durable, born, completed, content, damaged } = outcome;
            let evicted = teller.evictions() != evictions;
            let came_again = content.filter(|_| evicted);
            let seen = look(teller.store()).await;
            moments.push(Moment { done, begin, end, durable, born, completed, evicted, came_again, damaged, seen });
        }
        teller.writers.clear();
        teller.store = None;
        Self { recording, moments, library: teller.library, _root: root }
    }
}

impl Teller {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn evictions(&self) -> u64 {
        self.store.as_ref().map_or(0, |store| store.inner.metrics.evictions.get())
    }

    async fn act(&mut self, recording: &Recording) -> Outcome {
        match self.random.below(100) {
            0..14 => self.begin().await,
            14..38 => self.write().await,
            38..48 => self.finish().await,
            48..56 => self.put().await,
            56..60 => self.leave(),
            60..66 => self.resume().await,
            66..69 => self.supersede().await,
            69..71 => self.discard().await,
            71..77 => self.update().await,
            77..81 => self.remove().await,
            81..84 => self.revive().await,
            84..92 => self.flush().await,
            92..95 => self.commit().await,
            95..97 => self.damage(recording).await,
            _ => self.reopen().await,
        }
    }

    fn new_record(&mut self, key: usize, content: usize) -> Record {
        self.time += 1;
        let length = Some(self.library.bytes(content).len() as u64).filter(|_| self.random.chance(70));
        let mut new = record(&key_name(key), length);
        let tag = HeaderValue::from_str(&format!("\"{content}\"")).unwrap();
        new.headers.insert(http::header::ETAG, tag);
        new.response_time = UnixMillis(self.time);
        new.expected = match self.random.below(10) {
            0 => Some(ExpectedDigest::Rule(Digest::of(b"something else"))),
            1..4 => Some(ExpectedDigest::Rule(self.library.digest(content))),
            _ => None,
        };
        new
    }

    async fn create(&mut self) -> Option<(Writing, String)> {
        let (key, content) = (self.random.below(KEYS), self.random.below(self.library.len()));
        let record = self.new_record(key, content);
        let (room, first) = (record.length.unwrap_or(0), self.first_bytes(content));
        let writer = self.store().begin(record, room, first).await.ok()?.show(true);
        writer.partial().core.lock().pace = self.pace;
        let text = format!("k{key}, body {content} as {}", writer.partial().id());
        Some((Writing { writer, content }, text))
    }

    /// What is there of a body when it begins: nothing, all of it, or a part.
    fn first_bytes(&mut self, content: usize) -> FirstBytes {
        let bytes = self.library.bytes(content).to_vec();
        let at = if self.random.chance(30) { self.random.below(bytes.len().div_ceil(BLOCK)) * BLOCK } else { 0 };
        let length = match self.random.below(3) {
            0 => return FirstBytes::default(),
            1 => bytes.len() - at,
            _ => 1 + self.random.below(bytes.len() - at),
        };
        FirstBytes { at: at as u64, bytes: vec![Bytes::copy_from_slice(&bytes[at..at + length])], until: None }
    }

    async fn begin(&mut self) -> Outcome {
        if self.writers.len() >= WRITERS {
            return self.leave();
        }
        match self.create().await {
            Some((writing, text)) => {
                self.writers.push(writing);
                done(format!("begin {text}"))
            }
            None => done("no room".to_owned()),
        }
    }

    /// Writes the next piece of a body, or one further on.
    async fn write(&mut self) -> Outcome {
        if self.writers.is_empty() {
            return self.begin().await;
        }
        let number = self.random.below(self.writers.len());
        let Writing { writer, content } = &mut self.writers[number];
        let bytes = self.library.bytes(*content);
        let missing = writer.partial().missing(ByteRange::whole(bytes.len() as u64).unwrap());
        let Some(range) = self.random.one_of(&missing) else { return done("nothing to write".to_owned()) };
        let blocks = range.last() / BLOCK as u64 - range.start() / BLOCK as u64;
        let further = (range.start() / BLOCK as u64 + 1 + self.random.below(blocks as usize) as u64) * BLOCK as u64;
        let at = if blocks > 0 && self.random.chance(30) { further } else { range.start() };
        let end = range.end().min(at + 1 + self.random.below(120_000) as u64);
        let text = format!("write {} {at}..{end}", writer.partial().id());
        let piece = Bytes::copy_from_slice(&bytes[at as usize..end as usize]);
        match writer.write(at, vec![piece]).await {
            Ok(()) => done(text),
            Err(error) => {
                drop(self.writers.remove(number));
                done(format!("{text}: {error}"))
            }
        }
    }

    async fn finish(&mut self) -> Outcome {
        if self.writers.is_empty() {
            return self.put().await;
        }
        let writing = self.writers.remove(self.random.below(self.writers.len()));
        self.complete(writing, "finish").await
    }

    /// All of a body at once.
    async fn put(&mut self) -> Outcome {
        match self.create().await {
            Some((writing, text)) => {
                let born = Some(writing.writer.partial().id());
                Outcome { born, ..self.complete(writing, &format!("put {text}:")).await }
            }
            None => done("no room".to_owned()),
        }
    }

    async fn complete(&mut self, writing: Writing, text: &str) -> Outcome {
        let Writing { mut writer, content } = writing;
        let (bytes, id) = (self.library.bytes(content), writer.partial().id());
        for range in writer.partial().missing(ByteRange::whole(bytes.len() as u64).unwrap()) {
            let piece = Bytes::copy_from_slice(&bytes[range.start() as usize..range.end() as usize]);
            if let Err(error) = writer.write(range.start(), vec![piece]).await {
                return done(format!("{text} {id}: {error}"));
            }
        }
        match writer.complete(bytes.len() as u64).await {
            Ok(completed) => {
                assert_eq!(completed.digest, self.library.digest(content));
                let twice = if completed.duplicate { ", a duplicate" } else { "" };
                Outcome {
                    done: format!("{text} {id}{twice}"),
                    completed: Some(id),
                    content: Some(content),
                    ..Outcome::default()
                }
            }
            Err(error) => done(format!("{text} {id}: {error}")),
        }
    }

    fn leave(&mut self) -> Outcome {
        match self.writers.pop() {
            Some(writing) => done(format!("leave {}", writing.writer.partial().id())),
            None => done("nobody writes".to_owned()),
        }
    }

    async fn resume(&mut self) -> Outcome {
        let Some(entry) = self.any_entry(|entry| entry.partial().is_some()).await else { return self.put().await };
        match self.store().resume(&entry).await {
            Some(writer) => {
                writer.partial().core.lock().pace = self.pace;
                let text = format!("resume {}", writer.partial().id());
                self.writers.push(Writing { writer, content: content_of(&entry) });
                if self.writers.len() > WRITERS {
                    drop(self.writers.remove(0));
                }
                done(text)
            }
            None => done("resume nothing".to_owned()),
        }
    }

    async fn supersede(&mut self) -> Outcome {
        let Some(Writing { writer, .. }) = self.writers.pop() else { return self.begin().await };
        let text = format!("supersede {}", writer.partial().id());
        writer.supersede().await;
        done(text)
    }

    async fn discard(&mut self) -> Outcome {
        let Some(Writing { writer, .. }) = self.writers.pop() else { return self.begin().await };
        let id = writer.partial().id();
        if self.random.chance(50) {
            writer.discard().await;
            return done(format!("discard {id}"));
        }
        writer.reject("the story says so".to_owned()).await;
        done(format!("reject {id}"))
    }

    async fn any_entry(&mut self, is_meant: impl Fn(&Entry) -> bool) -> Option<Arc<Entry>> {
        let mut entries = Vec::new();
        for number in 0..KEYS {
            let known = self.store().known(&key(&key_name(number))).await;
            entries.extend(known.entries().filter(|entry| is_meant(entry)).cloned());
        }
        self.random.one_of(&entries).cloned()
    }

    async fn update(&mut self) -> Outcome {
        let Some(entry) = self.any_entry(|_| true).await else { return self.put().await };
        self.time += 1;
        let newer = Record { response_time: UnixMillis(self.time), ..entry.record.clone() };
        self.store().update(&entry, newer);
        done(format!("update {} {:?}", entry.record.key, entry.record.body))
    }

    async fn remove(&mut self) -> Outcome {
        let Some(entry) = self.any_entry(|_| true).await else { return self.put().await };
        self.store().remove(&entry);
        done(format!("remove {} {:?}", entry.record.key, entry.record.body))
    }

    async fn revive(&mut self) -> Outcome {
        let Some(entry) = self.any_entry(|entry| entry.superseded.is_some()).await else { return self.put().await };
        self.time += 1;
        let newer = Record { response_time: UnixMillis(self.time), ..entry.record.clone() };
        let revived = self.store().revive(&entry, newer).is_some();
        done(format!("revive {} {:?}: {revived}", entry.record.key, entry.record.body))
    }

    async fn flush(&mut self) -> Outcome {
        self.store().flush().await;
        Outcome { done: "flush".to_owned(), durable: true, ..Outcome::default() }
    }

    async fn commit(&mut self) -> Outcome {
        let _ = self.store().inner.drives[0].queue.barrier().await;
        done("commit".to_owned())
    }

    /// Damages a body on the medium and lets the store find out.
    async fn damage(&mut self, recording: &Recording) -> Outcome {
        let is_blob = |entry: &Entry| entry.partial().is_none();
        let Some(entry) = self.any_entry(is_blob).await else { return self.put().await };
        let content = content_of(&entry);
        let name = format!("drive/{}", layout::blob(&self.library.digest(content)));
        let offset = self.random.below(self.library.bytes(content).len()) as u64;
        if !recording.damage(&name, offset) {
            return done("nothing to damage".to_owned());
        }
        self.reopen().await;
        if let Ok(body) = self.store().body(&entry).await
            && self.random.chance(70)
        {
            // Whatever it says: this is for the store to find out.
            let _ = body.read(offset, 1).await;
        }
        Outcome { done: format!("damage body {content} at {offset}"), damaged: Some(content), ..Outcome::default() }
    }

    async fn reopen(&mut self) -> Outcome {
        self.writers.clear();
        drop(self.store.take());
        self.store = Some(open(&self.settings).await.unwrap());
        done("open".to_owned())
    }
}

fn done(done: String) -> Outcome {
    Outcome { done, ..Outcome::default() }
}
