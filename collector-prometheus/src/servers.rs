// SPDX-License-Identifier: Apache-2.0
//! The live servers of a model, as the queries have reported them so far.

use std::cmp::Reverse;

use collector_core::{PodName, Tick};

use crate::plan::LeafId;

/// A data-parallel rank of a server, or a copy of one.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Index of the engine in the shape.
    pub(crate) engine: u8,
    /// The pod, or the replica in a pod with several.
    pub(crate) replica: PodName,
    /// The data-parallel rank; empty if none is named.
    pub(crate) rank: Box<str>,
    /// Identifies servers and copies of one rank.
    pub(crate) key: Box<str>,
    pub(crate) role: Option<Box<str>>,
    pub(crate) sampled_at: Tick,
    /// The sample time on the server's clock, in seconds.
    pub(crate) stamp: f64,
    /// Its gauges and counters. NaN: there was a value that cannot be true.
    pub(crate) values: Vec<(LeafId, f64)>,
}

impl Server {
    /// Returns one of its values.
    pub(crate) fn value(&self, leaf: LeafId) -> Option<f64> {
        let found = self.values.iter().find(|(known, _)| *known == leaf);
        found.map(|(_, value)| *value)
    }
}

/// The live servers of a model; sorted by engine, replica, rank and key after [`settle`](Self::settle).
#[derive(Debug, Default)]
pub(crate) struct Servers {
    all: Vec<Server>,
    /// Index after the last match: queries return servers in about the same order.
    next: usize,
}

impl Servers {
    /// Adds a server; call [`settle`](Self::settle) before any lookup.
    pub(crate) fn add(&mut self, server: Server) {
        self.all.push(server);
    }

    /// Sorts the servers. Of duplicates the latest one is kept.
    pub(crate) fn settle(&mut self) {
        let order = |a: &Server, b: &Server| identity(a).cmp(&identity(b));
        if !self.all.is_sorted_by(|a, b| order(a, b).is_lt()) {
            self.all.sort_by(|a, b| {
                order(a, b).then(Reverse(a.sampled_at).cmp(&Reverse(b.sampled_at)))
            });
            self.all.dedup_by(|later, first| order(later, first).is_eq());
        }
    }

    /// Calls `take` for each server of a row: the one with this key, or every server of the rank if the row
    /// has no key.
    pub(crate) fn of_row(
        &mut self,
        (engine, replica, rank, key): (u8, &str, &str, &str),
        mut take: impl FnMut(&mut Server),
    ) {
        let wanted = (engine, replica, rank);
        let is_of = |server: &Server| {
            (server.engine, server.replica.as_str(), &*server.rank) == wanted
                && (key.is_empty() || *server.key == *key)
        };
        let start = match self.all.get(self.next) {
            Some(server) if is_of(server) => self.next,
            _ => self.all.partition_point(|server| {
                (server.engine, server.replica.as_str(), &*server.rank) < wanted
            }),
        };
        for (offset, server) in self.all[start..].iter_mut().enumerate() {
            if (server.engine, server.replica.as_str(), &*server.rank) != wanted {
                break;
            }
            if is_of(server) {
                take(server);
                self.next = start + offset + 1;
                if !key.is_empty() {
                    break;
                }
            }
        }
    }

    pub(crate) fn as_slice(&self) -> &[Server] {
        &self.all
    }

    pub(crate) fn as_mut_vec(&mut self) -> &mut Vec<Server> {
        self.next = 0;
        &mut self.all
    }

    /// Returns whether one rank of a replica has several servers or copies.
    pub(crate) fn has_several_of_a_rank(&self) -> bool {
        let rank = |server: &Server| (server.engine, server.replica.clone(), server.rank.clone());
        self.all.windows(2).any(|pair| rank(&pair[0]) == rank(&pair[1]))
    }
}

fn identity(server: &Server) -> (u8, &str, &str, &str) {
    (server.engine, server.replica.as_str(), &server.rank, &server.key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn server(replica: &str, rank: &str, key: &str, seconds: u64) -> Server {
        Server {
            engine: 0,
            replica: replica.into(),
            rank: rank.into(),
            key: key.into(),
            role: None,
            sampled_at: Tick::from_nanos(1 << 62) + Duration::from_secs(seconds),
            stamp: seconds as f64,
            values: Vec::new(),
        }
    }

    fn servers(all: &[(&str, &str, &str)]) -> Servers {
        let mut servers = Servers::default();
        for (replica, rank, key) in all {
            servers.add(server(replica, rank, key, 0));
        }
        servers.settle();
        servers
    }

    fn found(servers: &mut Servers, replica: &str, rank: &str, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        servers.of_row((0, replica, rank, key), |it| found.push(it.key.to_string()));
        found
    }

    #[test]
    fn servers_are_found_in_whatever_order_rows_come() {
        let mut all = servers(&[("c", "0", "k"), ("a", "0", "k"), ("a", "1", "k"), ("b", "", "k")]);
        for (replica, rank) in
            [("a", "0"), ("a", "1"), ("b", ""), ("c", "0"), ("b", ""), ("a", "1")]
        {
            assert_eq!(found(&mut all, replica, rank, ""), ["k"], "{replica} {rank}");
        }
        assert!(found(&mut all, "b", "0", "").is_empty());
        assert!(found(&mut all, "d", "", "").is_empty());
        assert!(!all.has_several_of_a_rank());
    }

    #[test]
    fn a_row_without_a_key_belongs_to_all_servers_of_the_rank() {
        let mut all = servers(&[("a", "0", "x"), ("a", "0", "y"), ("a", "1", "x")]);
        assert!(all.has_several_of_a_rank());
        assert_eq!(found(&mut all, "a", "0", "y"), ["y"]);
        assert_eq!(found(&mut all, "a", "0", ""), ["x", "y"]);
        assert!(found(&mut all, "a", "0", "z").is_empty());
    }

    #[test]
    fn a_duplicate_server_is_kept_once_with_the_later_time() {
        for times in [[1, 3], [3, 1]] {
            let mut servers = Servers::default();
            for seconds in times {
                servers.add(server("a", "0", "k", seconds));
            }
            servers.settle();
            assert_eq!(servers.as_slice().len(), 1);
            assert!((servers.as_slice()[0].stamp - 3.0).abs() < 1e-9);
        }
    }
}
