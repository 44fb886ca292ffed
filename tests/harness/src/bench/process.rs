//! Processor time and memory of processes, from `/proc`.

use std::fs;

use anyhow::{Context, Result};

/// Clock ticks per second in `/proc/PID/stat`: 100 on every Linux that the testbed supports.
const TICKS: f64 = 100.0;

/// Processor time that a process has used so far, in seconds.
///
/// # Errors
/// If it has exited.
pub fn processor_time(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("statistics of process {pid}"))?;
    let ticks = ticks(&stat).with_context(|| format!("statistics of process {pid}"))?;
    Ok(f64::from(ticks) / TICKS)
}

/// User and system time. The command name may contain anything, so fields are counted from its last
/// bracket.
fn ticks(stat: &str) -> Option<u32> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..]
        .split_ascii_whitespace()
        .collect();
    Some(fields.get(11)?.parse::<u32>().ok()? + fields.get(12)?.parse::<u32>().ok()?)
}

/// Processor time that the whole machine has used so far, in seconds.
///
/// # Errors
/// If the kernel does not report it.
pub fn machine_time() -> Result<f64> {
    let stat = fs::read_to_string("/proc/stat").context("statistics of the machine")?;
    busy_ticks(&stat)
        .map(|ticks| ticks / TICKS)
        .context("statistics of the machine")
}

/// Everything but idle time and waiting for disks. Time of guests is part of user time.
fn busy_ticks(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<f64> = line
        .split_ascii_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let all: f64 = fields.iter().take(8).sum();
    Some(all - fields.get(3)? - fields.get(4)?)
}

/// Resident memory of a process in megabytes of 1,000,000 bytes.
///
/// # Errors
/// If it has exited.
pub fn resident(pid: u32) -> Result<f64> {
    memory(pid, "VmRSS:")
}

/// The most resident memory that a process has had so far, in megabytes of 1,000,000 bytes.
///
/// # Errors
/// If it has exited.
pub fn most_resident(pid: u32) -> Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Result<f64> {
    let what = || format!("memory of process {pid}");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(what)?;
    Ok(bytes_of(&status, field).with_context(what)? / 1e6)
}

fn bytes_of(status: &str, field: &str) -> Option<f64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u32 = value.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_and_memory_are_read_from_proc() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 31 11 0 0 20 0 5 0 4242 0 0";
        assert_eq!(ticks(stat), Some(42));
        let status = "VmHWM:\t   20 kB\nVmRSS:\t   12345 kB\n";
        assert_eq!(bytes_of(status, "VmRSS:"), Some(12_641_280.0));
        assert_eq!(bytes_of(status, "VmHWM:"), Some(20_480.0));
        assert_eq!(bytes_of("VmHWM:\t   20 kB\n", "VmRSS:"), None);
    }

    #[test]
    fn machine_is_busy_unless_idle_or_waiting_for_disks() {
        let stat = "cpu  10 1 5 900 80 1 2 3 7 0\ncpu0 10 1 5 900 80 1 2 3 7 0\n";
        assert_eq!(busy_ticks(stat), Some(22.0));
    }
}
