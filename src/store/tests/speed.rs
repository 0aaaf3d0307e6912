//! Figures of the store, for people to look at: `cargo test --release --lib store::tests::speed -- --ignored
//! --nocapture`. They assert nothing but that the bytes are right.

use std::time::{Duration, Instant};

use super::*;

const MIB: usize = 1024 * 1024;

impl Rig {
    fn of_usual_settings() -> Self {
        let mut rig = Self::new();
        let usual = Settings::default();
        rig.settings.block_size = usual.block_size;
        rig.settings.memory_body = usual.memory_body;
        rig.settings.drives[0].quota = 8 << 30;
        rig
    }
}

/// CPU time of this process so far, by clock ticks of 10 ms.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[allow(clippy::print_stdout, reason = "figures are what this is for")]
fn report(what: &str, times: u32, bytes: u64, wall: Duration, cpu: Duration) {
    let rate = bytes as f64 / wall.as_secs_f64() / (1_u64 << 30) as f64;
    println!("{what}: {:?} each, {rate:.2} GiB/s, CPU {cpu:?} in {wall:?}", wall / times);
}

async fn measure(what: &str, times: u32, bytes: u64, work: impl AsyncFnOnce()) {
    let (wall, used) = (Instant::now(), cpu());
    work().await;
    report(what, times, bytes, wall.elapsed(), cpu().saturating_sub(used));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures_of_hits_and_fills() {
    let rig = Rig::of_usual_settings();
    let store = rig.open();
    for (length, times) in [(1024_usize, 200_000_u32), (MIB, 5_000)] {
        let (name, content) = (length.to_string(), body_of(length, 1));
        put(&store, &name, &content).await;
        assert_eq!(get(&store, &name).await.unwrap(), content);
        let key = key(&name);
        measure(&format!("hit of {length} bytes"), times, u64::from(times) * length as u64, async || {
            for _ in 0..times {
                let entry = Arc::clone(&store.lookup_hot(&key).unwrap()[0]);
                let body = store.body_hot(&entry).unwrap();
                assert_eq!(body.read(0, length).await.unwrap().len(), length);
            }
        })
        .await;
    }
    let piece = Bytes::from(body_of(MIB, 2));
    let slices = |number: u64| -> Vec<Bytes> {
        let own = Bytes::copy_from_slice(&number.to_le_bytes());
        std::iter::once(own)
            .chain((0..16).map(|at| piece.slice(at * 65536 + usize::from(at == 0) * 8..(at + 1) * 65536)))
            .collect()
    };
    measure("fill of 1 GiB", 1, 1 << 30, async || {
        let mut writer = store.create(record("large", Some(1 << 30))).await.unwrap();
        for number in 0..1024 {
            writer.write(number * MIB as u64, slices(number)).await.unwrap();
        }
        writer.complete(1 << 30).await.unwrap();
        store.flush().await;
    })
    .await;
    measure("1,000 fills of 1 MiB, 8 at once", 1000, 1000 * MIB as u64, async || {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let store = store.clone();
            let all: Vec<_> = (0..125).map(|number| 10_000 + task * 125 + number).map(|n| (n, slices(n))).collect();
            tasks.spawn(async move {
                for (number, data) in all {
                    let mut writer = store.create(record(&number.to_string(), Some(MIB as u64))).await.unwrap();
                    writer.write(0, data).await.unwrap();
                    writer.complete(MIB as u64).await.unwrap();
                }
            });
        }
        tasks.join_all().await;
        store.flush().await;
    })
    .await;
    let large = store.lookup(&key("large")).await;
    let body = store.body(&large[0]).await.unwrap();
    measure("read of 1 GiB, pieces of 1 MiB", 1024, 1 << 30, async || {
        for number in 0..1024 {
            let got = body.read(number * MIB as u64, MIB).await.unwrap();
            assert_eq!(got[..8], number.to_le_bytes());
        }
    })
    .await;
}
