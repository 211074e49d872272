//! Starts what a granted request asks for. Runs in the monitor.

pub mod exec;
pub mod gui;
