//! `collector serve`: background refresh, the HTTP API and the metrics, until a signal.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use collector_config::Loader;
#[cfg(feature = "promql")]
use collector_core::Backend;
#[cfg(feature = "promql")]
use collector_engine::CachingCollector;
use collector_transport::server::Listener;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::files;
#[cfg(feature = "promql")]
use super::settings::url_of;
use super::settings::{Settings, Verbosity, loader, with_origin};
use crate::args::{GlobalArgs, ServeArgs};
use crate::exit::{Exit, Failure};
#[cfg(feature = "keda")]
use crate::server::Keda;
#[cfg(feature = "promql")]
use crate::server::Promql;
use crate::server::{
    Admin, App, Events, Lifecycle, MAX_HEAD_BYTES, MAX_HEAD_WITH_QUERY_BYTES, Recorder, api_tls,
    load_tls, serve_until,
};
use crate::signals::StopSignals;

/// How long requests under way may take once a signal came.
const GRACE: Duration = Duration::from_secs(3);

/// How long the answers may then take to be written.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// How long the tasks may take to end, and the snapshot to be written. In all the process exits
/// within 5 s.
const LAST_DEEDS: Duration = Duration::from_secs(1);

/// How often samples are moved into their buckets; a scrape does it too.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &ServeArgs) -> Result<Exit, Failure> {
    if global.output.is_some() {
        return Err(Failure::usage(
            "--output does not work with this command: it prints no result",
        ));
    }
    let mut loader = loader(base, global);
    if let Some(listen) = &args.listen {
        loader = loader.flag("server.listen", listen, "--listen");
    }
    let settings = Settings::of(loader, Verbosity::Daemon)?;
    settings.warn();
    if let Some(problem) = files::snapshot_problem(&settings.loaded.config) {
        // It serves all the same, and a restart begins with nothing.
        tracing::warn!("{}", with_origin(&settings.loaded, &problem));
    }
    super::block_on_many_threads(serve(&settings))
}

async fn serve(settings: &Settings) -> Result<Exit, Failure> {
    let mut signals = StopSignals::catch()?;
    let recorder = Recorder::install()?;
    let backends = settings.backends()?;
    let cache = &settings.loaded.config.cache;
    let renewed =
        !cache.fetch_interval.is_zero() || backends.iter().any(|backend| backend.live().is_some());
    let refreshes = cache.enabled && renewed;
    let collector = settings.collector_over(backends.clone())?;
    let listener = listen(settings).await?;
    let (lifecycle, watched) = watch::channel(Lifecycle::Serving);
    let stopping = || Lifecycle::Stopping.reached(watched.clone());
    #[cfg(feature = "keda")]
    let keda = {
        let (collector, clock) = (Arc::clone(&collector), Arc::clone(&settings.clock));
        Keda::listen(&settings.loaded, collector, clock).await?
    };
    #[cfg(not(feature = "keda"))]
    if settings.loaded.config.keda.listen.is_some() {
        return Err(Failure::usage(
            "keda.listen: this build has no external scaler (cargo feature keda)",
        ));
    }
    let app = Arc::new(App {
        collector: Arc::clone(&collector),
        clock: Arc::clone(&settings.clock),
        recorder: recorder.clone(),
        events: Events::default(),
        admin: Admin::new(settings.loaded.config.server.admin_token_path.clone())?,
        lifecycle: watched.clone(),
        ready: AtomicBool::new(!refreshes),
        loaded: settings.loaded.clone(),
        #[cfg(feature = "promql")]
        promql: promql(settings, &backends, &collector)?,
    });
    #[cfg(not(feature = "promql"))]
    if settings.loaded.config.promql.enabled {
        return Err(Failure::usage(
            "promql.enabled: this build has no PromQL API (cargo feature promql)",
        ));
    }
    // KEDA is answered from the start: a restart must not look like a scaler that is gone.
    #[cfg(feature = "keda")]
    let keda = match keda {
        None => None,
        Some(keda) => {
            keda.announce(&settings.loaded)?;
            Some(tokio::spawn(keda.serve(stopping())))
        }
    };
    collector.start_background_worker().await.unwrap();
    announce(&listener)?;

    #[cfg(feature = "promql")]
    if app.promql.is_some() {
        if let Some(url) = url_of(&settings.loaded, "prometheus") {
            let server = format!("prometheus at {url}");
            tracing::info!(
                server,
                "PromQL queries are answered with the credentials for this server"
            );
        } else {
            tracing::info!(
                "PromQL queries over readings and scraped pods are answered, and no others: prometheus.url is not set"
            );
        }
    }

    let queries = settings.loaded.config.promql.enabled;
    let max_head_bytes = if queries { MAX_HEAD_WITH_QUERY_BYTES } else { MAX_HEAD_BYTES };
    let api = serve_until(listener, app.router(), max_head_bytes, stopping());
    let mut servers = tokio::spawn(async {
        api.await;
        #[cfg(feature = "keda")]
        if let Some(keda) = keda {
            // A panic in it was logged, and ends it alone.
            let _ = keda.await;
        }
    });
    let upkeep = tokio::spawn(async move {
        let mut ticks = interval(UPKEEP_INTERVAL);
        loop {
            ticks.tick().await;
            recorder.upkeep();
        }
    });

    let signal = signals.received().await;
    tracing::info!(signal, "Stopping");
    lifecycle.send_replace(Lifecycle::Stopping);
    if timeout(GRACE, &mut servers).await.is_err() {
        // Whoever still waits for a backend gets an error instead of a broken connection.
        lifecycle.send_replace(Lifecycle::Leaving);
        if timeout(LAST_WORDS, &mut servers).await.is_err() {
            tracing::warn!("Connections that do not take their answers are cut");
        }
    }
    upkeep.abort();
    if timeout(LAST_DEEDS, collector.stop_background_worker()).await.is_err() {
        tracing::warn!("A request to the backend, or the last snapshot, is abandoned");
    }
    tracing::info!("Stopped");
    Ok(Exit::Success)
}

/// The PromQL API, if it is enabled.
#[cfg(feature = "promql")]
fn promql(
    settings: &Settings,
    backends: &[Arc<dyn Backend>],
    collector: &Arc<CachingCollector>,
) -> Result<Option<Arc<Promql>>, Failure> {
    let clock = Arc::clone(&settings.clock);
    let promql = Promql::new(&settings.loaded, backends, Arc::clone(collector), clock)?;
    Ok(promql.map(Arc::new))
}

async fn listen(settings: &Settings) -> Result<Listener, Failure> {
    let server = &settings.loaded.config.server;
    let tls = load_tls(&api_tls(server))?;
    let socket = TcpListener::bind(server.listen).await.map_err(|error| {
        Failure::other(format!(
            "cannot listen on {}: {error}; choose another address with --listen or server.listen",
            server.listen
        ))
    })?;
    Ok(Listener { socket, tls, read_timeout: None })
}

fn announce(listener: &Listener) -> Result<(), Failure> {
    let address: SocketAddr = listener
        .socket
        .local_addr()
        .map_err(|error| Failure::other(format!("the listening socket is gone: {error}")))?;
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    tracing::info!("listening on {scheme}://{address}");
    if !address.ip().is_loopback() {
        tracing::warn!(
            "Whoever reaches {address} can read everything: the API has no log-in, so let only a \
             trusted network in"
        );
    }
    Ok(())
}
