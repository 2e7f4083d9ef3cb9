//! What a run did, counted by kind, and the log of one seed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters by group and name, over all seeds of a run.
#[derive(Default)]
pub struct Totals(Mutex<BTreeMap<(&'static str, String), u64>>);

impl Totals {
    pub fn count(&self, group: &'static str, name: &str) {
        self.add(group, name, 1);
    }

    pub fn add(&self, group: &'static str, name: &str, number: u64) {
        let mut counters = self.0.lock().expect("no thread panics while it counts");
        *counters.entry((group, name.into())).or_default() += number;
    }

    /// The counters of a group, most frequent first, after their sum.
    fn line(&self, group: &str) -> String {
        let counters = self.0.lock().expect("no thread panics while it counts");
        let mut found: Vec<_> = counters
            .iter()
            .filter(|((g, _), _)| *g == group)
            .map(|((_, name), number)| (*number, name.clone()))
            .collect();
        found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let sum: u64 = found.iter().map(|(number, _)| number).sum();
        let parts: Vec<_> = found.iter().map(|(n, name)| format!("{name} {n}")).collect();
        format!("{group}: {sum} ({})", parts.join(", "))
    }

    /// Prints each of `groups` as one line; docs/reliability.md holds such lines.
    pub fn print(&self, groups: &[&str]) {
        for group in groups {
            println!("{}", self.line(group));
        }
    }
}

/// What all threads of one seed share.
pub struct Run<'a> {
    pub totals: &'a Totals,
    pub name: String,
    started: Instant,
    log: Mutex<Vec<(Duration, Duration, String, String)>>,
    /// Operations done by all sessions.
    pub operations: AtomicU64,
    /// Sessions that write, and do not wait for the driver.
    pub writers: AtomicU64,
    /// Somebody failed, or the time has come to end.
    pub stop: AtomicBool,
    /// The server is being killed: lost connections are no failure.
    pub killing: AtomicBool,
}

impl<'a> Run<'a> {
    pub fn new(name: String, totals: &'a Totals) -> Run<'a> {
        Run {
            totals,
            name,
            started: Instant::now(),
            log: Mutex::default(),
            operations: AtomicU64::new(0),
            writers: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            killing: AtomicBool::new(false),
        }
    }

    /// The time since the seed began.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Logs what began at `begin` and has ended now.
    pub fn log(&self, who: &str, begin: Duration, what: String) {
        let mut log = self.log.lock().expect("no thread panics while it logs");
        log.push((begin, self.now(), who.into(), what));
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    pub fn is_killing(&self) -> bool {
        self.killing.load(Ordering::SeqCst)
    }

    /// Waits until `operations` more are done, at most for `longest`: what is held meanwhile blocks others, perhaps all.
    pub fn wait_for_operations(&self, operations: u64, longest: Duration) {
        let wanted = self.operations.load(Ordering::SeqCst) + operations;
        let started = Instant::now();
        while self.operations.load(Ordering::SeqCst) < wanted
            && started.elapsed() < longest
            && self.writers.load(Ordering::SeqCst) > 0
            && !self.is_stopped()
            && !self.is_killing()
        {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Writes the log of all sessions in the order of time; gives its path.
    pub fn write_log(&self) -> PathBuf {
        self.write_log_beside("")
    }

    /// The same, of a second part of the seed.
    pub fn write_log_beside(&self, part: &str) -> PathBuf {
        let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/stress");
        std::fs::create_dir_all(&directory).expect("target/ is writable");
        let path = directory.join(format!("{}{part}.log", self.name));
        let mut log = self.log.lock().expect("no thread panics while it logs");
        log.sort_by_key(|(_, end, _, _)| *end);
        let milliseconds = |at: &Duration| at.as_secs_f64() * 1000.0;
        let text: String = log
            .iter()
            .map(|(begin, end, who, what)| {
                format!(
                    "{:9.2} {:9.2} {who:10} {what}\n",
                    milliseconds(begin),
                    milliseconds(end)
                )
            })
            .collect();
        std::fs::write(&path, text).expect("target/ is writable");
        path
    }
}
