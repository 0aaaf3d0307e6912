//! What is done about each bad answer: a client asks for it, others ask for honest content around it, then for what is there
//! once the origin is honest.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::HONEST;
use super::case::{Asking, Case, Expect};
use super::raw_origin::{BAD, GOOD, OBJECT, OTHER, RawOrigin};
use super::strict::{Heard, Strict};
use crate::rig::pattern::Pattern;

/// A source that was cut may be left alone for a while.
const COMES_BACK: Duration = Duration::from_secs(15);
/// What a client is sent before an answer is bounded.
const MOST_INTERIMS: usize = 500;
/// Of several versions that a cache has, the condition tells which one is meant.
const PART: &str = "Range: bytes=500-2499\r\nIf-Range: \"object\"";
const END: &str = "Range: bytes=-100\r\nIf-Range: \"object\"";
const PAUSE: Duration = Duration::from_millis(50);

/// One case at one node.
pub(super) struct Story<'a> {
    pub(super) node: SocketAddr,
    pub(super) case: &'a Case,
    pub(super) origin: &'a RawOrigin,
    pub(super) host: String,
}

type Told<T> = Result<T, String>;

impl Story<'_> {
    /// Tells the story.
    ///
    /// # Errors
    /// What went wrong.
    pub(super) async fn tell(&self) -> Told<()> {
        let mut connection = Strict::open(self.node).await;
        let heard = connection.ask(&self.request(BAD)).await?;
        let kept = self.judge(&heard)?;
        if !self.case.play.late.is_empty() {
            self.origin.be_late().await;
        }
        let is_cut = heard.is_cut;
        if connection.is_over != is_cut {
            return Err("the connection ends with its answer".to_owned());
        }
        // On the same connection, if there is one, and on the same source.
        if !is_cut {
            let good = connection.ask(&self.plain(GOOD)).await.map_err(|why| format!("the next answer: {why}"))?;
            self.good(&good, "the next answer")?;
        }
        let mut other = Strict::open(self.node).await;
        self.good(&other.ask(&self.plain(GOOD)).await?, "another connection")?;
        self.untouched(HONEST, GOOD, OTHER, "another host").await?;
        let cached = other.ask(&self.with(BAD, "Cache-Control: only-if-cached")).await?;
        self.only_if_cached(&cached, &heard, kept.is_some())?;
        let is_last = self.case.is_last || is_cut && self.case.play.for_ever;
        if is_last && self.origin.is_used_again() {
            return Err("the connection went on behind the bad answer".to_owned());
        }
        self.origin.be_honest();
        match kept {
            Some(body) => self.stays(&body).await,
            None => self.honest_again().await,
        }
    }

    fn request(&self, path: &str) -> String {
        match self.case.asking {
            Asking::Get => self.plain(path),
            Asking::Head => self.plain(path).replacen("GET ", "HEAD ", 1),
            Asking::With(field) => self.with(path, field),
        }
    }

    fn plain(&self, path: &str) -> String {
        format!("GET /-/{}{path} HTTP/1.1\r\nHost: cache\r\n\r\n", self.host)
    }

    fn with(&self, path: &str, fields: &str) -> String {
        format!("GET /-/{}{path} HTTP/1.1\r\nHost: cache\r\n{fields}\r\n\r\n", self.host)
    }

    /// Whether the answer is one of those that may be; the body that is kept of it.
    fn judge(&self, heard: &Heard) -> Told<Option<Vec<u8>>> {
        let all = match &self.case.expect {
            Expect::Either(all) => all.as_slice(),
            one => std::slice::from_ref(one),
        };
        let judged: Vec<_> = all.iter().map(|expect| fits(heard, expect)).collect();
        if let Some(name) = self.case.absent.iter().find(|name| heard.field(name).is_some()) {
            return Err(format!("{name} reached the client"));
        }
        if let Some(name) = self.case.present.iter().find(|name| heard.field(name).is_none()) {
            return Err(format!("{name} did not reach the client"));
        }
        if heard.interims.len() > MOST_INTERIMS {
            return Err(format!("{} interim responses", heard.interims.len()));
        }
        match judged.iter().find_map(|judged| judged.as_ref().ok()) {
            Some(kept) => Ok(kept.clone()),
            None => Err(judged.into_iter().filter_map(Result::err).collect::<Vec<_>>().join("; or ")),
        }
    }

    /// The honest answer at [`GOOD`], or the word that the source is not asked at present.
    fn good(&self, heard: &Heard, of: &str) -> Told<()> {
        let is_down = heard.status == 503 && heard.body.is_empty();
        if is_down || (heard.status == 200 && !heard.is_cut && heard.body == OTHER.bytes()) {
            return Ok(());
        }
        Err(format!("{of} is {}", shown(heard)))
    }

    /// What another host has is there at once.
    async fn untouched(&self, host: &str, path: &str, content: Pattern, of: &str) -> Told<()> {
        let mut connection = Strict::open(self.node).await;
        let heard = connection.ask(&format!("GET /-/{host}{path} HTTP/1.1\r\nHost: cache\r\n\r\n")).await?;
        is_content(&heard, content).map_err(|why| format!("{of}: {why}"))
    }

    fn only_if_cached(&self, cached: &Heard, heard: &Heard, is_kept: bool) -> Told<()> {
        let is_same = cached.status == heard.status && cached.body == heard.body && !cached.is_cut;
        let is_right = match is_kept {
            true => is_same,
            // What has been mended may have been stored by now.
            false => cached.status == 504 || is_same && cached.body == OBJECT.bytes(),
        };
        if is_right { Ok(()) } else { Err(format!("only-if-cached gives {}", shown(cached))) }
    }

    /// What was kept is given to others, and in parts.
    async fn stays(&self, body: &[u8]) -> Told<()> {
        let mut connection = Strict::open(self.node).await;
        let heard = connection.ask(&self.plain(BAD)).await?;
        if heard.body != body || heard.is_cut {
            return Err(format!("what was kept is {}", shown(&heard)));
        }
        Ok(())
    }

    /// The honest content comes, all of it and in part, and nothing of the bad answer with it.
    async fn honest_again(&self) -> Told<()> {
        let until = Instant::now() + COMES_BACK;
        for (device, fields) in [(1, ""), (2, PART), (3, END)] {
            let request = if fields.is_empty() { self.plain(BAD) } else { self.with(BAD, fields) };
            loop {
                let heard = Strict::open_as(device, self.node).await.ask(&request).await?;
                let is_right = match fields {
                    "" => is_content(&heard, OBJECT),
                    END => is_part(&heard, 39_900, 40_000),
                    _ => is_part(&heard, 500, 2500),
                };
                match is_right {
                    Ok(()) => break,
                    Err(_) if heard.status == 503 && Instant::now() < until => tokio::time::sleep(PAUSE).await,
                    Err(why) => return Err(format!("the honest answer to {fields:?}: {why}")),
                }
            }
        }
        self.untouched(&self.host, GOOD, OTHER, "other content of the host").await
    }
}

