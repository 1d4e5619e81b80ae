// SPDX-License-Identifier: Apache-2.0
//! What the figures were measured on.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

/// As far as it can be told; what cannot is absent.
pub(crate) struct Machine {
    cpu: Option<String>,
    threads: Option<usize>,
    memory_gb: Option<u64>,
    os: Option<String>,
    kernel: Option<String>,
    rustc: Option<String>,
    prometheus: Option<String>,
    /// How many processors others used in the moment before. (The load of the last minute would count the build of this
    /// program.)
    load: Option<f64>,
}

/// Above this share of the processors others are at work.
const BUSY: f64 = 0.25;
/// How long others are watched.
const MOMENT: Duration = Duration::from_secs(2);

impl Machine {
    /// This one, as it stands before anything is measured.
    pub(crate) fn of_this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            let value = line.trim_start_matches([':', '=', ' ', '\t']).trim_matches('"').trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        Self {
            cpu: value(&read("/proc/cpuinfo"), "model name"),
            threads: thread::available_parallelism().map(usize::from).ok(),
            memory_gb: memory
                .and_then(|kb| kb.trim_end_matches(" kB").parse::<u64>().ok())
                .map(|kb| (kb * 1024).div_ceil(1 << 30)),
            os: value(&read("/etc/os-release"), "PRETTY_NAME"),
            kernel: Some(read("/proc/sys/kernel/osrelease").trim().to_owned())
                .filter(|kernel| !kernel.is_empty()),
            rustc: version("rustc"),
            prometheus: version("prometheus")
                .map(|text| text.split(" (").next().unwrap_or(&text).replace(", version", "")),
            load: processors_at_work(),
        }
    }

    /// What to say where others were at work, whose traces are in the figures.
    pub(crate) fn warning(&self) -> Option<String> {
        let (load, threads) = (self.load?, self.threads?);
        (load > threads as f64 * BUSY).then(|| {
            format!(
                "The machine was busy with other work ({load:.1} processors before the run began): \
                 times, and ratios of them, are not to be trusted."
            )
        })
    }

    /// In one line, for people.
    pub(crate) fn line(&self) -> String {
        let unknown = || "unknown".to_owned();
        let count = |count: Option<String>| count.unwrap_or_else(unknown);
        let mut parts = vec![
            self.cpu.clone().unwrap_or_else(unknown),
            format!("{} threads", count(self.threads.map(|it| it.to_string()))),
            format!("{} GiB of memory", count(self.memory_gb.map(|it| it.to_string()))),
            format!("{} ({})", self.os.clone().unwrap_or_else(unknown), std::env::consts::ARCH),
            format!("kernel {}", self.kernel.clone().unwrap_or_else(unknown)),
            self.rustc.clone().unwrap_or_else(|| "rustc unknown".to_owned()),
        ];
        parts.extend(self.prometheus.clone());
        parts.join(", ")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "cpu": self.cpu,
            "threads": self.threads,
            "memory_gb": self.memory_gb,
            "system": self.os,
            "kernel": self.kernel,
            "rustc": self.rustc,
            "prometheus": self.prometheus,
            "load": self.load,
        })
    }
}

/// How many processors are used while this program waits.
fn processors_at_work() -> Option<f64> {
    // Ticks of all processors together, and those of them in which one had nothing to do or waited for a disk.
    let ticks = || {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let of_all = stat.lines().next()?.strip_prefix("cpu ")?.trim();
        let ticks: Vec<f64> = of_all.split(' ').filter_map(|ticks| ticks.parse().ok()).collect();
        Some((ticks.iter().take(8).sum::<f64>(), ticks.get(3)? + ticks.get(4)?))
    };
    let (all, idle) = ticks()?;
    thread::sleep(MOMENT);
    let (all_then, idle_then) = ticks()?;
    let threads = thread::available_parallelism().ok()?.get() as f64;
    let share = 1.0 - (idle_then - idle) / (all_then - all);
    (share.is_finite()).then(|| (share * threads).max(0.0))
}

/// The first line of what a program says about itself.
fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    // Prometheus has said it on either.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).ok()?;
    Some(said.lines().next()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_said_to_be_one() {
        let of_load = |load| Machine { load: Some(load), threads: Some(2), ..Machine::of_this() };
        assert!(of_load(0.4).warning().is_none());
        assert!(of_load(9.0).warning().unwrap().contains("9.0 processors before"));
    }
}
