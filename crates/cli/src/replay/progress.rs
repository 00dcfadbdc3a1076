//! The progress bar, on a terminal only. Volatile.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::run::{Spectator, Verdict};
use crate::interrupt::Interrupt;

/// A bar that counts steps.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl Progress {
    /// A bar over `steps` steps of `what`; invisible where standard error is no terminal.
    pub(super) fn new(what: &'static str, steps: u64, interrupt: &Interrupt) -> Self {
        let style = ProgressStyle::with_template(
            "{prefix:>10} {wide_bar} {human_pos}/{human_len} events {msg} {elapsed}",
        );
        let target = ProgressDrawTarget::stderr_with_hz(10);
        let bar = ProgressBar::with_draw_target(Some(steps), target)
            .with_style(style.expect("a valid template"))
            .with_prefix(what);
        Self { bar, interrupt: interrupt.clone() }
    }

    /// Shows `text` beside the bar.
    pub(super) fn note(&self, text: String) {
        self.bar.set_message(text);
    }
}

impl Spectator for Progress {
    fn tick(&mut self, steps: u64) -> Verdict {
        self.bar.set_position(steps);
        if self.interrupt.is_raised() { Verdict::Stop } else { Verdict::GoOn }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
