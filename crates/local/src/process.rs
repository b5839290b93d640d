//! One program, kept running: started again after it ends, later each time, until told to stop.
//!
//! Owns the program's process group and its log. Never lets a log grow past [`MAX_LOG_BYTES`] nor holds more than the
//! last lines of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};

use crate::protocol::Event;

#[cfg(test)]
mod tests;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// A program that ran this long is not counted as crashing again.
const GOOD_RUN: Duration = Duration::from_secs(10);
/// How long a program may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
const MAX_LINE_BYTES: u64 = 8192;
const MAX_LOG_BYTES: u64 = 16 << 20;
/// Shown when a program ends of itself.
const LAST_LINES: usize = 8;

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    /// For log lines: `pod/container`.
    pub label: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub folder: PathBuf,
    pub log: PathBuf,
    pub verbose: bool,
}

/// Whether a program runs, for others to look at while it is supervised.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life(Arc<Mutex<Phase>>);

#[derive(Debug, Default)]
struct Phase {
    /// How long it must run until it counts.
    probation: Duration,
    started: Option<Instant>,
}

impl Life {
    /// The program runs, has done so for so long at least and, where it ended before, for as long as that made it wait.
    pub fn is_steady(&self, least: Duration) -> bool {
        let phase = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        phase.started.is_some_and(|started| started.elapsed() >= least.max(phase.probation))
    }

    fn set(&self, probation: Duration, started: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Phase { probation, started };
    }
}

/// Where events go; when the reader is behind, lines of output are dropped, nothing else.
pub(crate) type Events = mpsc::Sender<Event>;

/// Returns once `stop` is true, or nobody can make it so any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Runs `program` until `stop` becomes true.
pub(crate) async fn supervise(program: Program, events: Events, mut stop: watch::Receiver<bool>, life: Life) {
    let mut pause = FIRST_PAUSE;
    let mut starts = 0u32;
    let mut log = Log::open(program.log.clone());
    while !*stop.borrow() {
        starts += 1;
        let started = Instant::now();
        let probation = if starts == 1 { Duration::ZERO } else { pause };
        let ending = match start(&program) {
            Ok(child) => {
                life.set(probation, Some(started));
                run(child, &program, &mut log, &events, &mut stop).await
            }
            Err(error) => Some(format!("{}: {error}", program.program.display())),
        };
        life.set(probation, None);
        let Some(reason) = ending else { return };
        if started.elapsed() >= GOOD_RUN {
            pause = FIRST_PAUSE;
        }
        let label = &program.label;
        let mut text = format!("{label}: {reason}; starting it again in {:.1} s (run {starts})", pause.as_secs_f64());
        for line in log.last.drain(..) {
            text.push_str(&format!("\n  {line}"));
        }
        let _ = events.send(Event::Line { text }).await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stopped(&mut stop) => return,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// One run; the reason why it ended, or none if it was told to.
async fn run(
    mut child: Child,
    program: &Program,
    log: &mut Log,
    events: &Events,
    stop: &mut watch::Receiver<bool>,
) -> Option<String> {
    let leader = child.id();
    let (lines, mut printed) = mpsc::channel::<String>(256);
    let streams: [Option<Box<dyn AsyncRead + Unpin + Send>>; 2] =
        [child.stdout.take().map(|s| Box::new(s) as _), child.stderr.take().map(|s| Box::new(s) as _)];
    for stream in streams.into_iter().flatten() {
        tokio::spawn(read_lines(stream, lines.clone()));
    }
    drop(lines);
    let mut told = false;
    let status = loop {
        tokio::select! {
            Some(line) = printed.recv() => show(program, log, events, line),
            status = child.wait() => break status,
            () = stopped(stop), if !told => {
                told = true;
                end(&mut child, leader).await;
            }
        }
    };
    // What the program started and left behind goes with it.
    kill_group(leader, Signal::SIGKILL);
    while let Ok(Some(line)) = tokio::time::timeout(Duration::from_millis(20), printed.recv()).await {
        show(program, log, events, line);
    }
    (!told).then(|| status.map_or_else(|error| error.to_string(), describe))
}

fn start(program: &Program) -> std::io::Result<Child> {
    let mut command = Command::new(&program.program);
    command.args(&program.arguments).envs(program.environment.iter().cloned()).current_dir(&program.folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    command.spawn()
}

/// Asks, waits, and then insists.
async fn end(child: &mut Child, leader: Option<u32>) {
    kill_group(leader, Signal::SIGTERM);
    if tokio::time::timeout(GRACE, child.wait()).await.is_err() {
        kill_group(leader, Signal::SIGKILL);
    }
}

fn kill_group(leader: Option<u32>, signal: Signal) {
    if let Some(leader) = leader.and_then(|id| i32::try_from(id).ok()) {
        let _ = killpg(Pid::from_raw(leader), signal);
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

async fn read_lines(stream: impl AsyncRead + Unpin, lines: mpsc::Sender<String>) {
    let mut reader = BufReader::new(stream);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match (&mut reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let line = String::from_utf8_lossy(&buffer).trim_end_matches(['\n', '\r']).to_owned();
                if lines.send(line).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn show(program: &Program, log: &mut Log, events: &Events, line: String) {
    log.write(&line);
    if program.verbose {
        // Losing a line of output is better than waiting for the terminal.
        let _ = events.try_send(Event::Output { source: program.label.clone(), text: line });
    }
}

/// A file that begins anew when it is full, after moving the old one aside.
struct Log {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    last: VecDeque<String>,
}

impl Log {
    fn open(path: PathBuf) -> Self {
        let file = File::create(&path).ok();
        Log { path, file, bytes: 0, last: VecDeque::new() }
    }

    fn write(&mut self, line: &str) {
        self.last.push_back(line.to_owned());
        if self.last.len() > LAST_LINES {
            self.last.pop_front();
        }
        self.bytes += line.len() as u64 + 1;
        if self.bytes > MAX_LOG_BYTES {
            let _ = std::fs::rename(&self.path, self.path.with_extension("log.1"));
            self.file = File::create(&self.path).ok();
            self.bytes = 0;
        }
        if let Some(file) = &mut self.file {
            let _ = writeln!(file, "{line}");
        }
    }
}
