//! Random flights: several clients with ranges of their own, an origin that fails in every way it can for a while and
//! may change its content, and a plain reference: what a client has read is a part of one version, byte for byte.

use futures_util::future::join_all;

use super::*;
use crate::content::{ByteRange, FillMode};

/// Requests that may fail; later ones do not.
const FAULTS: usize = 14;

/// A seeded source of numbers (Marsaglia, "Xorshift RNGs", 2003).
#[derive(Clone)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// What the origin does to the `n`-th request.
fn reply(seed: u64, n: usize, request: &str, versions: &[Vec<u8>; 2], changes_at: usize) -> Vec<Step> {
    let mut dice =
        Dice((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (n as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
    for _ in 0..9 {
        dice.below(2);
    }
    let version = usize::from(n >= changes_at);
    let (body, tag) = (&versions[version], format!("\"v{version}\""));
    let fields = [("ETag", tag.as_str()), FRESH];
    let current = field(request, "if-range").is_none_or(|condition| condition == tag);
    let range = field(request, "range").filter(|_| current).map(|_| asked(request, body.len()));
    let fault = if n < FAULTS { dice.below(10) } else { 9 };
    let part = |from: usize, to: usize| {
        let range = format!("bytes {from}-{}/{}", to - 1, body.len());
        let head = head("206 Partial Content", &[&fields[..], &[("Content-Range", &range)]].concat(), to - from);
        [&head[..], &body[from..to]].concat()
    };
    let whole = || [&head("200 OK", &fields, body.len())[..], body].concat();
    match (fault, range) {
        (0, _) => vec![answer("503 Service Unavailable", &[], b"later")],
        (1, _) => vec![Step::Cut],
        // Less than was asked for, in a message that is whole.
        (2, Some((from, to))) if to - from > 1 => vec![Step::Send(part(from, from + 1 + dice.below(to - from - 1)))],
        // Another range than was asked for.
        (3, Some((from, to))) if from >= 100 => vec![Step::Send(part(from - 100, to))],
        (4, Some(_)) => vec![Step::Send(whole())],
        (5..=7, Some((from, to))) => {
            let bytes = part(from, to);
            let kept = bytes.len() - dice.below(to - from);
            vec![Step::Send(bytes[..kept].to_vec()), Step::Cut]
        }
        (5..=7, None) => {
            let bytes = whole();
            let kept = bytes.len() - dice.below(body.len());
            vec![Step::Send(bytes[..kept].to_vec()), Step::Cut]
        }
        (_, Some((from, to))) => vec![Step::Send(part(from, to))],
        (_, None) => vec![Step::Send(whole())],
    }
}

/// Reads `range` as a client does that comes again when it was cut, and begins anew when it is another version.
async fn client(rig: &Rig, want: Want, range: ByteRange, versions: &[Vec<u8>; 2]) -> bool {
    let (mut version, mut position) = (0, range.start());
    for _ in 0..60 {
        let (entry, partial, guard) = match rig.fill.obtain(rig.look_up(want.clone()).await).await {
            Obtained::Filling { entry, partial, guard, .. } => (entry, partial, guard),
            Obtained::Failed(_) | Obtained::Answer { .. } | Obtained::Changed => {
                if let Some(stored) = rig.stored(&want).await.first().filter(|entry| is_blob(entry)) {
                    let number = usize::from(stored.record.headers["etag"] == "\"v1\"");
                    assert!(stored_bytes(rig, stored).await == versions[number], "what is stored is one version");
                    return true;
                }
                continue;
            }
            other => panic!("{}", shown(&other)),
        };
        let now = usize::from(entry.record.headers["etag"] == "\"v1\"");
        if now != version {
            (version, position) = (now, range.start());
        }
        let content = &versions[version];
        let end = range.end().min(content.len() as u64);
        let Some(rest) = ByteRange::new(position, end) else { return true };
        guard.reads(rest, entry.record.length);
        while position < end {
            guard.advance(position);
            let Progress::Present(until) = partial.wait(position).await else { break };
            let most = (until.min(end) - position) as usize;
            match Body::Partial(Arc::clone(&partial)).read(position, most).await {
                Ok(bytes) => {
                    let at = position as usize;
                    assert!(bytes[..] == content[at..at + bytes.len()], "at {at} of version {version}");
                    position += bytes.len() as u64;
                }
                Err(ReadError::Gone | ReadError::Absent { .. } | ReadError::Damaged { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        if position >= end {
            return true;
        }
    }
    false
}

async fn flight(seed: u64) {
    let mut dice = Dice((seed + 7).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    for _ in 0..9 {
        dice.below(2);
    }
    let length = 1 + dice.below(6 * 1024 * KIB);
    let other_length = if dice.below(2) == 0 { length } else { 1 + dice.below(6 * 1024 * KIB) };
    let versions = Arc::new([body_of(length, seed), body_of(other_length, seed + 1000)]);
    let changes_at = if dice.below(3) == 0 { 1 + dice.below(8) } else { usize::MAX };
    let told = Arc::clone(&versions);
    let server = Server::start(move |n, request| reply(seed, n, request, &told, changes_at)).await;
    let rig = Rig::new();
    let fill = if dice.below(2) == 0 { FillMode::Ranged } else { FillMode::Whole };
    let abandon = if dice.below(2) == 0 { Abandon::Complete } else { Abandon::Stop };
    let policy = Arc::new(Policy { fill, ..policy(abandon) });
    let clients = (0..1 + dice.below(4)).map(|_| {
        let start = dice.below(length);
        let range = match dice.below(3) {
            0 => ByteRange::new(start as u64, u64::MAX - 1),
            1 => ByteRange::new(start as u64, (start + 1 + dice.below(length - start)) as u64),
            _ => ByteRange::new(0, u64::MAX - 1),
        };
        let range = range.unwrap();
        let field = format!("bytes={}-{}", range.start(), range.last());
        let base = Want { policy: Arc::clone(&policy), ..want(&server, "/a") };
        let want = if range.start() == 0 { base } else { with_fields(base, &[("range", &field)]) };
        client(&rig, want, range, &versions)
    });
    let done = join_all(clients.collect::<Vec<_>>()).await;
    assert!(done.iter().all(|done| *done), "{done:?} after {} requests", server.requests().len());
    rig.idle().await;
}

#[tokio::test]
async fn random_flights_give_everybody_one_version_byte_for_byte() {
    let one = std::env::var("WAYSTATION_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for seed in one.map_or(0..40, |seed| seed..seed + 1) {
        println!("WAYSTATION_SEED={seed}");
        flight(seed).await;
    }
}
