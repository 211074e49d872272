//! The monitor's signals, deadlines, and end.

use std::fmt::Display;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::sessions::Finished;
use super::{Monitor, Which, notify, start};
use crate::config::keys;
use crate::ipc::gate::Order;
use crate::ipc::relay::Closing;
use crate::log::{Level, log};
use crate::protocol::stream::End;
use crate::sys::process;

impl Monitor {
    // ---- signals and time ----

    pub(super) fn take_signals(&mut self, now: Instant) {
        for signal in self.signals.take() {
            if signal == Signal::SIGHUP && self.inetd.is_some() {
                self.look_again(now);
            } else if signal == Signal::SIGHUP {
                self.reload();
            } else if signal == Signal::SIGCHLD {
                self.children_ended(now);
            } else if signal == Signal::SIGUSR1 {
                self.make_room();
            } else {
                self.stop(now);
            }
        }
    }

    fn children_ended(&mut self, now: Instant) {
        self.unreaped.retain(|pid| !process::reap(*pid));
        for id in self.sessions.jobs_without_pidfd() {
            let finished = self.sessions.job_ended(id, now);
            self.log_end(finished);
        }
    }

    /// Reloads the settings. If they are faulty, logs that and keeps the old ones.
    fn reload(&mut self) {
        self.manager.tell(&notify::reloading());
        let read = start::settings(&self.paths.settings(), self.port)
            .and_then(|settings| Ok((start::can_log_in(&settings)?, settings)));
        match read {
            Ok((program, mut settings)) => {
                self.logins.go_on(program);
                let in_vain = settings.keep_from_start(&self.settings);
                self.settings = settings;
                self.hosts.reload(&self.paths);
                log!(self.log, Info, "reloaded");
                for key in in_vain {
                    let kept = key.value(&self.settings);
                    log!(
                        self.log,
                        Warning,
                        "needs-restart",
                        key = key.name,
                        kept,
                        why = "a change of it takes a restart"
                    );
                }
                self.warn_of_another_key();
                self.send_to_gate(Order::Limits(self.limits()).encode());
                self.update_guard();
                self.warn_of_few_descriptors();
                self.hosts_are_new();
            }
            Err(e) => {
                log!(
                    self.log,
                    Error,
                    "not-reloaded",
                    why = e,
                    kept = "the old configuration"
                );
            }
        }
        self.manager.tell("READY=1");
    }

    /// Warns of a changed host key. The key is read at the start only: running sessions and
    /// handshakes were begun with it.
    fn warn_of_another_key(&mut self) {
        let why: String = match keys::load_host_key(&self.paths) {
            Ok(key) if key.public == self.host.public => return,
            Ok(_) => "a change of it takes a restart".into(),
            Err(e) => e.to_string(),
        };
        log!(
            self.log,
            Warning,
            "needs-restart",
            key = "host.key",
            kept = "the one that was there at the start",
            why
        );
    }

