//! The budget of upstream bytes: rates, hours, bytes of a day, and whose turn it is. What is stored is served however the
//! budget stands; only what comes from a source passes here.
//!
//! [`Calendar`], `bucket`, `turns` and `day` are pure; here are the clock, the lock and who waits.

mod bucket;
mod calendar;
mod day;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod spending;
mod turns;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::telemetry::Metrics;

pub use calendar::{Calendar, Limit, Window};
pub(super) use spending::Spending;
pub use spending::Toll;
pub use turns::{Standing, Urgency};

use bucket::Bucket;
use day::Day;
use turns::{Turns, Waiting};

/// How long what the clock said holds: a window begins at most so late.
const LOOK: Duration = Duration::from_millis(500);
/// How often the keeper looks.
const TICK: Duration = Duration::from_secs(1);
/// How often the bytes of the day are written down: what a kill forgets of them.
const SAVE: Duration = Duration::from_secs(5);
/// Longest pause of who hands out turns: changes are noticed by then.
const PAUSE: Duration = Duration::from_millis(250);
/// Smallest and largest piece that is handed out at once, in bytes.
const PIECES: (u64, u64) = (16 * 1024, 256 * 1024);
/// A piece is what comes in this part of a second.
const PART: u64 = 64;
/// What never opens is looked at again after this.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What may come from upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetSettings {
    /// The limits of a week.
    pub calendar: Calendar,
    /// Most bytes of a day of the calendar's zone.
    pub daily: Option<u64>,
    /// Bytes per second of single sources: parents by their origin, origins by their rule.
    pub sources: HashMap<Arc<str>, u64>,
}

/// Why nothing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shut {
    /// When it opens, as far as is known.
    pub(super) until: Instant,
    /// The same moment, if there is one.
    opens: Option<Timestamp>,
    /// The bytes of the day have come.
    is_spent: bool,
}

/// The budget. One for all sources.
pub(super) struct Budget {
    state: Mutex<State>,
    /// There is nothing to obey.
    is_free: AtomicBool,
    changed: Arc<Notify>,
    /// Somebody waits for a turn who was not there when the last ones were handed out.
    queued: Arc<Notify>,
    metrics: Arc<Metrics>,
    file: Option<PathBuf>,
}

struct State {
    settings: Arc<BudgetSettings>,
    looked: Option<Instant>,
    limit: Limit,
    shut: Option<Shut>,
    total: Bucket,
    sources: HashMap<Arc<str>, Bucket>,
    turns: Turns<oneshot::Sender<u64>>,
    /// Whether a task hands out turns.
    is_served: bool,
    day: Day,
    /// Bytes of the day that are written down.
    saved: u64,
}

impl BudgetSettings {
    fn is_empty(&self) -> bool {
        self.calendar.is_empty() && self.daily.is_none() && self.sources.is_empty()
    }
}

impl Shut {
    /// Why, and until when.
    fn text(&self, settings: &BudgetSettings) -> String {
        let why = if self.is_spent { "the bytes of the day have come" } else { "by its hours" };
        match self.opens {
            Some(opens) => {
                let opens = opens.to_zoned(settings.calendar.zone.clone()).strftime("%F %T %Z").to_string();
                format!("the upstream budget is closed until {opens}: {why}")
            }
            None => format!("the upstream budget is closed: {why}"),
        }
    }
}

