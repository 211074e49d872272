//! Fuzzes the messages between the processes of the daemon: a compromised gate or relay may send
//! the monitor anything.
#![no_main]

use cosserver::ipc::control;
use cosserver::ipc::gate::{Order, Question};
use cosserver::ipc::relay::{MonitorToRelay, Session, RelayToMonitor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(read) = Question::decode(bytes) {
        assert_eq!(Question::decode(&read.encode()), Some(read));
    }
    if let Some(read) = Order::decode(bytes) {
        assert_eq!(Order::decode(&read.encode()), Some(read));
    }
    if let Some(read) = control::Question::decode(bytes) {
        assert_eq!(control::Question::decode(&read.encode()), Some(read));
    }
    if let Some(read) = control::Answer::decode(bytes) {
        assert!(control::Answer::decode(&read.encode()).is_some());
    }
    if let Some(read) = RelayToMonitor::decode(bytes) {
        assert_eq!(RelayToMonitor::decode(&read.encode()), Some(read));
    }
    if let Some(read) = MonitorToRelay::decode(bytes) {
        assert_eq!(MonitorToRelay::decode(&read.encode()), Some(read));
    }
    if let Some(read) = Session::decode(bytes) {
        assert!(Session::decode(&read.encode()).is_some());
    }
});
