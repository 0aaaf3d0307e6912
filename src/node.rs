//! The composition root: builds every part from the configuration, binds, runs, drains. The only place that
//! knows everybody; no logic of its own.

mod banner;
mod clock;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tower::Layer as _;

use crate::admin::{self, NodeState, Readiness};
use crate::config::{Config, Loaded};
use crate::content::Digest;
use crate::fill::Fill;
use crate::resolve::{self, Rules};
use crate::serve::{
    self, Admission, AdmissionRules, BindError, DataService, DescriptorBudget, Handler, Handshakes, Inherited,
    RequestLimit, RuleRedirects, Tls, TlsFileError, TlsSettings, WireContext,
};
use crate::shutdown::{Drain, Signals};
use crate::store::{self, OpenError, PinTarget, Store};
use crate::telemetry::{self, AccessLog, Metrics};
use crate::upstream::{self, TlsFiles, TlsSetupError, Upstream};

use banner::Banner;
use reload::Reload;
pub use reload::Reread;

/// How long the last commits of the store may take after the grace period.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

/// The file in the state directory that says what came from upstream today.
const BUDGET_FILE: &str = "upstream-day";

/// Exit code when the configuration is wrong, here a file that it names; see the table in `cli`.
const WRONG_CONFIGURATION: u8 = 2;

/// What to do about a file of `upstream.tls`.
const FILE_REMEDY: &str = "write the path of a PEM file that this user can read";

