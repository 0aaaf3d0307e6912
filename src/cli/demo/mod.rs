//! `waystation demo`: a local origin, a cache, a cache below it and devices on loopback, with real traffic and without any
//! network.
//!
//! Nothing here is used by `run`; the cache it shows is the one of `node`.

mod device;
mod origin;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exit_codes::Exit;
use super::output::{self, Output};
use crate::config::{Config, ConfigErrors, Sources};
use crate::content::{Policy, UnixMillis};
use crate::node::{Node, StartError};
use crate::shutdown::{Signal, Signals};
use device::{Download, download, download_to_its_end};
use origin::{CUT, DAMAGED, Origin};

/// Length of a file of the demo: large enough to be worth caching, small enough to be quick.
const FILE: u64 = 32 * 1024 * 1024;

/// The name under which devices know the origin.
const HOST: &str = "updates.demo.example";

/// What may be on its way when a connection is cut, and is then sent again.
const ON_ITS_WAY: u64 = 1024 * 1024;

/// Devices that ask for the same file at once.
const DEVICES: usize = 20;

/// The demo could not be shown.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    /// The embedded defaults cannot be read: a fault of the program.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The cache did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A file, a socket or the terminal failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What the cache answered is not what the demo promises.
    #[error("{step}: {found}")]
    Broken {
        /// Which step.
        step: &'static str,
        /// What was found.
        found: String,
    },
}

/// Shows the demo on standard output; fails when a step shows other than what it should.
pub(super) fn run(format: Output) -> ExitCode {
    if format == Output::Json {
        output::fault("the demo is for people: leave --output json out");
        return Exit::Usage.into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::fault(&format!("threads: {error}; check the limits of this user and container"));
            return Exit::Failure.into();
        }
    };
    let directory = std::env::temp_dir().join(format!(
        "waystation-demo-{}-{}",
        std::process::id(),
        UnixMillis::from(std::time::SystemTime::now()).0
    ));
    let ended = runtime.block_on(shown_or_stopped(&mut io::stdout(), &directory));
    // First the caches end, which would write more files.
    runtime.shutdown_timeout(Duration::from_secs(2));
    // The demo leaves nothing behind; what cannot be removed is in the system's own temporary directory.
    let _ = std::fs::remove_dir_all(&directory);
    match ended {
        Ok(None) => Exit::Success.into(),
        Ok(Some(signal)) => ExitCode::from(signal.exit_code()),
        Err(error) => {
            output::fault(&format!("demo: {error}"));
            Exit::Failure.into()
        }
    }
}

/// Shows it to its end, or up to the signal that stops it.
async fn shown_or_stopped(
    out: &mut (impl Write + Send),
    directory: &std::path::Path,
) -> Result<Option<Signal>, DemoError> {
    let mut signals = Signals::catch()?;
    tokio::select! {
        shown = show(out, directory) => shown.map(|()| None),
        signal = signals.received() => Ok(Some(signal)),
    }
}

