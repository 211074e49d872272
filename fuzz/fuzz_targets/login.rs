//! Fuzzes the messages between the monitor and a login worker: third-party modules run inside the
//! worker.
#![no_main]

use cosserver::ipc::login::{Order, WorkerToMonitor};
use cosserver::protocol::limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(word) = WorkerToMonitor::decode(bytes) {
        match &word {
            WorkerToMonitor::Ask(texts) => {
                assert!(texts.len() <= limits::PROMPTS);
                assert!(texts.iter().any(|t| t.style.is_prompt()));
            }
            // kill(2) with 0 would signal the own process group, with 1 init.
            WorkerToMonitor::Running(started) => assert!(started.pid > 1),
            WorkerToMonitor::Known(_)
            | WorkerToMonitor::Exited(_)
            | WorkerToMonitor::Killed(_)
            | WorkerToMonitor::Refused(..)
            | WorkerToMonitor::Failed(_) => {}
        }
        let again = word.encode();
        assert_eq!(WorkerToMonitor::decode(&again).unwrap().encode(), again);
    }
    if let Some(order) = Order::decode(bytes) {
        let again = order.encode();
        assert_eq!(Order::decode(&again).unwrap().encode(), again);
    }
});
