//! The thread that writes access logs.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use meltemi_plan::AccessLogSink;
use meltemi_telemetry::metrics::Scope;
use meltemi_telemetry::{Registry, Spec, stats};
use parking_lot::Mutex;

/// Buffers of a sink: workers hash to one of them, so that they seldom meet.
const SHARDS: usize = 8;
/// A buffer this full wakes the writer.
const WAKE: usize = 64 * 1024;
/// A buffer this full loses lines.
const FULL: usize = 4 * 1024 * 1024;
/// How long a line waits at most.
const DELAY: Duration = Duration::from_millis(200);

stats! {
    /// Under `filesystem.`, as Envoy's.
    struct WriterStats {
        write_buffered: Spec::counter("write_buffered"),
        write_completed: Spec::counter("write_completed"),
        write_failed: Spec::counter("write_failed"),
        write_dropped: Spec::counter("write_dropped"),
    }
}

/// Where lines of one destination wait.
pub struct Sink {
    target: AccessLogSink,
    shards: [Mutex<Vec<u8>>; SHARDS],
    stats: WriterStats,
    wake: SyncSender<Message>,
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sink({:?})", self.target)
    }
}

enum Message {
    Wake,
    /// Write everything, then answer.
    Flush(SyncSender<()>),
    Reopen,
}

impl Sink {
    /// Never waits for the disk.
    pub fn append(&self, line: &[u8]) {
        let mut buffer = self.shards[shard()].lock();
        if buffer.len() + line.len() > FULL {
            self.stats.write_dropped().inc();
            return;
        }
        let was = buffer.len();
        buffer.extend_from_slice(line);
        self.stats.write_buffered().inc();
        if was < WAKE && buffer.len() >= WAKE {
            // A full channel means that the writer is awake already.
            let _ = self.wake.try_send(Message::Wake);
        }
    }

    /// Takes what waits. Small buffers are kept for the next lines.
    fn drain(&self, out: &mut Vec<u8>) {
        for shard in &self.shards {
            let mut buffer = shard.lock();
            out.extend_from_slice(&buffer);
            buffer.clear();
            buffer.shrink_to(WAKE);
        }
    }
}

fn shard() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Relaxed) % SHARDS;
    }
    MINE.with(|mine| *mine)
}

/// The sinks of a process and their one thread.
#[derive(Debug)]
pub struct LogWriter {
    sinks: Arc<Mutex<Vec<Arc<Sink>>>>,
    stats: WriterStats,
    wake: SyncSender<Message>,
}

impl LogWriter {
    /// Starts the thread, which ends when the writer and all its sinks are gone. Without a thread nothing is written, and
    /// lines are counted as dropped.
    pub fn start(registry: &Registry) -> Arc<Self> {
        let (wake, messages) = sync_channel(16);
        let sinks: Arc<Mutex<Vec<Arc<Sink>>>> = Arc::default();
        let stats = WriterStats::new(registry, Scope::plain("filesystem"));
        let thread = Thread {
            sinks: Arc::downgrade(&sinks),
            messages,
            open: Vec::new(),
            failing: HashSet::new(),
            stats: stats.clone(),
        };
        let spawned = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || thread.run());
        if let Err(error) = spawned {
            tracing::error!(%error, "no access log thread");
        }
        Arc::new(Self { sinks, stats, wake })
    }

    /// The sink of a destination; the same one for each who asks.
    pub fn sink(&self, target: &AccessLogSink) -> Arc<Sink> {
        let mut sinks = self.sinks.lock();
        if let Some(sink) = sinks.iter().find(|s| s.target == *target) {
            return sink.clone();
        }
        let sink = Arc::new(Sink {
            target: target.clone(),
            shards: [const { Mutex::new(Vec::new()) }; SHARDS],
            stats: self.stats.clone(),
            wake: self.wake.clone(),
        });
        sinks.push(sink.clone());
        sink
    }

    /// Waits until what was appended before is written. Not for workers.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.wake.send(Message::Flush(done)).is_ok() {
            let _ = written.recv_timeout(Duration::from_secs(5));
        }
    }

    /// Opens files anew, after rotation.
    pub fn reopen(&self) {
        let _ = self.wake.send(Message::Reopen);
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

struct Thread {
    sinks: std::sync::Weak<Mutex<Vec<Arc<Sink>>>>,
    messages: Receiver<Message>,
    open: Vec<(Arc<Path>, File)>,
    /// Of which the log knows that they are not written; said once for each time that it begins.
    failing: HashSet<AccessLogSink>,
    stats: WriterStats,
}

impl Thread {
    fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            let message = self.messages.recv_timeout(DELAY);
            let Some(sinks) = self.sinks.upgrade() else { return };
            let all = sinks.lock().clone();
            drop(sinks);
            // Before what waits is written: what was logged after the question must not follow the old file.
            if matches!(message, Ok(Message::Reopen)) {
                self.reopen();
            }
            for sink in &all {
                batch.clear();
                sink.drain(&mut batch);
                if !batch.is_empty() {
                    self.write(&sink.target, &batch);
                }
            }
            batch.shrink_to(WAKE);
            match message {
                Ok(Message::Flush(done)) => {
                    let _ = done.send(());
                }
                Ok(Message::Reopen | Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn write(&mut self, target: &AccessLogSink, batch: &[u8]) {
        let result = match target {
            AccessLogSink::Stdout => io::stdout().write_all(batch).and_then(|()| io::stdout().flush()),
            AccessLogSink::Stderr => io::stderr().write_all(batch),
            AccessLogSink::File(path) if &**path == Path::new("/dev/stdout") => {
                io::stdout().write_all(batch).and_then(|()| io::stdout().flush())
            }
            AccessLogSink::File(path) if &**path == Path::new("/dev/stderr") => io::stderr().write_all(batch),
            AccessLogSink::File(path) => self.file(path).and_then(|file| file.write_all(batch)),
        };
        match result {
            Ok(()) => {
                self.stats.write_completed().inc();
                self.failing.remove(target);
            }
            Err(error) => {
                self.stats.write_failed().inc();
                if self.failing.insert(target.clone()) {
                    tracing::warn!(%error, ?target, "access log not written");
                }
            }
        }
    }

    /// At once, so that whoever moved a file away finds the next one in its place.
    fn reopen(&mut self) {
        for (path, file) in &mut self.open {
            match append_to(path) {
                Ok(opened) => *file = opened,
                Err(error) => tracing::warn!(%error, path = %path.display(), "access log not opened anew"),
            }
        }
    }

    fn file(&mut self, path: &Arc<Path>) -> io::Result<&mut File> {
        if let Some(at) = self.open.iter().position(|(p, _)| p == path) {
            return Ok(&mut self.open[at].1);
        }
        let file = append_to(path)?;
        self.open.push((path.clone(), file));
        let last = self.open.len() - 1;
        Ok(&mut self.open[last].1)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