async fn show(out: &mut (impl Write + Send), directory: &std::path::Path) -> Result<(), DemoError> {
    let began = Instant::now();
    let mut origin = Origin::start(FILE).await?;
    let node = Node::start(configuration(&directory.join("parent"), Above::Origin(origin.address))?).await?;
    let cache = address_of(&node)?;
    let child = Node::start(configuration(&directory.join("child"), Above::Parent(cache))?).await?;
    let below = address_of(&child)?;
    writeln!(out, "Devices, two levels of caches and an origin on this machine, no network needed.\n")?;
    writeln!(out, "  origin   http://{}  files of {}", origin.address, mib(FILE))?;
    writeln!(out, "  cache    http://{cache}  stores in {}", directory.display())?;
    writeln!(out, "  below    http://{below}  reaches the cache and nobody else")?;
    writeln!(out, "  request  GET /update/a.swu?cacheHostOrigin={HOST}\n")?;
    writeln!(out, "  {:<34} {:>10} {:>8} {:>11}   cache says", "what happens", "received", "time", "from origin")?;

    let mut devices_got = 0;
    let a = format!("/update/a.swu?cacheHostOrigin={HOST}");
    let before = origin.sent();
    let miss = download(cache, &a, None).await?;
    devices_got += line(out, "first device: miss", &miss, origin.sent() - before)?;
    expect("miss", &miss, origin.sent() - before == FILE)?;

    let before = origin.sent();
    let hit = download(cache, &a, None).await?;
    devices_got += line(out, "second device: hit", &hit, origin.sent() - before)?;
    expect("hit", &hit, origin.sent() == before)?;

    let range = download(cache, &a, Some((20_000_000, 20_999_999))).await?;
    devices_got += line(out, "resumed at byte 20,000,000: range", &range, origin.sent() - before)?;
    expect("range", &range, origin.sent() == before && range.status == 206 && range.bytes == 1_000_000)?;

    let b = format!("/update/b.swu?cacheHostOrigin={HOST}");
    let started = Instant::now();
    let mut herd = tokio::task::JoinSet::new();
    for _ in 0..DEVICES {
        let b = b.clone();
        herd.spawn(async move { download(cache, &b, None).await });
    }
    let mut together = Download::default();
    while let Some(one) = herd.join_next().await {
        let one = one.map_err(io::Error::other)??;
        together.bytes += one.bytes;
        together.right = one.right && (together.right || together.status == 0);
        together.status = one.status;
        together.unfinished |= one.unfinished;
        together.cache_status = "one fetch, shared by all".to_owned();
    }
    together.time = started.elapsed();
    let from_origin = origin.sent() - before;
    devices_got += line(out, &format!("{DEVICES} devices at once, a new file"), &together, from_origin)?;
    expect("herd", &together, from_origin == FILE && together.bytes == FILE * DEVICES as u64)?;

    let before = origin.sent();
    let resumed = download(cache, &format!("{CUT}?cacheHostOrigin={HOST}"), None).await?;
    let from_origin = origin.sent() - before;
    devices_got += line(out, "origin cuts at 16 MiB: resumed", &resumed, from_origin)?;
    expect("cut", &resumed, resumed.bytes == FILE && from_origin <= FILE + ON_ITS_WAY)?;

    let d = format!("{DAMAGED}?cacheHostOrigin={HOST}");
    let before = origin.sent();
    let mended = download_to_its_end(cache, &d).await?;
    let from_origin = origin.sent() - before;
    devices_got += line(out, "origin sends a wrong byte: refused", &mended, from_origin)?;
    expect("wrong byte", &mended, mended.bytes == FILE && from_origin <= 2 * FILE + ON_ITS_WAY)?;

    let before = origin.sent();
    let kept = download(cache, &d, None).await?;
    devices_got += line(out, "next device: hit, the right bytes", &kept, origin.sent() - before)?;
    expect("after the wrong byte", &kept, kept.bytes == FILE && origin.sent() == before)?;

    origin.switch_off().await;
    let before = origin.sent();
    let offline = download(cache, &a, None).await?;
    devices_got += line(out, "origin switched off: still a hit", &offline, origin.sent() - before)?;
    expect("offline", &offline, true)?;

    let lower = download(below, &a, None).await?;
    devices_got += line(out, "cache below: its parent has it", &lower, origin.sent() - before)?;
    expect("below", &lower, lower.bytes == FILE)?;

    node.drain().await;
    let alone = download(below, &a, None).await?;
    devices_got += line(out, "parent off as well: still a hit", &alone, origin.sent() - before)?;
    expect("parent switched off", &alone, alone.bytes == FILE)?;

    let sent = origin.sent();
    writeln!(
        out,
        "\n  Every byte was compared with what the origin has. Devices received {}, the origin sent {}:",
        mib(devices_got),
        mib(sent)
    )?;
    writeln!(
        out,
        "  {} ({} %) never crossed the uplink. Shown in {:.1} s.",
        mib(devices_got - sent),
        (devices_got - sent) * 100 / devices_got,
        began.elapsed().as_secs_f64()
    )?;
    child.drain().await;
    Ok(())
}

/// Where a cache gets its content.
enum Above {
    Origin(SocketAddr),
    Parent(SocketAddr),
}

fn address_of(node: &Node) -> Result<SocketAddr, DemoError> {
    node.data_addresses().first().copied().ok_or_else(|| broken("start", "the cache does not listen"))
}

fn configuration(directory: &std::path::Path, above: Above) -> Result<Config, DemoError> {
    let mut policy = Policy::for_host(HOST);
    let settings = match above {
        Above::Origin(address) => {
            policy.address = Some(address.to_string().into());
            policy.allow_private = true;
            String::new()
        }
        Above::Parent(address) => format!("upstream: {{ parents: [{{ url: \"http://{address}\" }}] }}"),
    };
    let mut config = Config::load(&Sources::new().file("demo", &settings))?.config;
    config.rules = vec![Arc::new(policy)];
    config.store.state = directory.join("state");
    for drive in &mut config.store.drives {
        drive.path = directory.join("drive1");
        drive.quota = 1_000_000_000;
        drive.min_free = 0;
    }
    let loopback = ([127, 0, 0, 1], 0).into();
    config.serve.data = vec![loopback];
    config.serve.drain_grace = Duration::from_secs(1);
    config.admin.addresses = Vec::new();
    config.log.access = false;
    Ok(config)
}

fn line(out: &mut impl Write, what: &str, download: &Download, from_origin: u64) -> io::Result<u64> {
    writeln!(
        out,
        "  {what:<34} {:>10} {:>6.2} s {:>11}   {}",
        mib(download.bytes),
        download.time.as_secs_f64(),
        mib(from_origin),
        download.cache_status
    )?;
    out.flush()?;
    Ok(download.bytes)
}

fn expect(step: &'static str, download: &Download, holds: bool) -> Result<(), DemoError> {
    if download.right && holds {
        return Ok(());
    }
    Err(broken(
        step,
        &format!("status {}, {} bytes, content right: {}", download.status, download.bytes, download.right),
    ))
}

fn broken(step: &'static str, found: &str) -> DemoError {
    DemoError::Broken { step, found: found.to_owned() }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0))
}
