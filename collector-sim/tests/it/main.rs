//! The fleet as its users see it: pages, truth, time and sockets.

mod page;
mod server;
mod simulation;
mod text;
