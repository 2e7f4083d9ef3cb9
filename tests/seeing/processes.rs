//! Programs that a test starts and stops, and the little HTTP that it speaks with them.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A program that ends with the test.
pub struct Program(Child);

impl Program {
    pub fn start(command: &mut Command, log: &Path) -> Program {
        let file = std::fs::File::create(log).expect("a log file");
        let errors = file.try_clone().expect("the same file");
        let child = command
            .stdout(Stdio::from(file))
            .stderr(Stdio::from(errors))
            .spawn();
        Program(child.unwrap_or_else(|error| panic!("{command:?}: {error}: see scripts/setup.sh test")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to stop.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory of a test's own, gone with the test.
pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Place {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(format!("target/seeing/{}_{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Place(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(&self.0).expect("the directory goes");
        }
    }
}

/// A port of the loopback that nobody listens at.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// The body of an answer; none while nobody answers, or with something else than 200.
pub fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.0 200").then(|| body.to_string())
}

/// Serves one text to whoever asks, until the test's process ends.
pub fn serve(text: String, content_type: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream, &text, content_type);
        }
    });
    port
}

fn answer(mut stream: TcpStream, text: &str, content_type: &str) {
    let mut asked = [0; 4096];
    // Whoever hangs up asks again.
    if stream.read(&mut asked).is_ok() {
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
    }
}

/// A Prometheus that scrapes these jobs every five seconds: a scrape that a busy machine makes late is lost.
pub struct Prometheus {
    _program: Program,
    port: u16,
    log: PathBuf,
}

impl Prometheus {
    pub fn start(place: &Place, jobs: &[(&str, u16)], rules: Option<&Path>) -> Prometheus {
        let port = free_port();
        let mut config =
            "global:\n  scrape_interval: 5s\n  scrape_timeout: 5s\n  evaluation_interval: 5s\n".to_string();
        if let Some(rules) = rules {
            config += &format!("rule_files: ['{}']\n", rules.display());
        }
        config += "scrape_configs:\n";
        for (job, port) in jobs {
            config +=
                &format!("  - job_name: {job}\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n");
        }
        let config = place.write("prometheus.yml", &config);
        let log = place.0.join("prometheus.log");
        let program = Program::start(
            Command::new("prometheus")
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", place.0.join("data").display()))
                .arg(format!("--web.listen-address=127.0.0.1:{port}")),
            &log,
        );
        Prometheus {
            _program: program,
            port,
            log,
        }
    }

    /// The results of a query, as Prometheus gives them, once there are any.
    pub fn query(&self, query: &str) -> Vec<serde_json::Value> {
        let encoded: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        let started = Instant::now();
        loop {
            let answer = get(self.port, &format!("/api/v1/query?query={encoded}"));
            if let Some(answer) = answer {
                let answer: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
                let result = answer["data"]["result"].as_array().expect("a vector").clone();
                if !result.is_empty() {
                    return result;
                }
            }
            assert!(
                started.elapsed() < Duration::from_secs(120),
                "{query} has no value; targets: {:?}; log: {}",
                get(self.port, "/api/v1/targets"),
                std::fs::read_to_string(&self.log).unwrap_or_default()
            );
            std::thread::yield_now();
        }
    }

    /// The value of the only result of a query.
    pub fn value(&self, query: &str) -> f64 {
        let result = self.query(query);
        assert_eq!(result.len(), 1, "{query}: {result:?}");
        result[0]["value"][1]
            .as_str()
            .expect("a text")
            .parse()
            .expect("a number")
    }
}
