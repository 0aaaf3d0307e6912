//! Versions as clients meet them. At the end a model: devices behind few addresses, an origin whose content changes, and
//! whatever happens nobody's file is joined from two versions.

use std::net::{IpAddr, Ipv4Addr};

use http_body::Body as _;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::content::{Digest, Spoiled};
use crate::fill::tests::{field, until};

const LIGHT_AGENT: (&str, &str) = ("user-agent", "Microsoft-Delivery-Optimization-Lite/10.0.0.1");
const LEN: usize = 150 * KIB;
const REFUSED: u16 = 503;

/// What the origin has, and what goes wrong next.
#[derive(Default)]
struct World {
    version: u64,
    /// The next body is cut after so many bytes.
    cut: Option<usize>,
    /// The next body that has this byte has it wrong.
    spoil: Option<usize>,
}

/// The content of a version; of some the length is the same.
fn content(version: u64) -> Vec<u8> {
    body_of(LEN - (version as usize % 3 / 2) * 1000, 7000 + version)
}

fn tag(version: u64) -> String {
    format!("\"v{version}\"")
}

/// An answer of the origin, which knows ranges and conditions. Below `bare` it gives no validator, below `digest` a
/// digest, else an entity tag; below `passed` it may not be stored.
fn origin(world: &Mutex<World>, request: &str) -> Vec<Step> {
    let mut world = world.lock();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (body, tag) = (content(world.version), tag(world.version));
    let digest = format!("sha-256=:{}:", Digest::of(&body).to_base64());
    let is_bare = path.contains("/bare");
    let mut fields = vec![("Cache-Control", if path.contains("/passed") { "no-store" } else { "max-age=0" })];
    if !is_bare {
        fields.push(("ETag", &tag));
    }
    if path.contains("/digest") {
        fields.push(("Repr-Digest", &digest));
    }
    if field(request, "if-none-match") == Some(&*tag) && !is_bare {
        return vec![Step::Send(head("304 Not Modified", &fields, 0))];
    }
    let holds = field(request, "if-range").is_none_or(|named| named == tag);
    let range = field(request, "range").filter(|_| holds).and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let end = last.parse::<usize>().map_or(body.len(), |last| (last + 1).min(body.len()));
        Some((first.parse::<usize>().ok()?, end))
    });
    if range.is_some_and(|(first, end)| first >= end) {
        let whole = format!("bytes */{}", body.len());
        return vec![Step::Send(head(
            "416 Range Not Satisfiable",
            &[&fields[..1], &[("Content-Range", &whole)]].concat(),
            0,
        ))];
    }
    let (from, to) = range.unwrap_or((0, body.len()));
    let named = format!("bytes {from}-{}/{}", to - 1, body.len());
    let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
    if range.is_some() {
        fields.push(("Content-Range", &named));
    }
    let mut sent = body[from..to].to_vec();
    if let Some(at) = world.spoil.take_if(|at| (from..to).contains(at)) {
        sent[at - from] ^= 1;
    }
    let head = head(status, &fields, sent.len());
    match world.cut.take_if(|cut| *cut < sent.len()) {
        Some(cut) => vec![Step::Send([&head[..], &sent[..cut]].concat()), Step::Cut],
        None => vec![Step::Send([&head[..], &sent].concat())],
    }
}

fn address(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, host).into()
}

impl Site {
    async fn changing() -> (Self, Arc<Mutex<World>>) {
        let world = Arc::new(Mutex::new(World::default()));
        let here = Arc::clone(&world);
        (Self::new(move |_, request| origin(&here, request)).await, world)
    }

    async fn ask_as(&self, host: u8, target: &str, fields: &[(&str, &str)]) -> Response<SegmentBody> {
        let ask = self.ask(&Method::GET, target, fields).of(address(host), 16);
        respond(self.handler.answer_read(ask).await, "cache", false)
    }

    async fn get_as(&self, host: u8, target: &str, fields: &[(&str, &str)]) -> Answer {
        Answer::of(self.ask_as(host, target, fields).await).await
    }