/// A node could not be started. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A drive cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A file of the TLS side towards sources cannot be used.
    #[error("upstream.tls.{setting}: {}: {reason}; {FILE_REMEDY}", path.display())]
    SourceTlsFile {
        /// Which setting names it.
        setting: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// TLS towards sources cannot be set up.
    #[error(transparent)]
    Tls(TlsSetupError),
    /// A file of the TLS listener cannot be used.
    #[error(transparent)]
    TlsFile(#[from] TlsFileError),
    /// The system refused something basic: threads, random bytes, the log.
    #[error("{what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
}

/// A running node.
pub struct Node {
    data: Vec<SocketAddr>,
    tls: Vec<SocketAddr>,
    http2: Vec<SocketAddr>,
    admin: Vec<SocketAddr>,
    drain: Drain,
    drain_grace: Duration,
    drained: Arc<tokio::sync::Notify>,
    store: Store,
    upstream: Upstream,
    log: AccessLog,
    accepting: Vec<JoinHandle<()>>,
    admin_task: JoinHandle<()>,
}

impl Node {
    /// Builds a node with sockets of its own and starts to serve.
    ///
    /// # Errors
    /// When a drive, an address or the system refuses.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Inherited::default(), serve::raise_descriptor_limit()).await
    }

    /// Builds a node and starts to serve. The drives are locked before a port is opened, so that of two processes on
    /// one drive the second fails without taking a connection.
    ///
    /// # Errors
    /// When a drive, an address or the system refuses.
    async fn start_with(
        config: Config,
        mut inherited: Inherited,
        budget: DescriptorBudget,
    ) -> Result<Self, StartError> {
        let system = |what| move |source| StartError::System { what, source };
        let metrics = Arc::new(Metrics::new().map_err(|e| system("metrics")(io::Error::other(e)))?);
        let log = AccessLog::new(&config.log, &metrics).map_err(system("access log"))?;
        // Before anything is judged by the time.
        let clock = clock::watch(config.store.state.clone(), Arc::clone(&metrics));
        let tls = config.serve.tls.clone().map(|settings| Tls::open(settings, Arc::clone(&metrics)));
        let tls = tls.transpose()?.map(Arc::new);
        let budget_file = Some(config.store.state.join(BUDGET_FILE));
        // Half of the files' descriptors: partials and the index need some too.
        let open_blobs = config.store.open_blobs.min(budget.files / 2);
        let store = Store::open(store::Settings { open_blobs, ..config.store }, Arc::clone(&metrics))?;

        // Sockets that a supervisor passed for the other addresses must not serve data in the clear.
        let of_tls = |of: fn(&TlsSettings) -> &[SocketAddr]| config.serve.tls.as_ref().map_or(&[][..], of);
        let (tls_addresses, http2_addresses) = (of_tls(|tls| &tls.addresses), of_tls(|tls| &tls.http2_addresses));
        let mut claim = |addresses: &[SocketAddr]| {
            Inherited::new(addresses.iter().filter_map(|address| inherited.claim(*address)).collect())
        };
        let (mut for_tls, mut for_http2) = (claim(tls_addresses), claim(http2_addresses));
        let mut for_admin = claim(&config.admin.addresses);
        let data = serve::bind(&config.serve.data, &mut inherited)?;
        let tls_listeners = serve::bind(tls_addresses, &mut for_tls)?;
        let http2_listeners = serve::bind(http2_addresses, &mut for_http2)?;
        let admin_listeners = serve::bind(&config.admin.addresses, &mut for_admin)?;
        let (data_addresses, tls_addresses) = (addresses(&data), addresses(&tls_listeners));
        let (http2_addresses, admin_addresses) = (addresses(&http2_listeners), addresses(&admin_listeners));

        let mut rules = Rules::default();
        for policy in config.rules {
            // The configuration refused malformed and doubled patterns already.
            if let Err(error) = rules.insert((*policy).clone()) {
                tracing::error!(%error, "origin rule left out");
            }
        }
        let for_clients = || data_addresses.iter().chain(&tls_addresses).chain(&http2_addresses);
        let own_ports = for_clients().map(SocketAddr::port).collect();
        let settings = Arc::new(resolve::Settings {
            rules,
            default_origin: config.default_origin,
            connect: config.connect,
            own_ports,
        });
        let pseudonym = Arc::clone(&config.serve.pseudonym);
        let own = for_clients().chain(&admin_addresses).copied().collect();
        let upstream = upstream::Settings { budget_file, ..config.upstream };
        let files = upstream.tls.clone();
        let upstream = Upstream::new(upstream, Arc::clone(&pseudonym), Arc::clone(&metrics), own)
            .map_err(|error| source_tls_fault(&files, error))?;
        let redirects = Arc::new(RuleRedirects::new(Arc::clone(&settings)));
        let keeping = [
            tokio::spawn(upstream.keep_budget()),
            tokio::spawn(upstream.look_out()),
            tokio::spawn(upstream.watch_files()),
        ];
        let fill = Fill::new(store.clone(), upstream.clone(), redirects, pseudonym, Arc::clone(&metrics));

        let drain = Drain::new();
        let drain_grace = config.serve.drain_grace;
        let (limits, rules) = (config.serve.limits, AdmissionRules::from(&config.serve));
        let limit = RequestLimit::new(limits.requests, Arc::clone(&metrics), drain.clone());
        let handler =
            Handler::new(config.serve, Arc::clone(&settings), store.clone(), fill, log.clone(), Arc::clone(&metrics))
                .map_err(|error| StartError::System {
                what: "random bytes",
                source: io::Error::other(error.to_string()),
            })?;
        let context = WireContext::new(limits, Arc::clone(&metrics), drain.clone())
            .logged(log.clone())
            .recalling(handler.recall(limit.clone()));
        let admission = Admission::new(rules, budget, Arc::new(context));
        let service = limit.layer(DataService::new(Arc::new(handler)));
        let watching = tls.clone().map(|tls| tokio::spawn(tls.watch()));
        let shaking = |offers_http2| tls.clone().map(|tls| Handshakes::new(tls, offers_http2));
        let listeners = data.into_iter().map(|it| (it, None));
        let listeners = listeners.chain(tls_listeners.into_iter().map(|it| (it, shaking(false))));
        let listeners = listeners.chain(http2_listeners.into_iter().map(|it| (it, shaking(true))));
        let accept =
            |(listener, tls)| tokio::spawn(serve::accept(listener, Arc::clone(&admission), tls, service.clone()));
        let background = watching.into_iter().chain([tokio::spawn(clock)]).chain(keeping);
        let accepting = listeners.map(accept).chain(background).collect();

        let drained = Arc::new(tokio::sync::Notify::new());
        let sources = admin_sources(&metrics, &store, &upstream, &drain, settings);
        let until = Arc::clone(&drained);
        let admin_task = tokio::spawn(admin::serve(admin_listeners, config.admin, sources, async move {
            until.notified().await;
        }));
        Ok(Self {
            data: data_addresses,
            tls: tls_addresses,
            http2: http2_addresses,
            admin: admin_addresses,
            drain,
            drain_grace,
            drained,
            store,
            upstream,
            log,
            accepting,
            admin_task,
        })
    }

    /// Addresses of the data listeners, with the ports that the system chose.
    pub fn data_addresses(&self) -> &[SocketAddr] {
        &self.data
    }

    /// Addresses of the TLS listeners.
    pub fn tls_addresses(&self) -> &[SocketAddr] {
        &self.tls
    }

    /// Addresses of the TLS listeners that offer HTTP/2.
    pub fn http2_addresses(&self) -> &[SocketAddr] {
        &self.http2
    }

    /// Addresses of the admin listeners.
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        &self.admin
    }

    /// Asks sources for this node.
    fn upstream(&self) -> Upstream {
        self.upstream.clone()
    }

    /// The drain signal of this node.
    pub fn drain_signal(&self) -> Drain {
        self.drain.clone()
    }

    /// Lets requests in flight end within the grace period while new ones get 503, then commits what the store holds
    /// and closes the listeners. Returns when nothing is left to save.
    pub async fn drain(self) {
        self.drain.start();
        if tokio::time::timeout(self.drain_grace, self.drain.finished()).await.is_err() {
            tracing::warn!(unfinished = self.drain.unfinished(), "grace period is over; connections are cut");
        }
        if tokio::time::timeout(FLUSH_LIMIT, self.store.flush()).await.is_err() {
            tracing::warn!("the store did not commit in time; what was not durable is fetched again");
        }
        self.upstream.save_budget().await;
        self.drained.notify_one();
        // The listeners close last: a refused connection makes agents avoid the cache.
        for task in &self.accepting {
            task.abort();
        }
        let _ = self.admin_task.await;
        self.log.flush();
    }
}

