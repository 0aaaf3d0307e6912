//! [`Pool`]: a few named threads that run blocking jobs, so that no async worker ever waits for a disk.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::pulse::Pulse;

type Job = Box<dyn FnOnce() + Send>;

/// The threads of one drive. Jobs begin in the order they came.
#[derive(Clone)]
pub(super) struct Pool {
    queue: Arc<Queue>,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
    /// Of the drive that they work for.
    pulse: Option<Arc<Pulse>>,
}

/// How often it is looked whether threads have ended.
const LOOK: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Pool {
    /// Starts `threads` threads, named after `name`.
    ///
    /// # Errors
    /// When the system refuses a thread.
    #[cfg(test)]
    pub(super) fn start(name: &str, threads: usize) -> io::Result<Self> {
        Self::with(name, threads, None)
    }

    /// The same for a drive: nobody waits for a job of it once it does not give what it has.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(super) fn of_drive(name: &str, threads: usize, pulse: &Arc<Pulse>) -> io::Result<Self> {
        Self::with(name, threads, Some(Arc::clone(pulse)))
    }

    fn with(name: &str, threads: usize, pulse: Option<Arc<Pulse>>) -> io::Result<Self> {
        let pool = Self { queue: Arc::default(), threads: Arc::default(), pulse };
        for number in 0..threads {
            let (queue, pulse) = (Arc::clone(&pool.queue), pool.pulse.clone());
            let work = move || {
                pulse.inspect(Pulse::adopt_thread);
                queue.work();
            };
            let started = thread::Builder::new().name(format!("{name}-{number}")).spawn(work);
            match started {
                Ok(thread) => pool.threads.lock().push(thread),
                Err(error) => {
                    pool.close();
                    return Err(error);
                }
            }
        }
        Ok(pool)
    }

    /// Runs `job` on one of the threads. It is queued at once, whether or not the future is polled, and runs to
    /// its end even when the future is dropped.
    ///
    /// # Errors
    /// When the job panicked, the pool is closed, or its drive is out of service or goes so before the job has ended.
    pub(super) fn run<T: Send + 'static, J: FnOnce() -> T + Send + 'static>(
        &self,
        job: J,
    ) -> impl Future<Output = io::Result<T>> + Send + use<T, J> {
        let (answer, answered) = oneshot::channel();
        self.queue.push(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            // Nobody waits any more: the job was done for its effect.
            let _ = answer.send(outcome);
        }));
        let pulse = self.pulse.clone();
        async move {
            let gone = async {
                match &pulse {
                    Some(pulse) => pulse.gone().await,
                    None => std::future::pending().await,
                }
            };
            let answered = tokio::select! {
                biased;
                answered = answered => answered,
                () = gone => return Err(io::Error::other("the drive is out of service")),
            };
            match answered {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(panic)) => Err(io::Error::other(format!("a job panicked: {}", panic_text(panic.as_ref())))),
                Err(_) => Err(io::Error::other("the store is closed")),
            }
        }
    }

    /// Refuses new jobs; the threads end after those that are queued.
    pub(super) fn close(&self) {
        self.queue.state.lock().closed = true;
        self.queue.changed.notify_all();
    }

    /// Waits until the threads have ended, or until `is_left` says that they are left behind.
    pub(super) fn join_unless(&self, is_left: impl Fn() -> bool) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            join_unless(thread, &is_left);
        }
    }
}

/// Waits until the thread has ended, and returns what it left, or until `is_left` says that it is left behind.
pub(super) fn join_unless<T>(thread: JoinHandle<T>, is_left: impl Fn() -> bool) -> Option<T> {
    while !thread.is_finished() {
        if is_left() {
            return None;
        }
        thread::sleep(LOOK);
    }
    // One that panicked has left nothing to do.
    thread.join().ok()
}

impl Queue {
    fn push(&self, job: Job) {
        let mut state = self.state.lock();
        if !state.closed {
            state.jobs.push_back(job);
            self.changed.notify_one();
        }
    }

    fn work(&self) {
        loop {
            let mut state = self.state.lock();
            let job = loop {
                if let Some(job) = state.jobs.pop_front() {
                    break job;
                }
                if state.closed {
                    return;
                }
                self.changed.wait(&mut state);
            };
            drop(state);
            job();
        }
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_answer_panics_are_errors_and_a_closed_pool_refuses() {
        let pool = Pool::start("test", 2).unwrap();
        assert_eq!(pool.run(|| 6 * 7).await.unwrap(), 42);
        let error = pool.run(|| if true { panic!("as ordered") } else { 0 }).await.unwrap_err();
        assert!(error.to_string().contains("as ordered"), "{error}");
        assert_eq!(pool.run(|| 1).await.unwrap(), 1, "the thread survives");
        let queued = pool.run(|| 2);
        pool.close();
        assert_eq!(queued.await.unwrap(), 2, "what was queued still runs");
        assert!(pool.run(|| 3).await.is_err());
    }
}
