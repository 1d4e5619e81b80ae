// SPDX-License-Identifier: Apache-2.0
//! How requests are assigned to pods.

use std::time::Duration;

use super::{Life, Variant};
use crate::engine::Engine;
use crate::load::Request;
use crate::picker::{FlowControl, QUEUE_DEPTH_THRESHOLD};

/// Who sends requests to the pods.
#[derive(Debug)]
pub(super) enum Sender {
    /// Clients, which use the pods in turn.
    Clients,
    /// An Endpoint Picker that counts requests and uses the pods in turn.
    Picker,
    /// An Endpoint Picker that sends each request to the pod with the fewest, and queues requests while no
    /// pod has room.
    FlowControl(FlowControl),
}

impl Life {
    /// Requests in a pod, over all engines.
    fn load(&self) -> usize {
        self.engines.iter().map(Engine::load).map(|(wait, run)| wait + run).sum()
    }
}

impl Variant {
    /// Adds the next request.
    pub(super) fn arrive(&mut self, at: Duration) {
        let adapters = u16::try_from(self.spec.engine.lora_adapters.len()).unwrap_or(u16::MAX);
        let request = self.spec.load.request(adapters, &mut self.rng);
        self.stream.take(&self.spec.load, at, &mut self.rng);
        self.received += 1;
        // It must not overtake queued requests.
        let place = if self.is_holding() { None } else { self.next_engine(at) };
        match (place, &mut self.sender) {
            (Some(place), sender) => {
                if let Sender::FlowControl(flow) = sender {
                    flow.pass();
                }
                self.send(at, request, place);
            }
            (None, Sender::FlowControl(flow)) => {
                self.refused += u64::from(!flow.hold(at, request));
            }
            (None, Sender::Clients | Sender::Picker) => self.refused += 1,
        }
    }

    /// Returns the time of the next event in a pod that may dispatch queued requests; `None` if nothing is
    /// queued.
    pub(super) fn next_event(&self) -> Option<Duration> {
        if !self.is_holding() {
            return None;
        }
        let lives = self.pods.iter().filter_map(|pod| pod.life.as_ref());
        lives.flat_map(|life| &life.engines).filter_map(Engine::next_event).min()
    }

    /// Sends queued requests to the pods that have room at that time.
    pub(super) fn release(&mut self, at: Duration) {
        while self.is_holding() {
            let Some(place) = self.next_engine(at) else { return };
            if let Sender::FlowControl(flow) = &mut self.sender
                && let Some(request) = flow.release(at)
            {
                self.send(at, request, place);
            }
        }
    }

    fn is_holding(&self) -> bool {
        matches!(&self.sender, Sender::FlowControl(flow) if !flow.is_empty())
    }

    fn send(&mut self, at: Duration, request: Request, (pod, engine): (usize, usize)) {
        let pod = &mut self.pods[pod];
        if let Some(life) = &mut pod.life {
            pod.sent += 1;
            life.engines[engine].arrive(at, request);
        }
    }

    /// Returns the pod and engine of the next request, as indices.
    fn next_engine(&mut self, at: Duration) -> Option<(usize, usize)> {
        if matches!(self.sender, Sender::FlowControl(_)) {
            return self.emptiest_engine(at);
        }
        // Each live pod in turn, and within a pod each engine in turn.
        let turn = self.turn;
        let alive = self.alive();
        let (pod, life) = self
            .pods
            .iter()
            .enumerate()
            .filter_map(|(place, pod)| Some((place, pod.life.as_ref()?)))
            .nth(turn.checked_rem(alive)?)?;
        self.turn += 1;
        Some((pod, (turn / alive) % life.engines.len()))
    }

    /// The emptiest engine of the pod with the fewest requests, among pods with room.
    fn emptiest_engine(&mut self, at: Duration) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize)> = None;
        for (place, pod) in self.pods.iter_mut().enumerate() {
            let Some(life) = &mut pod.life else { continue };
            life.engines.iter_mut().for_each(|engine| engine.advance_to(at));
            let waiting: usize = life.engines.iter().map(|engine| engine.load().0).sum();
            let load = life.load();
            if waiting < QUEUE_DEPTH_THRESHOLD && best.is_none_or(|(least, _)| load < least) {
                best = Some((load, place));
            }
        }
        let (_, pod) = best?;
        let engines = &self.pods[pod].life.as_ref()?.engines;
        let engine = (0..engines.len()).min_by_key(|engine| engines[*engine].load())?;
        Some((pod, engine))
    }
}