    /// Fetches the whole as `host`, which must be `version`, until it is stored.
    async fn store_as(&self, host: u8, target: &str, version: u64) {
        let answer = self.get_as(host, target, &[]).await;
        assert_eq!((answer.status, answer.body.as_deref()), (200, Ok(&content(version)[..])));
        self.rig.idle().await;
    }

    fn refused(&self, reason: &str) -> u64 {
        self.rig.metrics.resumes_refused.with_label_values(&[reason]).get()
    }
}

#[track_caller]
fn part(answer: &Answer, version: u64, from: usize, to: usize) {
    let (whole, range) = (content(version), answer.field("content-range"));
    assert_eq!((answer.status, range), (206, &*format!("bytes {from}-{}/{}", to - 1, whole.len())));
    assert!(answer.body.as_deref() == Ok(&whole[from..to]), "wrong bytes of {version}");
}

#[tokio::test]
async fn a_client_goes_on_with_what_it_was_given() {
    let (site, world) = Site::changing().await;
    site.store_as(1, "/a", 0).await;
    world.lock().version = 1;
    site.store_as(2, "/a", 1).await;
    let to_the_end = format!("bytes=1000-{}", LEN - 1);
    for fields in [
        &[LIGHT_AGENT, ("range", &*to_the_end)][..],
        &[("range", "bytes=1000-")],
        &[AGENT, ("range", "bytes=1000-1999")],
    ] {
        for (host, version) in [(1, 0), (2, 1), (1, 0)] {
            let answer = site.get_as(host, "/a", fields).await;
            let to = if answer.body.as_ref().unwrap().len() == 1000 { 2000 } else { LEN };
            part(&answer, version, 1000, to);
            assert_eq!(answer.field("etag"), tag(version));
        }
        // Nobody knows what a stranger has.
        assert_eq!(site.get_as(3, "/a", fields).await.status, REFUSED);
    }
    assert_eq!(site.refused("version-ambiguous"), 3);
    // Whoever begins at byte 0 gets what is current, and two versions at one address are none.
    part(&site.get_as(1, "/a", &[("range", "bytes=0-99")]).await, 1, 0, 100);
    let answer = site.get_as(1, "/a", &[LIGHT_AGENT, ("range", &to_the_end)]).await;
    assert_eq!((answer.status, answer.field("retry-after"), answer.field("content-length")), (REFUSED, "2", "0"));
    assert_eq!(site.get_as(1, "/a", &[]).await.body.as_deref(), Ok(&content(1)[..]), "who starts anew is served");
}

#[tokio::test]
async fn another_length_tells_versions_apart() {
    let (site, world) = Site::changing().await;
    site.store_as(1, "/a", 0).await;
    world.lock().version = 2;
    site.store_as(1, "/a", 2).await;
    for version in [0, 2] {
        let length = content(version).len();
        let range = format!("bytes=5000-{}", length - 1);
        for host in [1, 3] {
            part(&site.get_as(host, "/a", &[LIGHT_AGENT, ("range", &range)]).await, version, 5000, length);
        }
    }
    let strange = site.get_as(4, "/a", &[LIGHT_AGENT, ("range", "bytes=5000-299999")]).await;
    assert_eq!(strange.status, REFUSED, "an agent never gets 416, nor a part of something shorter");
}

#[tokio::test]
async fn a_change_in_the_middle_of_a_request_joins_nothing() {
    let (site, world) = Site::changing().await;
    site.store_as(1, "/a", 0).await;
    world.lock().version = 1;
    // Its own request brings the change: what was stored answers it.
    let to_the_end = format!("bytes=1000-{}", LEN - 1);
    let fields = [LIGHT_AGENT, ("range", &*to_the_end)];
    part(&site.get_as(1, "/a", &fields).await, 0, 1000, LEN);
    // A stranger's brings one more, and then there are two.
    assert_eq!(site.get_as(9, "/a", &fields).await.status, REFUSED);
    site.rig.idle().await;
    world.lock().version = 3;
    site.store_as(2, "/b", 3).await;
    let key = site.ask(&Method::GET, "/b", &[]).content.key;
    site.rig.store.lookup(&key).await.iter().for_each(|entry| site.rig.store.remove(entry));
    world.lock().version = 4;
    assert_eq!(site.get_as(2, "/b", &fields).await.status, REFUSED, "what it has is not stored any more");
    assert_eq!(site.refused("version-absent"), 1);
    site.rig.idle().await;
    world.lock().version = 3;
    part(&site.get_as(2, "/b", &fields).await, 3, 1000, LEN);
}

