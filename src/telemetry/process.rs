//! What the process uses: memory, descriptors, its age. Read from the system when somebody asks, not before.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::IntGauge;
use rustix::process::{Resource, getrlimit};

use super::names::Registrar;

/// Gauges about the process.
#[derive(Debug)]
pub(super) struct Process {
    started: Instant,
    resident_bytes: IntGauge,
    open_descriptors: IntGauge,
    descriptor_limit: IntGauge,
}

impl Process {
    /// Registers the gauges; the process counts as started now.
    pub(super) fn new(registrar: &Registrar) -> prometheus::Result<Self> {
        let start = registrar.gauge("process_start_time_seconds", "When the process started, in seconds since 1970")?;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        start.set(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX));
        Ok(Self {
            started: Instant::now(),
            resident_bytes: registrar.gauge("process_resident_bytes", "Memory of the process that is resident")?,
            open_descriptors: registrar.gauge("process_open_descriptors", "Open file descriptors of the process")?,
            descriptor_limit: registrar.gauge("process_descriptor_limit", "Most file descriptors it may open")?,
        })
    }

    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads the present values. What the system does not tell keeps its last value.
    pub(super) fn refresh(&self) {
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            self.resident_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // One of them is the descriptor that reads the directory.
            let open = entries.count().saturating_sub(1);
            self.open_descriptors.set(i64::try_from(open).unwrap_or(i64::MAX));
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            self.descriptor_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }
}

/// `VmRSS` of `/proc/self/status` in bytes; the kernel gives it in KiB and writes `kB`.
fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_file() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    1234 kB\nVmData:\t 9 kB\n"), Some(1234 * 1024));
        assert_eq!(resident_bytes("VmRSS:\t18446744073709551615 kB\n"), None);
        assert_eq!(resident_bytes("VmRSS:\t12 MB\n"), None);
        assert_eq!(resident_bytes(""), None);
    }

    #[test]
    fn a_refresh_reads_what_the_process_uses() {
        let process = Process::new(&Registrar::new().unwrap()).unwrap();
        process.refresh();
        assert!(process.resident_bytes.get() > 1024 * 1024);
        assert!(process.open_descriptors.get() > 2);
        assert!(process.descriptor_limit.get() >= process.open_descriptors.get());
    }
}
