//! What a server process takes of memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Memory of a process that it shares with none, in kB.
fn private_kb(pid: i32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .expect("the process lives")
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .expect("the kernel says RssAnon")
}

/// The most private memory that `pid` has while `body` runs, in kB.
pub fn peak_kb(pid: i32, body: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(private_kb(pid));
                std::thread::sleep(Duration::from_millis(1));
            }
            most.max(private_kb(pid))
        });
        body();
        done.store(true, Ordering::Relaxed);
        sampler.join().expect("it samples")
    })
}