#[tokio::test]
async fn if_range_is_honoured_against_what_is_stored() {
    let (site, world) = Site::changing().await;
    site.store_as(1, "/a", 0).await;
    world.lock().version = 1;
    site.store_as(2, "/a", 1).await;
    for version in [0, 1, 0] {
        let answer = site.get_as(3, "/a", &[("range", "bytes=1000-1999"), ("if-range", &tag(version))]).await;
        part(&answer, version, 1000, 2000);
    }
    for other in ["\"other\"", "W/\"v0\""] {
        let answer = site.get_as(3, "/a", &[("range", "bytes=1000-1999"), ("if-range", other)]).await;
        assert_eq!((answer.status, answer.body.as_deref()), (200, Ok(&content(1)[..])), "{other}");
    }
}

#[tokio::test]
async fn who_has_wrong_bytes_may_go_on_before_the_first_of_them() {
    let (site, world) = Site::changing().await;
    let wrong = 70 * KIB;
    world.lock().spoil = Some(wrong);
    // What does not touch the end leaves before anybody can know.
    let first = site.get_as(1, "/digest", &[("range", "bytes=0-99999")]).await;
    assert_eq!((first.status, first.body.as_ref().map(Bytes::len)), (206, Ok(100_000)));
    assert!(first.body.as_deref() != Ok(&content(0)[..100_000]), "it has the wrong byte");
    site.rig.idle().await;
    let range = |from: usize| format!("bytes={from}-{}", LEN - 1);
    let resume = async |from: usize| site.get_as(1, "/digest", &[LIGHT_AGENT, ("range", &range(from))]).await;
    let key = site.ask(&Method::GET, "/digest", &[]).content.key;
    let spoiled = || site.rig.store.given(address(1), &key).versions[0].spoiled;
    assert_eq!(spoiled(), Some(Spoiled::Throughout));
    // Its own request brings right bytes, but how far it may go on is not known before they are all there.
    assert_eq!(resume(100_000).await.status, REFUSED);
    site.store_as(2, "/digest", 0).await;
    until(|| spoiled() != Some(Spoiled::Throughout)).await;
    part(&resume(wrong).await, 0, wrong, LEN);
    part(&resume(10).await, 0, 10, LEN);
    assert_eq!(resume(wrong + 1).await.status, REFUSED);
    assert_eq!(site.get_as(1, "/digest", &[]).await.body.as_deref(), Ok(&content(0)[..]), "who starts anew is served");
}

/// A device with the begin of a file.
#[derive(Default)]
struct Device {
    file: Vec<u8>,
    /// Length of the whole, as it was told.
    total: Option<usize>,
}

#[derive(Debug, Clone)]
enum Event {
    /// A device fetches so many bytes more, and is cut then.
    Fetch { device: usize, bytes: usize },
    /// It throws away what it has.
    StartAnew { device: usize },
    /// The origin has this version from now on.
    Change { version: u64 },
    /// The next body of the origin is cut.
    Cut { at: usize },
    /// The next body of the origin has a wrong byte.
    Spoil { at: usize },
    /// Fills come to their end.
    Settle,
    /// Another process on the same drive.
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0usize..6, prop_oneof![1usize..LEN, Just(2 * LEN)])
            .prop_map(|(device, bytes)| Event::Fetch { device, bytes }),
        1 => (0usize..6).prop_map(|device| Event::StartAnew { device }),
        2 => (0u64..5).prop_map(|version| Event::Change { version }),
        1 => (1usize..LEN).prop_map(|at| Event::Cut { at }),
        1 => (1usize..LEN).prop_map(|at| Event::Spoil { at }),
        2 => Just(Event::Settle),
        1 => Just(Event::Restart),
    ]
}