/// The body that is kept, if the answer is as expected.
fn fits(heard: &Heard, expect: &Expect) -> Told<Option<Vec<u8>>> {
    let (is_right, kept) = match expect {
        Expect::Refused => {
            let is_empty = heard.body.is_empty() && heard.field("Content-Length") == Some("0");
            (heard.status == 503 && is_empty && heard.field("Retry-After").is_some(), None)
        }
        Expect::Given { status, body, kept } => {
            (heard.status == *status && heard.body == *body && !heard.is_cut, kept.then(|| body.clone()))
        }
        Expect::Cut { status, of } => (heard.status == *status && heard.is_cut && of.starts_with(&heard.body), None),
        Expect::Mended => return is_content(heard, OBJECT).map(|()| None),
        Expect::Either(_) => (false, None),
    };
    let name = match expect {
        Expect::Refused => "503".to_owned(),
        Expect::Given { status, body, .. } => format!("{status} of {} bytes", body.len()),
        Expect::Cut { status, of } => format!("{status} cut within {} bytes", of.len()),
        Expect::Mended | Expect::Either(_) => "the honest content".to_owned(),
    };
    if is_right { Ok(kept) } else { Err(format!("{} is not {name}", shown(heard))) }
}

fn is_content(heard: &Heard, content: Pattern) -> Told<()> {
    let is_right = heard.status == 200 && !heard.is_cut && heard.body == content.bytes();
    if is_right { Ok(()) } else { Err(format!("{} is not the honest content", shown(heard))) }
}

fn is_part(heard: &Heard, from: u64, to: u64) -> Told<()> {
    let range = format!("bytes {from}-{}/{}", to - 1, OBJECT.len);
    let is_right = heard.status == 206
        && !heard.is_cut
        && heard.field("Content-Range") == Some(&range)
        && heard.body == OBJECT.slice(from, to);
    if is_right { Ok(()) } else { Err(format!("{} is not the honest part", shown(heard))) }
}

fn shown(heard: &Heard) -> String {
    let begin = &heard.body[..heard.body.len().min(60)];
    let cut = if heard.is_cut { ", cut" } else { "" };
    let why = heard.field("Cache-Status").unwrap_or_default();
    format!("{} with {} bytes ({}){cut} [{why}]", heard.status, heard.body.len(), begin.escape_ascii())
}
