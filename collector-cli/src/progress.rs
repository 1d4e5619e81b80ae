// SPDX-License-Identifier: Apache-2.0
//! What is being waited for: a line on the terminal that moves, elsewhere a note when it takes long.

use std::env;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use collector_core::Clock;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::logging;
use crate::output::{Colour, painted, printable, shortened, signs, width};

/// From one picture of the line to the next.
const FRAME: Duration = Duration::from_millis(100);

/// Without a terminal, a wait that takes longer is noted.
const NOTED_AFTER: Duration = Duration::from_secs(2);

/// The columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// Back to the begin of the line, which is cleared.
const CLEAR: &str = "\r\x1b[K";

/// Whether the last line of the terminal is one that moves.
static SHOWN: AtomicBool = AtomicBool::new(false);

/// Awaits `work`, and says on stderr what is being waited for. Cancel safe: the line is cleared.
pub(crate) async fn waiting<T>(clock: &dyn Clock, what: &str, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if !can_move() {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = sleep(NOTED_AFTER) => {}
        }
        logging::note(&format!("waiting for {what}"));
        return work.await;
    }
    let _line = Line;
    let started = clock.now();
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut turns = signs().turns.iter().cycle();
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            _ = frames.tick() => show(turns.next(), what, started.age(clock.now())),
        }
    }
}

/// Whether stderr is a terminal for people, where a line can be drawn over.
fn can_move() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    io::stderr().is_terminal() && !is_dumb && !logging::is_json()
}

/// Draws the line.
fn show(sign: Option<&char>, what: &str, since: Duration) {
    let text = format!("waiting for {} ({}s)", printable(what), since.as_secs());
    // A full line would make the terminal go to the next one.
    let room = width().unwrap_or(COLUMNS).saturating_sub(3);
    let text = shortened(&text, room, signs().ellipsis);
    let sign = sign.map(char::to_string).unwrap_or_default();
    let sign = painted(&sign, Colour::Yellow, &io::stderr());
    SHOWN.store(true, Ordering::Relaxed);
    // A closed stderr leaves no place for an error.
    let _ = write!(io::stderr(), "{CLEAR}{sign} {text}");
}

/// The line is cleared when this is dropped.
struct Line;

impl Drop for Line {
    fn drop(&mut self) {
        clear();
    }
}

/// Makes room for a line on stderr.
pub(crate) fn clear() {
    if SHOWN.swap(false, Ordering::Relaxed) {
        let _ = write!(io::stderr(), "{CLEAR}");
    }
}
