// SPDX-License-Identifier: Apache-2.0
//! `collector top`: models and their pods on the whole screen, kept current.

mod fields;
mod state;
mod view;

use std::future::pending;
use std::io::{self, IsTerminal as _};
use std::thread;

use collector_config::Loader;
use collector_core::{MetricsCollector as _, ModelRef};
use collector_engine::CachingCollector;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::style::force_color_output;
use tokio::sync::{mpsc, watch};

use self::state::{Read, Row, State, Traced};
use super::explain;
use super::select::Followed;
use super::settings::{Settings, Verbosity, one_form};
use super::watch::every_second;
use crate::args::{GlobalArgs, Selection, TopArgs};
use crate::exit::{Exit, Failure};
use crate::output::{colours, signs};
use crate::screen::Screen;
use crate::signals::{StopSignals, hangups};

pub(super) fn run(base: &Loader, global: &GlobalArgs, args: &TopArgs) -> Result<Exit, Failure> {
    one_form(global)?;
    let selection = args.select.selection_or_all()?;
    let settings = Settings::load_with_window(base, global, Verbosity::Drawing, args.window)?;
    super::block_on(async {
        let mut signals = StopSignals::catch()?;
        let mut hangups = hangups()?;
        if !io::stdin().is_terminal() {
            return Err(no_terminal());
        }
        let collector = settings.collector_in_background().await?;
        let Some(screen) = Screen::show()? else { return Err(no_terminal()) };
        let (read_sender, read) = watch::channel(Read::default());
        let (wanted, wanted_receiver) = watch::channel(None);
        let (traced_sender, traced) = mpsc::channel(1);
        let view = View { screen: &screen, settings: &settings, read, wanted, traced };
        // The screen reacts to keys while a server is waited for.
        tokio::select! {
            ended = follow(&settings, &collector, &selection, &read_sender) => ended.map(|()| Exit::Success),
            () = trace(&settings, wanted_receiver, traced_sender) => Ok(Exit::Success),
            ended = view.show() => ended,
            _ = signals.received() => Ok(Exit::Success),
            _ = hangups.recv() => Ok(Exit::Success),
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
    let mut ticks = every_second();
    loop {
        ticks.tick().await;
        match models.update(settings, collector, selection).await? {
            Some(failure) => problem = Some(failure.problems().join(" ")),
            None if !models.models().is_empty() => problem = None,
            None => {}
        }
        let readings = collector.collect_many(models.models()).await;
        let read = models.models().iter().cloned().zip(readings);
        let rows = read.map(|(model, reading)| Row { model, reading }).collect();
        let at = Some(settings.clock.now());
        sender.send_replace(Read { rows, problem: problem.clone(), at });
    }
}

/// Traces the fetches of the model that is wanted, once.
async fn trace(
    settings: &Settings,
    mut wanted: watch::Receiver<Option<ModelRef>>,
    sender: mpsc::Sender<Traced>,
) {
    let trace = async |model: ModelRef| {
        let traced = async { explain::traced(settings, settings.backends()?, &model).await };
        let fetches = traced.await.map(|traced| traced.fetches);
        let fetches = fetches.map_err(|failure| failure.problems().join(" "));
        // The receiver is gone when the program ends.
        let _ = sender.send(Traced { model, fetches }).await;
    };
    loop {
        let model = wanted.borrow_and_update().clone();
        if let Some(model) = model {
            tokio::select! {
                // Another model is wanted.
                changed = wanted.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return pending().await,
                },
                () = trace(model) => {}
            }
        }
        if wanted.changed().await.is_err() {
            return pending().await;
        }
    }
}

/// What the screen is drawn from.
struct View<'a> {
    screen: &'a Screen,
    settings: &'a Settings,
    read: watch::Receiver<Read>,
    /// The model whose fetches are to be traced.
    wanted: watch::Sender<Option<ModelRef>>,
    traced: mpsc::Receiver<Traced>,
}

impl View<'_> {
    /// Draws what was read last, until a key ends it.
    async fn show(mut self) -> Result<Exit, Failure> {
        let failed =
            |error: io::Error| Failure::other(format!("cannot draw on the terminal: {error}"));
        let has_colours = colours(&io::stdout());
        // The command line takes precedence over `NO_COLOR`, which the library reads too.
        force_color_output(has_colours);
        let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout())).map_err(failed)?;
        let mut keys = events();
        let mut state = State::default();
        // Ages are shown of values that do not come any more, too.
        let mut seconds = every_second();
        loop {
            if !self.screen.is_shown() {
                // A panic elsewhere, which has been reported.
                return Ok(Exit::Failure);
            }
            let now = self.settings.clock.now();
            let draw = |frame: &mut ratatui::Frame<'_>| {
                view::draw(frame, &mut state, now, signs(), has_colours);
            };
            terminal.draw(draw).map_err(failed)?;
            tokio::select! {
                changed = self.read.changed() => match changed {
                    Ok(()) => state.update(self.read.borrow_and_update().clone()),
                    Err(_) => pending().await,
                },
                Some(traced) = self.traced.recv() => state.traced = Some(traced),
                _ = seconds.tick() => {}
                event = keys.recv() => match event {
                    Some(Event::Key(key)) if state.key(key) => return Ok(Exit::Success),
                    // A resize is drawn, like everything else.
                    Some(_) => {}
                    None => return Err(Failure::other("cannot read the keys of the terminal")),
                },
            }
            let wanted = state.traces();
            self.wanted.send_if_modified(|known| {
                let is_new = known.as_ref() != wanted;
                if is_new {
                    *known = wanted.cloned();
                }
                is_new
            });
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