impl Budget {
    /// A budget; `file` keeps the bytes of the day.
    pub(super) fn new(settings: BudgetSettings, file: Option<PathBuf>, metrics: Arc<Metrics>) -> Arc<Self> {
        let now = Instant::now();
        let today = settings.calendar.day(wall_clock());
        let day = file.as_ref().and_then(|path| {
            Day::load(path).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "the bytes of the day begin at none");
                None
            })
        });
        let day = day.unwrap_or(Day::new(today));
        let state = State {
            looked: None,
            limit: Limit::None,
            shut: None,
            total: Bucket::new(now),
            sources: HashMap::new(),
            turns: Turns::default(),
            is_served: false,
            saved: day.bytes,
            day,
            settings: Arc::new(settings),
        };
        let budget = Arc::new(Self {
            is_free: AtomicBool::new(state.settings.is_empty()),
            state: Mutex::new(state),
            changed: Arc::default(),
            queued: Arc::default(),
            metrics,
            file,
        });
        budget.look(&mut budget.state.lock(), now);
        budget
    }

    /// Obeys other settings from now on.
    pub(super) fn change(&self, settings: BudgetSettings) {
        let mut state = self.state.lock();
        self.is_free.store(settings.is_empty(), Ordering::Release);
        state.settings = Arc::new(settings);
        state.looked = None;
        self.look(&mut state, Instant::now());
        drop(state);
        self.changed.notify_waiters();
        self.queued.notify_one();
    }

    /// Whether there is anything to obey.
    pub(super) fn is_obeyed(&self) -> bool {
        !self.is_free.load(Ordering::Acquire)
    }

    /// Whether, and until when, nothing is asked for.
    pub(super) fn shut(&self) -> Option<Shut> {
        if !self.is_obeyed() {
            return None;
        }
        let mut state = self.state.lock();
        self.look(&mut state, Instant::now());
        state.shut
    }

    /// The same in words.
    pub(super) fn shut_text(&self) -> Option<String> {
        let shut = self.shut()?;
        let settings = Arc::clone(&self.state.lock().settings);
        Some(shut.text(&settings))
    }

    /// Bytes have come.
    fn received(&self, bytes: u64) {
        if !self.is_obeyed() {
            return;
        }
        let mut state = self.state.lock();
        state.day.bytes = state.day.bytes.saturating_add(bytes);
        self.metrics.upstream_budget_day.set(i64::try_from(state.day.bytes).unwrap_or(i64::MAX));
        if state.settings.daily.is_some_and(|daily| state.day.bytes >= daily) && state.shut.is_none() {
            state.looked = None;
        }
    }

    /// Looks at the clock, if that is due.
    fn look(&self, state: &mut State, now: Instant) {
        if state.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return;
        }
        state.looked = Some(now);
        let moment = wall_clock();
        let settings = Arc::clone(&state.settings);
        let calendar = &settings.calendar;
        state.day.turn_to(calendar.day(moment));
        state.limit = calendar.limit_at(moment);
        let is_spent = settings.daily.is_some_and(|daily| state.day.bytes >= daily);
        state.shut = (is_spent || state.limit == Limit::Closed).then(|| {
            let opens = calendar.opens_after(moment, is_spent);
            let wait = opens.map_or(NEVER, |opens| Duration::try_from(opens.duration_since(moment)).unwrap_or(NEVER));
            Shut { until: now + wait, opens, is_spent }
        });
        self.metrics.upstream_budget_open.set(i64::from(state.shut.is_none()));
        let rate = state.rate().filter(|_| state.shut.is_none()).unwrap_or(0);
        self.metrics.upstream_budget_rate.set(i64::try_from(rate).unwrap_or(i64::MAX));
        self.metrics.upstream_budget_day.set(i64::try_from(state.day.bytes).unwrap_or(i64::MAX));
    }

    /// Hands out what may come now. Returns how long nothing more may; `None` when nobody waits any more.
    fn hand_out(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut state = self.state.lock();
        self.look(&mut state, now);
        if state.limit == Limit::Closed {
            // Who is dropped unheard is told by that.
            state.turns.drain().for_each(drop);
        }
        state.turns.retain(|waiting| !waiting.tell.is_closed());
        state.refill(now);
        while state.total.has_some()
            && let Some(waiting) = state.next_turn()
        {
            let source = waiting.source.as_ref();
            let bytes = waiting.bytes.min(state.piece(source));
            state.take(source, bytes);
            if waiting.tell.send(bytes).is_err() {
                state.give_back(source, bytes);
            }
        }
        state.is_served = !state.turns.is_empty();
        state.is_served.then(|| state.pause())
    }

    /// Looks at the clock until the budget is gone: says when it closes and opens, calls `opened` then, and writes down
    /// the bytes of the day.
    pub(super) async fn keep(budget: Weak<Self>, opened: impl Fn()) {
        let mut was_shut = false;
        let mut saved = Instant::now();
        loop {
            let changed = {
                let Some(budget) = budget.upgrade() else { return };
                let text = budget.shut_text();
                if text.is_some() != was_shut {
                    was_shut = text.is_some();
                    match text {
                        Some(text) => tracing::info!("{text}"),
                        None => {
                            tracing::info!("the upstream budget is open");
                            opened();
                        }
                    }
                }
                if saved.elapsed() >= SAVE {
                    saved = Instant::now();
                    budget.save().await;
                }
                Arc::clone(&budget.changed)
            };
            let _ = tokio::time::timeout(TICK, changed.notified()).await;
        }
    }

    /// Writes down the bytes of the day, if there are more.
    pub(super) async fn save(&self) {
        let Some(path) = self.file.clone() else { return };
        let day = {
            let mut state = self.state.lock();
            if state.settings.daily.is_none() || state.saved == state.day.bytes {
                return;
            }
            state.saved = state.day.bytes;
            state.day
        };
        let shown = path.display().to_string();
        let saved = tokio::task::spawn_blocking(move || day.save(&path)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(path = shown, %error, "the bytes of the day cannot be written down");
        }
    }
}

