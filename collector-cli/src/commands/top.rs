//! `collector top`: models and their pods on the whole screen, kept current.

mod state;
mod view;

use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::thread;

use collector_config::Loader;
use collector_core::MetricsCollector as _;
use collector_engine::CachingCollector;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::state::{Read, Row, State};
use super::select::Followed;
use super::settings::{Settings, Verbosity};
use super::watch::LOOK;
use crate::args::{GlobalArgs, Selection, TopArgs};
use crate::exit::{Exit, Failure};
use crate::output::{colours, signs};
use crate::screen::Screen;
use crate::signals::StopSignals;

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &TopArgs) -> Result<Exit, Failure> {
    if global.output.is_some() {
        return Err(Failure::usage("--output does not work with this command: it has one form"));
    }
    let selection = args.select.selection_or_all()?;
    let settings = Settings::load_with_window(base, global, Verbosity::Drawing, args.window)?;
    super::block_on(async {
        let mut signals = StopSignals::catch()?;
        let collector = settings.collector_in_background().await?;
        if !io::stdin().is_terminal() {
            return Err(no_terminal());
        }
        let Some(screen) = Screen::show()? else { return Err(no_terminal()) };
        let (sender, receiver) = watch::channel(Read::default());
        // The screen reacts to keys while a server is waited for.
        tokio::select! {
            ended = follow(&settings, &collector, &selection, &sender) => ended.map(|()| Exit::Success),
            ended = show(&screen, receiver) => ended,
            _ = signals.received() => Ok(Exit::Success),
        }
    })
}

fn no_terminal() -> Failure {
    Failure::usage(
        "top needs a terminal for its screen and its keys; `collector watch` prints lines",
    )
}

/// Reads every model again and again.
async fn follow(
    settings: &Settings,
    collector: &CachingCollector,
    selection: &Selection,
    sender: &watch::Sender<Read>,
) -> Result<(), Failure> {
    let mut models = Followed::default();
    let mut problem = None;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        match models.update(settings, collector, selection).await? {
            Some(failure) => problem = Some(failure.problems().join(" ")),
            None if !models.models().is_empty() => problem = None,
            None => {}
        }
        let readings = collector.collect_many(models.models()).await;
        let read = models.models().iter().cloned().zip(readings);
        let rows = read.map(|(model, reading)| Row { model, reading }).collect();
        sender.send_replace(Read { rows, problem: problem.clone(), any: true });
    }
}

/// Draws what was read last, until a key ends it.
async fn show(screen: &Screen, mut read: watch::Receiver<Read>) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::other(format!("cannot draw on the terminal: {error}"));
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout())).map_err(failed)?;
    let mut keys = events();
    let mut state = State::default();
    let has_colours = colours(&io::stdout());
    loop {
        if !screen.is_shown() {
            // A panic elsewhere, which has been reported.
            return Ok(Exit::Failure);
        }
        let draw =
            |frame: &mut ratatui::Frame<'_>| view::draw(frame, &mut state, signs(), has_colours);
        terminal.draw(draw).map_err(failed)?;
        tokio::select! {
            changed = read.changed() => match changed {
                Ok(()) => state.update(read.borrow_and_update().clone()),
                Err(_) => pending().await,
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) if state.key(key) => return Ok(Exit::Success),
                // A resize is drawn, like everything else.
                Some(_) => {}
                None => return Err(Failure::other("cannot read the keys of the terminal")),
            },
        }
    }
}

/// What the terminal reports, from a thread that waits for it as long as the program runs.
fn events() -> mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
