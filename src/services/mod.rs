//! What a granted request starts. Run by the monitor.

pub mod exec;
pub mod gui;
