//! Congestion control for boxes on one LAN: Cubic that never falls below a floor, so that a lost packet
//! or a pause does not leave a heartbeat or a batch waiting for window.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// Bytes that may always be in flight: as many as a cheap switch and the socket's buffer accept in one burst.
const FLOOR_BYTES: u64 = 64 * 1024;
const INITIAL_BYTES: u64 = 256 * 1024;

/// Makes a [`Floored`] Cubic for each connection.
#[derive(Debug, Default)]
pub(super) struct Floor;

impl ControllerFactory for Floor {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        let mut config = CubicConfig::default();
        config.initial_window(INITIAL_BYTES);
        Box::new(Floored(Arc::new(config).build(now, current_mtu)))
    }
}

struct Floored(Box<dyn Controller>);

impl Controller for Floored {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.0.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.0.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.0.on_end_acks(now, in_flight, app_limited, largest);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.0.on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.0.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.0.window().max(FLOOR_BYTES)
    }

    fn metrics(&self) -> ControllerMetrics {
        self.0.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Floored(self.0.clone_box()))
    }

    fn initial_window(&self) -> u64 {
        self.0.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_does_not_fall_below_the_floor_whatever_is_lost() {
        let now = Instant::now();
        let mut controller = Arc::new(Floor).build(now, 1200);
        assert_eq!(controller.window(), INITIAL_BYTES);
        for _ in 0..50 {
            controller.on_congestion_event(now, now, true, 100_000);
        }
        assert_eq!(controller.window(), FLOOR_BYTES);
    }
}
