//! What every service shares: where it finds its folders, how it says that it is ready and alive,
//! how it logs, and how it is asked to end.
//!
//! The keeper's promise to `eve-init` is the sd_notify protocol. The watchdog message is sent by a
//! task of the same single thread that runs the service: a service that blocks falls silent.

use std::future::Future;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use host::topics::{Reader, Roots, Watch};
use model::desired::LogLevel;
use model::services::Service;
use model::topic::{DesiredProperties, Only};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, reload};

/// Folders of the node. Tests give others through `EVE_RUN`, `EVE_PERSIST` and `EVE_CONFIG`.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// `/run/eve`: what does not outlive a boot.
    pub(crate) run: PathBuf,
    /// `/persist`: what does.
    pub(crate) persist: PathBuf,
    /// `/config`: the CONFIG partition, read-only.
    pub(crate) config: PathBuf,
}

impl Paths {
    fn from_env() -> Paths {
        let path = |variable, default: &str| {
            std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        Paths {
            run: path("EVE_RUN", "/run/eve"),
            persist: path("EVE_PERSIST", "/persist"),
            config: path("EVE_CONFIG", "/config"),
        }
    }
}

/// What a service is given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Which service this is.
    pub(crate) service: Service,
    /// Where things are.
    pub(crate) paths: Paths,
    notify: Notify,
    stop: watch::Receiver<bool>,
}

impl Context {
    /// Where topics are.
    pub(crate) fn roots(&self) -> Roots {
        Roots { run: self.paths.run.clone(), persist: self.paths.persist.join("status") }
    }

    /// Tells PID 1 that services which wait for this one may start.
    pub(crate) fn ready(&self) {
        tracing::info!("ready");
        let notify = self.notify.clone();
        if !notify.send("READY=1") {
            // It is said once only, and others may wait for it.
            tokio::spawn(async move {
                while !notify.send("READY=1") {
                    tokio::time::sleep(TELL_AGAIN).await;
                }
            });
        }
    }

    /// One line for whoever looks at PID 1's table of services.
    pub(crate) fn status(&self, text: &str) {
        self.notify.send(&format!("STATUS={}", text.replace('\n', " ")));
    }

    /// Returns once the service is asked to end. May be awaited any number of times.
    pub(crate) async fn stopped(&self) {
        stopped(&mut self.stopping()).await;
    }

    /// For a task of the service: to be given to [`stopped`].
    pub(crate) fn stopping(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }
}

/// Returns once the service is asked to end, and at once from then on.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the process's main task.
    let _ = stop.wait_for(|stop| *stop).await;
}

#[cfg(test)]
impl Context {
    /// A service of a test: all its folders are in one, and it ends when told through the sender.
    pub(crate) fn in_folder(
        service: Service,
        folder: &std::path::Path,
    ) -> (Context, watch::Sender<bool>) {
        let paths = Paths {
            run: folder.join("run"),
            persist: folder.join("persist"),
            config: folder.join("config"),
        };
        let (asked, stop) = watch::channel(false);
        (Context { service, paths, notify: Notify(None), stop }, asked)
    }
}

/// Runs one service to its end: logging, runtime, signals, watchdog.
pub(crate) fn start<F>(service: Service, run: fn(Context) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let log = log_to_stdout();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let result = runtime.block_on(keep(service, run, log));
            // A blocking call that hangs must not hold up the shutdown.
            runtime.shutdown_timeout(Duration::from_secs(1));
            result
        });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{service:?} ends: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn keep<F>(service: Service, run: fn(Context) -> F, log: Log) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + 'static,
{
    let (asked, stop) = watch::channel(false);
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        asked.send_replace(true);
        asked.closed().await;
    });
    let notify = Notify::from_env();
    if let Some(promise) = watchdog_promise() {
        let notify = notify.clone();
        tokio::spawn(async move {
            let mut beat = tokio::time::interval(promise / 3);
            loop {
                beat.tick().await;
                notify.send("WATCHDOG=1");
            }
        });
    }
    let ctx = Context { service, paths: Paths::from_env(), notify, stop };
    tokio::spawn(log.obey(service.name(), Reader::open(&ctx.roots())));
    Box::pin(run(ctx)).await
}