    /// Stops accepting connections, and gives running jobs their grace. A second signal ends that.
    fn stop(&mut self, now: Instant) {
        if self.stopping.is_some() {
            self.stopping = Some(now);
            return;
        }
        self.manager.tell("STOPPING=1");
        let sessions = self.sessions.len();
        log!(self.log, Info, "stopping", sessions);
        self.stopping = Some(now + self.settings.daemon.grace);
        // No process is started any more, so no restart is waited for.
        self.restart = [None, None];
        self.claim.give_up();
        self.listeners.clear();
        self.send_to_gate(Order::StopListening.encode());
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let grace = self.stopping.filter(|_| !self.hung_up);
        [
            self.restart[0],
            self.restart[1],
            self.gate.due(),
            self.relay.due(),
            self.names_deadline(),
            self.hosts.deadline(),
            self.awaited_deadline(),
            self.look_ups.deadline(),
            self.sessions.deadline(),
            self.logins.deadline(),
            self.doors.deadline(),
            self.sign_socket.deadline(),
            self.control_deadline(),
            self.claim.due(),
            self.log.deadline(),
            self.protection.deadline(),
            self.guard.due(),
            grace,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    pub(super) fn pass_deadlines(&mut self, now: Instant) {
        for which in [Which::Gate, Which::Relay] {
            let due = self.restart.get(which as usize).copied().flatten();
            if due.is_some_and(|at| at <= now) && self.stopping.is_none() {
                self.start_again(which, now);
            }
            if self.child(which).due().is_some_and(|at| at <= now) {
                self.lost(which, now);
            }
        }
        if self.names_deadline().is_some_and(|at| at <= now) {
            self.go_on(now);
        }
        if self.log.deadline().is_some_and(|at| at <= now) {
            self.log.tell_suppressed();
        }
        if self.hosts.deadline().is_some_and(|at| at <= now) {
            self.hosts.queue_due_names(now);
            self.resolve_names(now);
        }
        if self.awaited_deadline().is_some_and(|at| at <= now) {
            self.continue_overdue_awaited(now);
        }
        if self.look_ups.deadline().is_some_and(|at| at <= now) {
            self.look_ups.expire(self.poll.registry(), now);
        }
        if self.sessions.deadline().is_some_and(|at| at <= now) {
            for finished in self.sessions.advance_hung(now) {
                self.log_end(Some(finished));
            }
        }
        if self.logins.deadline().is_some_and(|at| at <= now) {
            self.expire_logins(now);
        }
        if self.doors.deadline().is_some_and(|at| at <= now) {
            self.expire_registry_questions(now);
        }
        if self.sign_socket.deadline().is_some_and(|at| at <= now) {
            self.sign_socket.expire(now);
        }
        if self.control_deadline().is_some_and(|at| at <= now) {
            self.answer_session_lists(now);
            self.control.expire(now);
        }
        if self.claim.due().is_some_and(|at| at <= now) {
            self.claim_run_folder(now);
        }
        if self.protection.deadline().is_some_and(|at| at <= now) {
            self.protection.go_on(&mut self.starter, now);
        }
        if self.guard.due().is_some_and(|at| at <= now) {
            self.start_guard();
        }
        if self.stopping.is_some_and(|at| at <= now) && !self.hung_up {
            self.hung_up = true;
            let kill_after = self.settings.exec.hup_to_kill;
            for finished in self.sessions.hang_up_all(kill_after, now) {
                self.log_end(Some(finished));
            }
        }
    }

    fn start_again(&mut self, which: Which, now: Instant) {
        let slot = which as usize;
        if let Some(slot) = self.restart.get_mut(slot) {
            *slot = None;
        }
        if let Err(e) = self.start_child(which) {
            log!(self.log, Error, "fault", why = e);
            let (pid, when) = self.child(which).discard(now);
            self.unreaped.extend(pid);
            if let Some(slot) = self.restart.get_mut(slot) {
                *slot = Some(when.max(now + Duration::from_millis(100)));
            }
        }
    }

    // ---- the end ----

    pub(super) fn log_end(&mut self, finished: Option<Finished>) {
        let Some(f) = finished.filter(|f| !f.goes_on) else {
            return;
        };
        // Its worker has kept the leader until now.
        self.logins.session_is_over(f.id, self.settings.login.check);
        let status = match &f.end {
            Some(End::Exited(n)) => n.to_string(),
            Some(End::Killed(n)) => format!("signal-{n}"),
            Some(End::NotStarted(_)) | None => "unknown".to_owned(),
        };
        let (level, why) = match f.closing.and_then(Closing::failure) {
            Some(failure) => (Level::Error, Some(failure.to_string())),
            None => (Level::Info, None),
        };
        let ms = f.lasted.as_millis();
        let mut pairs: Vec<(&str, &dyn Display)> = vec![
            ("session", &f.id),
            ("host", &f.info.host),
            ("peer", &f.info.peer),
            ("user", &f.info.user),
            ("how", &f.how),
            ("status", &status),
            ("ms", &ms),
            ("in", &f.sent),
            ("out", &f.got),
        ];
        if f.closing.is_some_and(Closing::is_cut_off) {
            pairs.push(("cut-off", &"yes"));
        }
        if let Some(why) = &why {
            pairs.push(("why", why));
        }
        self.log.say(level, "end", &pairs);
    }

    pub(super) fn is_over(&self) -> bool {
        let idle = self.sessions.len() == 0 && !self.logins.is_busy();
        // Under inetd the daemon waits for a concluding worker, to enforce its time limit.
        let nobody_is_left = self.gate_is_empty && self.pending.is_empty();
        let served = self.inetd.is_some() && nobody_is_left && !self.logins.concludes();
        idle && (self.stopping.is_some() || served)
    }

    pub(super) fn finish(&mut self) -> u8 {
        self.leave_logins();
        // First, so that they end while gate and relay are waited for. One that hangs in a module
        // is not waited for.
        self.unreaped.extend(self.look_ups.finish());
        for which in [Which::Gate, Which::Relay] {
            let (pid, _) = self.child(which).discard(Instant::now());
            if let Some(pid) = pid {
                let _ = nix::sys::wait::waitpid(pid, None);
            }
        }
        self.leave_slot();
        for told in self.doors.finish(&mut self.unreaped) {
            self.log_note(told);
        }
        self.unreaped.retain(|pid| !process::reap(*pid));
        self.sign_socket.close();
        self.control.close();
        self.claim.remove_pid_file(&self.paths);
        self.log.tell_suppressed();
        log!(self.log, Info, "stopped");
        process::SUCCESS
    }
}