impl State {
    fn rate(&self) -> Option<u64> {
        match self.limit {
            Limit::Rate(rate) => Some(rate),
            Limit::None | Limit::Closed => None,
        }
    }

    /// Lets time pass for all buckets. Those of sources that have no rate any more go.
    fn refill(&mut self, now: Instant) {
        let rate = self.rate();
        self.total.turn_to(now, rate);
        let settings = &self.settings;
        self.sources.retain(|name, _| settings.sources.contains_key(name));
        for (name, rate) in &settings.sources {
            let bucket = self.sources.entry(Arc::clone(name)).or_insert_with(|| Bucket::new(now));
            bucket.turn_to(now, Some(*rate));
        }
    }

    fn bucket_of(&mut self, source: Option<&Arc<str>>) -> Option<&mut Bucket> {
        self.sources.get_mut(source?)
    }

    fn next_turn(&mut self) -> Option<Waiting<oneshot::Sender<u64>>> {
        let rate = self.rate();
        let Self { sources, turns, settings, .. } = self;
        let rate_of = |source: &Arc<str>| settings.sources.get(source).copied();
        turns.next(rate, rate_of, |source| sources.get(source).is_none_or(Bucket::has_some))
    }

    /// Whether one of those who wait could have bytes now: they come first.
    fn somebody_is_next(&self) -> bool {
        let may = |source: &Arc<str>| self.sources.get(source).is_none_or(Bucket::has_some);
        self.turns.iter().any(|waiting| waiting.source.as_ref().is_none_or(may))
    }

    /// How much is handed out at once.
    fn piece(&self, source: Option<&Arc<str>>) -> u64 {
        let own = source.and_then(|source| self.settings.sources.get(source)).copied();
        let rate = match (self.rate(), own) {
            (Some(rate), Some(own)) => rate.min(own),
            (rate, own) => rate.or(own).unwrap_or(u64::MAX),
        };
        (rate / PART).clamp(PIECES.0, PIECES.1)
    }

    fn take(&mut self, source: Option<&Arc<str>>, bytes: u64) {
        self.total.take(bytes);
        self.bucket_of(source).into_iter().for_each(|bucket| bucket.take(bytes));
    }

    fn give_back(&mut self, source: Option<&Arc<str>>, bytes: u64) {
        self.total.give_back(bytes);
        self.bucket_of(source).into_iter().for_each(|bucket| bucket.give_back(bytes));
    }

    /// How long nothing may be handed out.
    fn pause(&self) -> Duration {
        let of_source = |source: &Option<Arc<str>>| self.sources.get(source.as_ref()?);
        let sources =
            self.turns.iter().map(|waiting| of_source(&waiting.source).map_or(Duration::ZERO, |it| it.wait(PAUSE)));
        let source = sources.min().unwrap_or(PAUSE);
        self.total.wait(PAUSE).max(source).max(Duration::from_millis(1))
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("settings", &self.state.lock().settings).finish_non_exhaustive()
    }
}

/// Gives those who wait their turns, until nobody does.
async fn serve(budget: Weak<Budget>) {
    loop {
        let (pause, queued) = {
            let Some(budget) = budget.upgrade() else { return };
            let Some(pause) = budget.hand_out() else { return };
            (pause, Arc::clone(&budget.queued))
        };
        let _ = tokio::time::timeout(pause, queued.notified()).await;
    }
}

fn wall_clock() -> Timestamp {
    Timestamp::try_from(clock::now()).unwrap_or(Timestamp::UNIX_EPOCH)
}