impl Device {
    /// One request of the `number`-th device, of which `most` bytes arrive. The odd ones are no agents.
    async fn fetch(&mut self, site: &Site, number: usize, target: &str, most: usize) {
        let is_agent = number.is_multiple_of(2);
        let from = self.file.len();
        let range = match self.total {
            Some(total) if is_agent => format!("bytes={from}-{}", total - 1),
            // One of them asks for pieces, which may leave before a digest is known.
            _ if number == 3 => format!("bytes={from}-{}", from + most - 1),
            _ => format!("bytes={from}-"),
        };
        let mut fields = Vec::from_iter(is_agent.then_some(LIGHT_AGENT));
        fields.extend((from > 0 || number == 3).then_some(("range", &*range)));
        let response = site.ask_as(number as u8 / 2, target, &fields).await;
        let status = response.status().as_u16();
        let expected = if fields.iter().any(|(name, _)| *name == "range") { 206 } else { 200 };
        assert!(status == expected || status == REFUSED || (status == 416 && !is_agent), "{status} to device {number}");
        if status != expected {
            return;
        }
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let total = match text("content-range") {
            Some(range) => range.rsplit('/').next().and_then(|total| total.parse().ok()),
            None => text("content-length").and_then(|length| length.parse().ok()),
        };
        self.total = total;
        let mut body = response.into_body();
        let end = self.file.len() + most;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await {
            let bytes = frame.into_data().unwrap_or_default();
            self.file.extend_from_slice(&bytes[..bytes.len().min(end - self.file.len())]);
            if self.file.len() == end {
                return;
            }
        }
    }
}

impl Site {
    /// Another process on the same drive.
    async fn restarted(self) -> Self {
        let Self { server, handler, rules, rig } = self;
        let settings = handler.settings.clone();
        drop(handler);
        let rig = rig.restarted(|_| ()).await;
        rig.store.ready().await;
        let log = AccessLog::to_sink(&LogSettings::default(), &rig.metrics, std::io::sink()).unwrap();
        let metrics = Arc::clone(&rig.metrics);
        let handler =
            Handler::new(settings, Arc::clone(&rules), rig.store.clone(), rig.fill.clone(), log, metrics).unwrap();
        Self { server, handler, rules, rig }
    }
}

async fn play(target: &str, events: &[Event]) {
    let (mut site, world) = Site::changing().await;
    let mut devices: Vec<Device> = (0..6).map(|_| Device::default()).collect();
    let mut sent: Vec<Vec<u8>> = (0..5).map(content).collect();
    for event in events {
        match event {
            Event::Fetch { device: number, bytes } => {
                let device = &mut devices[*number];
                device.fetch(&site, *number, target, *bytes).await;
                assert!(
                    device.file.is_empty() || sent.iter().any(|sent| sent.starts_with(&device.file)),
                    "the file of device {number} is joined; {target}, {events:?}"
                );
                if device.total == Some(device.file.len()) {
                    let is_right = (0..5).any(|version| content(version) == device.file);
                    assert!(is_right || target != "/digest", "a wrong file is whole; {events:?}");
                    *device = Device::default();
                }
            }
            Event::StartAnew { device } => devices[*device] = Device::default(),
            Event::Change { version } => world.lock().version = *version,
            Event::Cut { at } => world.lock().cut = Some(*at),
            Event::Spoil { at } => {
                // Without a digest nobody can know.
                if target == "/digest" {
                    world.lock().spoil = Some(*at);
                    sent.extend((0..5).map(|version| {
                        let mut wrong = content(version);
                        if let Some(byte) = wrong.get_mut(*at) {
                            *byte ^= 1;
                        }
                        wrong
                    }));
                }
            }
            Event::Settle => site.rig.idle().await,
            Event::Restart => {
                site.rig.idle().await;
                site = site.restarted().await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases / 10,
        max_shrink_iters: 200,
        ..ProptestConfig::default()
    })]

    #[test]
    fn whatever_happens_no_file_is_joined_from_two_versions(
        events in prop::collection::vec(any_event(), 10..50), which in 0usize..5,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(play(["/strong", "/bare", "/digest", "/passed/strong", "/passed/bare"][which], &events));
    }
}
