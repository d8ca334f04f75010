//! Facts about this machine and process, as Linux tells them; `None` or zero elsewhere.

use serde::Serialize;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// The machine.
#[derive(Serialize)]
pub struct Host {
    cpu: String,
    cpus: usize,
    mem_gb: f64,
    kernel: String,
}

impl Host {
    /// This machine.
    pub fn this() -> Host {
        let cpu = |name| field("/proc/cpuinfo", name).unwrap_or_else(|| "?".to_owned());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Host {
            cpu: format!("{} (family {}, model {})", cpu("model name"), cpu("cpu family"), cpu("model")),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            mem_gb: kilobytes("/proc/meminfo", "MemTotal").map_or(0.0, |kb| (kb / 104_857.6).round() / 10.0),
            kernel: kernel.trim().to_owned(),
        }
    }
}

/// Resident memory of this process, in MB.
pub fn rss_mb() -> Option<u64> {
    status_mb("VmRSS")
}

/// The largest that [`rss_mb`] was since the start or [`reset_peak`].
pub fn peak_rss_mb() -> Option<u64> {
    status_mb("VmHWM")
}

/// Forgets the peak; where the system does not allow that, later peaks include earlier ones.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Running and waiting processes of the last minute.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Now, as `2026-01-31T12:00:00Z`.
pub fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (year, month, day) = quearn_stage::graph::literal::civil_from_days((seconds / 86_400) as i64);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Processor time since the machine and the process started, in seconds.
#[derive(Clone, Copy)]
pub struct CpuTime {
    busy: f64,
    steal: f64,
    own: f64,
}

/// Who used the processors while something was measured; measurements are clean when `other_cpu_s` is near zero.
#[derive(Serialize)]
pub struct Others {
    wall_s: f64,
    own_cpu_s: f64,
    other_cpu_s: f64,
    steal_s: f64,
}

impl CpuTime {
    /// Until now.
    pub fn now() -> Option<CpuTime> {
        // Linux counts in hundredths for every program, whatever the kernel's own clock is.
        let seconds = |ticks: &[f64], which: &[usize]| which.iter().filter_map(|&i| ticks.get(i)).sum::<f64>() / 100.0;
        let all = fs::read_to_string("/proc/stat").ok()?;
        let all = numbers(all.lines().next()?.strip_prefix("cpu")?);
        let own = fs::read_to_string("/proc/self/stat").ok()?;
        let own = numbers(own.rsplit_once(')')?.1);
        let (user, system) = (10, 11);
        Some(CpuTime {
            busy: seconds(&all, &[0, 1, 2, 5, 6]),
            steal: seconds(&all, &[7]),
            own: seconds(&own, &[user, system]),
        })
    }

    /// Who used the processors from here to `end`.
    pub fn until(self, end: CpuTime, wall_s: f64) -> Others {
        let hundredths = |x: f64| (x * 100.0).round() / 100.0;
        let own = end.own - self.own;
        Others {
            wall_s: hundredths(wall_s),
            own_cpu_s: hundredths(own),
            other_cpu_s: hundredths(end.busy - self.busy - own),
            steal_s: hundredths(end.steal - self.steal),
        }
    }
}

/// The words after the first, which is a letter in `/proc/self/stat`, as numbers.
fn numbers(line: &str) -> Vec<f64> {
    line.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn status_mb(name: &str) -> Option<u64> {
    kilobytes("/proc/self/status", name).map(|kb| (kb / 1024.0).round() as u64)
}

fn kilobytes(file: &str, name: &str) -> Option<f64> {
    field(file, name)?.split(' ').next()?.parse().ok()
}

/// The value in the first line `name: value`.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_owned())
}
