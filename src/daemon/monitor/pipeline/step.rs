//! What a step of the pipeline leads to. Runs in the monitor.

use crate::daemon::monitor::preauth::Preauth;
use crate::daemon::monitor::reject::Reject;

/// What the steps so far lead to.
pub(super) enum Step {
    /// The connection waits in this state, which an event resumes.
    Wait(Preauth),
    /// It is a session now, or its registration is complete, or it is in the table already.
    Done,
}

/// A step's outcome. One that leads on at once calls the next step.
pub(super) type Outcome = Result<Step, Reject>;