fn watchdog_promise() -> Option<Duration> {
    let usec: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

/// The way to PID 1; silent when nobody listens, as when a person starts a service by hand.
#[derive(Debug, Clone)]
struct Notify(Option<Arc<UnixDatagram>>);

impl Notify {
    fn from_env() -> Notify {
        let open = || {
            let path = std::env::var_os("NOTIFY_SOCKET")?;
            let socket = UnixDatagram::unbound().ok()?;
            // A full queue at PID 1 must not stop a service.
            socket.set_nonblocking(true).ok()?;
            socket.connect(&path).ok()?;
            Some(Arc::new(socket))
        };
        Notify(open())
    }

    /// `false`: the queue is full; it may be tried again.
    fn send(&self, message: &str) -> bool {
        let sent = self.0.as_ref().map(|socket| socket.send(message.as_bytes()));
        match sent {
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => false,
            Some(Err(error)) => {
                tracing::debug!("PID 1 was not told {message}: {error}");
                true
            }
            _ => true,
        }
    }
}

/// What decides which lines are said.
struct Log {
    /// Unless settings say otherwise.
    usual: LevelFilter,
    filter: reload::Handle<LevelFilter, Registry>,
}

impl Log {
    /// Follows the settings for as long as the service runs.
    async fn obey(self, service: &'static str, settings: Reader<DesiredProperties>) {
        // Who runs without a node, as a test or an installer, has no settings.
        let Ok(watch) = Watch::new(&[settings.dir()]) else { return };
        let mut level = self.usual;
        loop {
            let told = settings.get(&Only).and_then(|s| s.log_levels.said(service));
            let wanted = told.map_or(self.usual, filter);
            if wanted != level {
                level = wanted;
                // An error means that nobody writes any more.
                let _ = self.filter.reload(level);
                tracing::info!("lines of level {level} and graver are said from now on");
            }
            if watch.changed().await.is_err() {
                return;
            }
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Critical => LevelFilter::ERROR,
        LogLevel::None => LevelFilter::OFF,
    }
}

/// `EVE_LOG` is a level (`error` … `trace`); `info` if it is missing or none.
fn log_to_stdout() -> Log {
    let level = std::env::var("EVE_LOG").ok().and_then(|text| text.parse().ok());
    let usual = level.unwrap_or(LevelFilter::INFO);
    let (layer, filter) = reload::Layer::new(usual);
    let sink = LineSink(Arc::new(Mutex::new(Sink { lost: 0 })));
    let out = io::stdout();
    let pipe = rustix::fs::fstat(&out)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_fifo());
    if pipe && let Ok(flags) = rustix::fs::fcntl_getfl(&out) {
        // Without this a log reader that hangs would hang every service.
        let _ = rustix::fs::fcntl_setfl(&out, flags | rustix::fs::OFlags::NONBLOCK);
    }
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(sink);
    tracing_subscriber::registry().with(layer).with(lines).init();
    Log { usual, filter }
}

/// One line, one write: the kernel keeps writes of up to PIPE_BUF bytes whole.
const LINE_MAX: usize = 4096;

/// After this PID 1 is told again what its queue had no room for.
const TELL_AGAIN: Duration = Duration::from_millis(100);

/// Writes whole lines to stdout. A line that does not fit into a full pipe is dropped and counted.
#[derive(Debug, Clone)]
struct LineSink(Arc<Mutex<Sink>>);

#[derive(Debug)]
struct Sink {
    lost: u64,
}

impl<'a> MakeWriter<'a> for LineSink {
    type Writer = LineSink;

    fn make_writer(&'a self) -> LineSink {
        self.clone()
    }
}

impl Write for LineSink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Ok(mut sink) = self.0.lock() else { return Ok(line.len()) };
        if sink.lost > 0 {
            let told = format!("{{\"level\":\"WARN\",\"message\":\"{} lines lost\"}}\n", sink.lost);
            if rustix::io::write(io::stdout(), told.as_bytes()).is_ok() {
                sink.lost = 0;
            }
        }
        if rustix::io::write(io::stdout(), &fit(line)).is_err() {
            sink.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line, cut where it could no longer be written in one piece.
fn fit(line: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if line.len() <= LINE_MAX {
        return line.into();
    }
    let mut cut = line[..LINE_MAX - 1].to_vec();
    cut.push(b'\n');
    cut.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pid_1_hears_that_a_service_is_ready_even_if_its_queue_was_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let pid_1 = UnixDatagram::bind(&path).unwrap();
        let socket = UnixDatagram::unbound().unwrap();
        socket.set_nonblocking(true).unwrap();
        socket.connect(&path).unwrap();
        let notify = Notify(Some(Arc::new(socket)));
        while notify.send("WATCHDOG=1") {}
        let (_, stop) = watch::channel(false);
        let context = Context { service: Service::Log, paths: Paths::from_env(), notify, stop };
        context.ready();
        pid_1.set_nonblocking(true).unwrap();
        let mut heard = [0; 64];
        let until_ready = async {
            loop {
                match pid_1.recv(&mut heard) {
                    Ok(length) if &heard[..length] == b"READY=1" => return,
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await, // empty for now
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(5), until_ready).await.expect("it is told");
    }

    #[test]
    fn a_long_line_is_cut_to_what_a_pipe_takes_at_once() {
        let long = vec![b'x'; LINE_MAX + 1];
        assert_eq!(fit(&long).len(), LINE_MAX);
        assert_eq!(fit(&long).last(), Some(&b'\n'));
        assert_eq!(fit(b"short\n").as_ref(), b"short\n");
    }
}
