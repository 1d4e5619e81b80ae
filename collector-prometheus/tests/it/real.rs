//! Against a real Prometheus that scrapes a simulated fleet.
