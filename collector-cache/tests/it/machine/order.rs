//! Who leaves a full cache, by the book.

use collector_core::Tick;

use super::reference::Id;

/// An order of eviction.
pub(super) enum Order {
    /// Whichever: the rules of every order must do.
    Any,
    /// The least recently read; of several, any.
    Lru,
    /// SIEVE, as its authors wrote it down, once for the untracked and once for the tracked.
    Sieve([Sieve; 2]),
}

impl Order {
    pub(super) fn read(&mut self, id: &Id) {
        if let Self::Sieve(queues) = self {
            for queue in queues {
                queue.read(id);
            }
        }
    }

    /// It is new, or of the other class than before. What it was read before still counts.
    pub(super) fn enter(&mut self, id: &Id, tracked: bool) {
        if let Self::Sieve(queues) = self {
            let [untracked, of_tracked] = queues;
            let visited = untracked.leave(id).or(of_tracked.leave(id)).unwrap_or(false);
            queues[usize::from(tracked)].queue.push((id.clone(), visited));
        }
    }

    pub(super) fn leave(&mut self, id: &Id) {
        if let Self::Sieve(queues) = self {
            for queue in queues {
                queue.leave(id);
            }
        }
    }

    /// Who of `others` (tracked or not, last read) may leave for a new entry; nobody when there are only
    /// tracked ones and it is not. `None` when the order does not say.
    pub(super) fn victims(
        &mut self,
        others: &[(Id, bool, Tick)],
        for_tracked: bool,
    ) -> Option<Vec<Id>> {
        let some_untracked = others.iter().any(|(_, tracked, _)| !tracked);
        if !some_untracked && !for_tracked {
            return (!matches!(self, Self::Any)).then(Vec::new);
        }
        let class = others.iter().filter(|(_, tracked, _)| *tracked != some_untracked);
        match self {
            Self::Any => None,
            Self::Lru => {
                let oldest = class.clone().map(|(_, _, last_read)| *last_read).min();
                let oldest = class.filter(|(_, _, last_read)| Some(*last_read) == oldest);
                Some(oldest.map(|(id, _, _)| id.clone()).collect())
            }
            Self::Sieve(queues) => {
                Some(queues[usize::from(!some_untracked)].victim().into_iter().collect())
            }
        }
    }
}

#[derive(Default)]
pub(super) struct Sieve {
    /// From old to new, each with whether it was read since the hand came by.
    queue: Vec<(Id, bool)>,
    /// A place in the queue; its end stands for none.
    hand: usize,
}

impl Sieve {
    fn read(&mut self, id: &Id) {
        self.queue
            .iter_mut()
            .filter(|(other, _)| other == id)
            .for_each(|(_, visited)| *visited = true);
    }

    fn leave(&mut self, id: &Id) -> Option<bool> {
        let place = self.queue.iter().position(|(other, _)| other == id)?;
        let last = place + 1 == self.queue.len();
        let (_, visited) = self.queue.remove(place);
        if place < self.hand {
            self.hand -= 1;
        } else if place == self.hand && last {
            // There is nobody newer: it begins again with the oldest.
            self.hand = 0;
        }
        Some(visited)
    }

    fn victim(&mut self) -> Option<Id> {
        if self.queue.is_empty() {
            return None;
        }
        loop {
            let place = self.hand % self.queue.len();
            let (id, visited) = &mut self.queue[place];
            self.hand = place;
            if !*visited {
                return Some(id.clone());
            }
            *visited = false;
            self.hand = (place + 1) % self.queue.len();
        }
    }
}