/// Says which setting names the file.
fn source_tls_fault(files: &TlsFiles, error: TlsSetupError) -> StartError {
    let TlsSetupError::File { path, reason } = error else { return StartError::Tls(error) };
    let setting = match &files.identity {
        _ if files.ca.as_ref() == Some(&path) => "ca",
        Some((certificate, _)) if *certificate == path => "certificate",
        _ => "key",
    };
    StartError::SourceTlsFile { setting, path, reason }
}

fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
}

fn admin_sources(
    metrics: &Arc<Metrics>,
    store: &Store,
    upstream: &Upstream,
    drain: &Drain,
    settings: Arc<resolve::Settings>,
) -> admin::Sources {
    let all_budgeted = settings.rules.policies().iter().all(|policy| policy.budgeted);
    let (store_of_state, upstream, drain) = (store.clone(), upstream.clone(), drain.clone());
    let of_gauges = upstream.clone();
    let target = move |text: &str| match text.strip_prefix("sha256:") {
        Some(hex) => Digest::from_hex(hex).map(PinTarget::Digest).map_err(|error| error.to_string()),
        None => {
            resolve::resolve_url(text, &settings).map(|it| PinTarget::Key(it.key)).map_err(|error| error.to_string())
        }
    };
    let pins = Some(admin::PinDesk { store: store.clone(), target: Arc::new(target) });
    let store = store.clone();
    let said = AtomicBool::new(false);
    admin::Sources {
        metrics: Arc::clone(metrics),
        // Whoever's time is over is told of by this.
        refresh: Arc::new(move || drop(of_gauges.lowered_sources())),
        readiness: Arc::new(move || {
            let readiness = readiness(&store_of_state, &upstream, &drain, all_budgeted);
            let degraded = readiness.state != NodeState::Online;
            if said.swap(degraded, Ordering::Relaxed) != degraded {
                tracing::info!(
                    state = readiness.state.as_str(),
                    reasons = readiness.reasons.join("; "),
                    "state changed"
                );
            }
            readiness
        }),
        drives: Arc::new(move || store.usage()),
        pins,
    }
}

fn readiness(store: &Store, upstream: &Upstream, drain: &Drain, all_budgeted: bool) -> Readiness {
    if drain.draining() {
        return Readiness::of(NodeState::Draining);
    }
    let drives = store.usage();
    let in_service = drives.iter().filter(|drive| drive.in_service()).count();
    let down = upstream.down_sources();
    let mut reasons = Vec::new();
    let distrust = crate::clock::look();
    reasons.extend(distrust.map(|reason| format!("clock: untrusted: {}", reason.text())));
    let outage = |drive: &store::DriveUsage| {
        let out = drive.out.as_ref()?;
        Some(format!("drive {} is out of service: {}", drive.path.display(), out.reason.as_str()))
    };
    reasons.extend(drives.iter().filter_map(outage));
    if !store.is_ready() {
        reasons.push("the journals are being read".to_owned());
    }
    reasons.extend(down.iter().map(|down| match &down.refusal {
        Some(refusal) => format!("{} cannot be used: {refusal}", down.source),
        None => format!("no answer from {}", down.source),
    }));
    let lowered = upstream.lowered_sources();
    let wrong = |source| format!("wrong bytes for several contents from {source}: it is asked after the others");
    reasons.extend(lowered.iter().map(wrong));
    reasons.extend(upstream.refusing_parents().iter().map(|refusal| format!("whatever is asked for: {refusal}")));
    let shut = upstream.shut_text();
    let settings = upstream.settings();
    let parents_down = down.iter().filter(|down| down.source.parent.is_some()).count();
    let has_source = (settings.direct && !upstream.origins_are_away()) || parents_down < settings.parents.len();
    // What is outside of the budget can be had while it is closed.
    let can_fetch = (shut.is_none() || !all_budgeted) && has_source;
    reasons.extend(shut);
    if !settings.direct && settings.parents.is_empty() {
        reasons.push("nobody may be asked: upstream.direct is false, and there are no parents".to_owned());
    }
    let state = match (in_service, can_fetch) {
        (0, false) => NodeState::Unavailable,
        (_, false) => NodeState::Offline,
        _ if reasons.is_empty() => NodeState::Online,
        _ => NodeState::Degraded,
    };
    Readiness { state, reasons, clock: distrust, parents: upstream.parents() }
}

/// Runs a node with these settings until it has drained; the exit code tells how it ended. `reread` is asked for them
/// again on SIGHUP.
pub fn run(loaded: Loaded, reread: Reread) -> ExitCode {
    let guard = match telemetry::install(&loaded.config.log) {
        Ok(guard) => guard,
        Err(error) => return fault(&format!("log: {error}")),
    };
    // Before any thread exists, so that nothing else takes the descriptors.
    let inherited = Inherited::from_environment();
    let budget = serve::raise_descriptor_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fault(&format!("threads: {error}; check the limits of this user and container")),
    };
    let code = runtime.block_on(live(loaded, reread, inherited, budget));
    // Fills under way are cut here; their partials are resumed by the next process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    guard.flush();
    code
}

async fn live(loaded: Loaded, reread: Reread, inherited: Inherited, budget: DescriptorBudget) -> ExitCode {
    let Loaded { config, effective } = loaded;
    let (notes, about, format) = (config.notes.clone(), Banner::of(&config), config.log.format);
    let (signals, reload) = match Signals::catch().and_then(|it| Ok((it, Reload::catch(effective, reread)?))) {
        Ok(both) => both,
        Err(error) => return fault(&format!("signals: {error}")),
    };
    let node = match Node::start_with(config, inherited, budget).await {
        Ok(node) => node,
        Err(error @ (StartError::TlsFile(_) | StartError::SourceTlsFile { .. })) => {
            fault(&error.to_string());
            return ExitCode::from(WRONG_CONFIGURATION);
        }
        Err(error) => return fault(&error.to_string()),
    };
    about.tell(&node, format);
    for note in notes {
        tracing::info!("{note}");
    }
    let drain = node.drain_signal();
    let _reloading = tokio::spawn(reload.obeyed(node.upstream()));
    let mut second = std::pin::pin!(signals.obeyed(drain.clone()));
    tokio::select! {
        // A second signal before the first was seen here: end at once.
        ended = &mut second => return ExitCode::from(ended.exit_code()),
        () = drain.signalled() => tracing::info!("draining: requests in flight may end, new ones get 503"),
    }
    tokio::select! {
        ended = &mut second => ExitCode::from(ended.exit_code()),
        () = node.drain() => {
            tracing::info!("drained");
            ExitCode::SUCCESS
        }
    }
}

#[allow(clippy::print_stderr, reason = "a start that fails is told where the operator looks, whatever the log format")]
fn fault(text: &str) -> ExitCode {
    eprintln!("waystation: {text}");
    ExitCode::FAILURE
}
